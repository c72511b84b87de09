"""What is different between the desired state that a device has and the one that it would get. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge_agent.reconcile.situation import fingerprint
from hedgerow.contracts.api_fleet import EdgeChange, PlannedStep
from hedgerow.contracts.edge import AgentRelease, DesiredModule, DesiredState, ModuleSpec, Route, TelemetryPolicy
from registry.hub.compose import Composition

_SHOWN = 160


@dataclass(frozen=True)
class Content:
    """What a desired state says, whoever made it."""

    modules: Mapping[str, DesiredModule]
    routes: Mapping[str, Route]
    telemetry: TelemetryPolicy
    twins: Mapping[str, dict[str, object]]
    agent: AgentRelease | None = None


NOTHING = Content({}, {}, TelemetryPolicy(), {})


def content_of(of: DesiredState | Composition | None) -> Content:
    """Of a device that has no desired state yet: nothing."""
    return NOTHING if of is None else Content(of.modules, of.routes, of.telemetry, of.twins, of.agent)


def difference(device: str, found: Composition, before: Content, after: Content) -> EdgeChange | None:
    """None when nothing would change."""
    add, change, remove = _names(before.modules, after.modules)
    twins = [name for names in _names(before.twins, after.twins) for name in names]
    routes = [name for names in _names(before.routes, after.routes) for name in names]
    telemetry = before.telemetry != after.telemetry
    agent = before.agent != after.agent
    if not (add or change or remove or twins or routes or telemetry or agent):
        return None
    return EdgeChange(
        device=device,
        edge_deployment=found.edge_deployment,
        layers=list(found.layers),
        add=add,
        change=change,
        remove=remove,
        routes=sorted(routes),
        twins=sorted(twins),
        telemetry=telemetry,
        agent=agent,
    )


def steps_at_once(before: Content, after: Content) -> Iterator[PlannedStep]:
    """What takes effect as soon as the desired state is accepted, without touching a module's process."""
    if before.telemetry != after.telemetry:
        yield PlannedStep(action="telemetry", text=_telemetry_words(after.telemetry))
    add, change, remove = _names(before.routes, after.routes)
    for name in [*add, *change]:
        word = "new" if name in add else "changed"
        yield PlannedStep(action="route", text=f"{name} ({word}): {after.routes[name].route[:_SHOWN]}")
    yield from (PlannedStep(action="route", text=f"{name} (removed)") for name in remove)
    for names, word in zip(_names(before.twins, after.twins), ("new", "changed", "removed"), strict=True):
        yield from (PlannedStep(action="twin", module=name, text=f"its desired properties are {word}") for name in names)
    for name in sorted(before.modules.keys() & after.modules.keys()):
        old, new = before.modules[name], after.modules[name]
        if old != new and fingerprint(old) == fingerprint(new):
            yield PlannedStep(action="adjust", module=name, text=f"{_fields(old.spec, new.spec)}; it runs on")


def agent_step(before: Content, after: Content) -> Iterator[PlannedStep]:
    """The last one of all: modules come first, and run on while the agent starts again."""
    if before.agent == after.agent:
        return
    if after.agent is None:
        yield PlannedStep(action="upgrade", text="no release of the agent is asked for any more; the one that runs stays")
        return
    source = "a package index" if after.agent.wheel is None else f"wheel {after.agent.wheel[:19]}…"
    words = "on trial, the one before comes back when it is not well; modules run on"
    yield PlannedStep(action="upgrade", text=f"agent {after.agent.version} from {source}: {words}")


def _names(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[list[str], list[str], list[str]]:
    """Those that are new, those that are others, those that go."""
    both = before.keys() & after.keys()
    return (
        sorted(after.keys() - before.keys()),
        sorted(name for name in both if before[name] != after[name]),
        sorted(before.keys() - after.keys()),
    )


def _fields(old: ModuleSpec, new: ModuleSpec) -> str:
    changed = [name for name in ModuleSpec.__struct_fields__ if getattr(old, name) != getattr(new, name)]
    return f"changes: {', '.join(changed) or 'the name of its image'}"


def _telemetry_words(policy: TelemetryPolicy) -> str:
    kept = "for ever" if policy.time_to_live_s is None else f"for {policy.time_to_live_s} s"
    streams = f"; rules of their own: {', '.join(sorted(policy.streams))}" if policy.streams else ""
    return f"messages are worth sending {kept}{streams}"
