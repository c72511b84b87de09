"""``$edgeAgent``: the modules; and what is said of IoT Edge's own parts, for which Hedgerow's agent stands here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hedgerow.contracts.edge import ModuleSpec
from hedgerow.contracts.edge_finding import Finding, error, note, warning
from hedgerow.contracts.iot_edge.errors import wrong
from hedgerow.contracts.iot_edge.modules import read_env, read_module
from hedgerow.contracts.iot_edge.names import module_names
from hedgerow.contracts.iot_edge.part import Part
from hedgerow.contracts.iot_edge.properties import Desired
from hedgerow.contracts.iot_edge.schema import NEWEST_OF_AGENT, minor_version

# What of edgeAgent's and edgeHub's variables has something like it here (in lower case), and what that is.
_SETTINGS: Mapping[str, str] = {
    "runtimeloglevel": "the agent's --log-level",
    "upstreamprotocol": "the scheme of the broker's URL in device.toml",
    "https_proxy": "HTTPS_PROXY in the environment of the agent",
    "http_proxy": "HTTP_PROXY in the environment of the agent",
    "no_proxy": "NO_PROXY in the environment of the agent",
    "storagefolder": "the agent's --state-dir",
    "backupconfigfilepath": "the agent's --state-dir; it keeps the desired state by itself",
    "maxupstreambatchsize": "the agent's --batch-bytes",
    "optimizeforperformance": "nothing; memory is bounded always",
    "rocksdb_maxtotalwalsize": "nothing; the buffer has --quota-bytes",
    "messagecleanupintervalsecs": "nothing; what is too old is taken away all the time",
    "sendruntimequalitytelemetry": "nothing; no telemetry goes to anybody but you",
    "performancemetricsupdatefrequency": "nothing; metrics are measured when they are asked for",
    "moduleupdatemode": "nothing; everything is pulled before anything is stopped (WaitForAllPulls), always",
    "configrefreshfrequencysecs": "nothing; desired states are pushed",
}


@dataclass(frozen=True)
class AgentPart:
    """``names`` maps IoT Edge's module ids to ours."""

    modules: Mapping[str, ModuleSpec]
    names: Mapping[str, str]
    findings: list[Finding]


def read_agent_part(desired: Desired) -> AgentPart:
    """Raises IotEdgeInvalid, IotEdgeSchemaUnknown."""
    findings: list[Finding] = []
    whole = desired.whole
    found = dict(_of_layer(desired, findings)) if whole is None else _of_whole(whole, findings)
    names = module_names(found, f"{desired.place}.modules")
    modules: dict[str, ModuleSpec] = {}
    for identity, part in found.items():
        modules[names[identity]], more = read_module(identity, names[identity], part)
        findings += more
    return AgentPart(modules, names, findings)


def _of_whole(whole: Part, findings: list[Finding]) -> dict[str, Part]:
    minor_version(whole, NEWEST_OF_AGENT)
    findings += whole.unknown("schemaVersion", "runtime", "systemModules", "modules", "configuration", "integrity")
    runtime = whole.part("runtime")
    runtime.word("type", ("docker",))
    findings += _credentials(runtime.part("settings").part("registryCredentials"))
    if runtime.part("settings").get("loggingOptions"):
        place = runtime.part("settings").at("loggingOptions")
        findings.append(
            note(place, "it is passed over; containers log to json-file, 3 files of 1 MB", "Set LogConfig in createOptions.")
        )
    for name, part in whole.part("systemModules").parts():
        findings += _system_module(name, part)
    return dict(whole.part("modules").parts())


def _of_layer(desired: Desired, findings: list[Finding]) -> Iterator[tuple[str, Part]]:
    """``properties.desired.modules.NAME`` is all that a layer may say of modules."""
    for path, value in desired.patches:
        place = f"{desired.place}.properties.desired.{'.'.join(path)}"
        head = path[0].lower()
        if head == "modules" and len(path) == 2:
            yield path[1], Part.of(place, value)
        elif head == "systemmodules":
            findings.append(note(place, "it is passed over: Hedgerow's agent does the work of edgeAgent and edgeHub"))
        elif head == "runtime":
            at = Part.of("$", {path[-1]: value}) if path[-1].lower() == "registrycredentials" else Part("$", {})
            findings += _credentials(at.part("registryCredentials"))
        else:
            raise wrong(place, "a layer sets whole modules only", "Write properties.desired.modules.NAME with all of the module.")


def _system_module(name: str, part: Part) -> list[Finding]:
    if name.lower() not in ("edgeagent", "edgehub"):
        return [warning(part.place, f"there is no system module {name[:80]!r}", "Move it to modules.")]
    findings = [note(part.place, f"{name} is passed over: Hedgerow's agent does its work")]
    unread: list[Finding] = []
    for variable in read_env(part.part("env"), unread):
        like = _SETTINGS.get(variable.lower())
        told = f"its variable {variable} is passed over; here it is {like}" if like else f"its variable {variable} is passed over"
        findings.append(note(f"{part.place}.env.{variable}", told))
    return findings


def _credentials(registries: Part) -> list[Finding]:
    """Never kept: a desired state is for devices to read, and a workspace keeps credentials in its vault only."""
    found: list[Finding] = []
    for _, registry in registries.parts():
        address = registry.text("address")
        if not address:
            found.append(error(registry.place, "it has no address", "Write the registry's host there, or take it away."))
            continue
        remedy = f"Run `docker login {address}` on each device, as the user that runs the agent."
        found.append(warning(registry.place, f"credentials are not kept; devices log in to {address[:200]} themselves", remedy))
    return found
