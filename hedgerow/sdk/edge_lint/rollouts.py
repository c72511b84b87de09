"""Traps of a rollout's policy: groups that nobody can be in, and times in which no device can be done."""

from __future__ import annotations

from collections.abc import Iterator

from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.edge_finding import Finding, error, warning
from hedgerow.contracts.rollout import RolloutGroup
from registry.hub.errors import TargetInvalid
from registry.hub.target import parse_target


def rollout_findings(deployment: EdgeDeployment) -> Iterator[Finding]:
    """What there is to say about how a deployment is rolled out; nothing for one without a policy."""
    groups = deployment.rollout.groups if deployment.rollout else []
    trial_s = max((spec.update.commit_after_s for spec in deployment.modules.values() if spec.update.rollback), default=0.0)
    everybody = next((number for number, group in enumerate(groups) if _takes_all(group)), len(groups))
    for number, group in enumerate(groups):
        place = f"$.rollout.groups[{number}]"
        if group.percent is not None and group.devices is not None:
            yield error(place, "it has both percent and devices", "Write one of them.")
        try:
            parse_target(group.target)
        except TargetInvalid as problem:
            yield error(f"{place}.target", str(problem), problem.advice)
        if number > everybody:
            text = f"group {everybody + 1} takes every device, so nobody is left for this one"
            yield warning(place, text, "Give that one percent, devices or a target.")
        if group.timeout_s <= trial_s:
            text = f"a new version is on trial for {trial_s:g} s, and the group has {group.timeout_s:g} s to be done"
            yield warning(f"{place}.timeout_s", text, "Give it more time, or the modules a shorter update.commit_after_s.")


def _takes_all(group: RolloutGroup) -> bool:
    return group.percent is None and group.devices is None and group.target in ("", "*")
