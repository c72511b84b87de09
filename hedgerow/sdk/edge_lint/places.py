"""Where a finding stands in the document that the person wrote: a deployment of IoT Edge has other keys than ours. Pure."""

from __future__ import annotations

import msgspec

from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.edge_finding import Finding

_AGENT, _HUB = "$edgeAgent.properties.desired", "$edgeHub.properties.desired"
# Keys below a module.
_KEYS = {
    "restart_policy": "restartPolicy",
    "startup_order": "startupOrder",
    "pull_policy": "imagePullPolicy",
    "variables": "env",
    "image": "settings.image",
    "create_options": "settings.createOptions",
    "limits": "settings.createOptions.HostConfig.Memory",
    "probe": "settings.createOptions.Healthcheck",
}
_REMEDIES = {"Set limits.memory_bytes.": "Set HostConfig.Memory in createOptions, or limits in our own form."}
_WHOLE = {
    "$.target": "$.targetCondition",
    "$.routes": f"{_HUB}.routes",
    "$.modules": f"{_AGENT}.modules",
    "$.telemetry.time_to_live_s": f"{_HUB}.storeAndForwardConfiguration.timeToLiveSecs",
}


def in_iot_edge(finding: Finding, deployment: EdgeDeployment) -> Finding:
    """The same finding by the keys of IoT Edge."""
    remedy = _REMEDIES.get(finding.remedy, finding.remedy)
    return msgspec.structs.replace(finding, place=_place(finding.place, deployment), remedy=remedy)


def _place(place: str, deployment: EdgeDeployment) -> str:
    if place in _WHOLE:
        return _WHOLE[place]
    if place.startswith("$.routes."):
        return f"{_HUB}{place[1:]}".replace(".time_to_live_s", ".timeToLiveSecs")
    for name, spec in deployment.modules.items():
        head = f"$.modules.{name}"
        if place == head or place.startswith(f"{head}."):
            key, dot, rest = place[len(head) + 1 :].partition(".")
            end = f".{_KEYS.get(key, key)}{dot}{rest}" if key else ""
            return f"{_AGENT}.modules.{spec.shown_as(name)}{end}"
    return place
