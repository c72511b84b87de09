"""What one device should run: device, edge deployments and known images in, its next desired state out. Pure.

Among the deployments whose target matches, the highest priority wins; of equal ones the newest. Layered ones that match
lie with it in one pile, by ascending priority (``layers.py``): of two that say the same thing the upper one counts. A layer
alone is nothing: it waits for a deployment to lie on. A device that leaves every target gets a desired state without
modules: what nobody is in charge of any more is stopped. (IoT Edge lets it run on, unmanaged.) A device that never had a
deployment gets none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hedgerow.contracts.device import TrustedKey
from hedgerow.contracts.edge import AgentRelease, DesiredModule, DesiredState, EdgeDeployment, Route, TelemetryPolicy
from hedgerow.contracts.merge_patch import merge_patch
from hedgerow.contracts.service import ImagePin
from registry.hub.layers import merged_telemetry, merged_twins, pile_up
from registry.hub.target import Condition, matches, parse_target

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING_REPORTED: Mapping[str, str] = {}
_NO_PATCHES: Mapping[str, dict[str, object]] = {}


@dataclass(frozen=True)
class Candidate:
    """A deployment with its target condition read."""

    deployment: EdgeDeployment
    condition: Condition


@dataclass(frozen=True)
class Composition:
    """The content of a desired state, before it has a version. ``layers`` are those that lie in it, lowest first."""

    edge_deployment: str | None
    revision: int | None
    modules: Mapping[str, DesiredModule]
    routes: Mapping[str, Route] = field(default_factory=dict)
    telemetry: TelemetryPolicy = field(default_factory=TelemetryPolicy)
    twins: Mapping[str, dict[str, object]] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    key_generation: int = 0
    trusted_keys: tuple[TrustedKey, ...] = ()
    agent: AgentRelease | None = None


@dataclass(frozen=True)
class Incomposable:
    """A deployment asks for an image that is not there; the device keeps what it has."""

    edge_deployment: str
    missing_image: str


def candidates(deployments: Iterable[EdgeDeployment]) -> list[Candidate]:
    """In the order in which they win. Raises TargetInvalid (stored deployments were checked when they came)."""
    ordered = sorted(deployments, key=lambda one: (one.priority, one.created_at or _BEGINNING, one.name), reverse=True)
    return [Candidate(deployment, parse_target(deployment.target)) for deployment in ordered]


def compose(
    device: str,
    tags: Mapping[str, str],
    ordered: Iterable[Candidate],
    pins: Mapping[str, ImagePin],
    reported: Mapping[str, str] = _NOTHING_REPORTED,
    patches: Mapping[str, dict[str, object]] = _NO_PATCHES,
) -> Composition | Incomposable:
    """The content for the device of this name; ``pins`` resolves the image references of manifests.

    ``reported`` is what its report says (:func:`registry.hub.reported.facts_of`), for targets that ask for it; ``patches`` are
    what operators merged into the desired properties of its modules, above all deployments.
    """
    meant = [one.deployment for one in ordered if matches(one.condition, device, tags, reported)]
    winner = next((one for one in meant if not one.layered), None)
    if winner is None:
        return Composition(None, None, {})
    pile = pile_up(winner, [one for one in meant if one.layered])
    uppermost = {name: (deployment.name, spec) for deployment in pile for name, spec in deployment.modules.items()}
    modules: dict[str, DesiredModule] = {}
    for name, (source, spec) in uppermost.items():
        missing = [image for image in spec.images().values() if image not in pins]
        if missing:
            return Incomposable(source, missing[0])
        image = None if spec.image is None else pins[spec.image]
        modules[name] = DesiredModule(spec=spec, image=image, shadow_image=pins[spec.shadow.image] if spec.shadow else None)
    return Composition(
        edge_deployment=winner.name,
        revision=winner.revision,
        modules=modules,
        routes={name: route for deployment in pile for name, route in deployment.routes.items()},
        telemetry=merged_telemetry(pile),
        twins=_patched({name: twin for name, twin in merged_twins(pile).items() if name in modules}, modules, patches),
        layers=tuple(deployment.name for deployment in pile if deployment.layered),
        agent=next((deployment.agent for deployment in reversed(pile) if deployment.agent is not None), None),
    )


def _patched(
    twins: dict[str, dict[str, object]], modules: Iterable[str], patches: Mapping[str, dict[str, object]]
) -> dict[str, dict[str, object]]:
    return twins | {name: merge_patch(twins.get(name, {}), patches[name]) for name in modules if name in patches}


def next_state(
    device_uuid: str,
    previous: DesiredState | None,
    found: Composition,
    *,
    incarnation: str,
    above: int = 0,
    now: datetime,
) -> DesiredState | None:
    """The state to issue, or None when the device has it already.

    ``above`` is the version that the device says it accepted: a restored hub may have forgotten some, and the device
    takes only higher ones.
    """
    nothing = not found.modules and found.edge_deployment is None and not found.key_generation and not found.trusted_keys
    if previous is None and nothing and above == 0:
        return None
    current = previous is not None and previous.incarnation == incarnation and previous.version >= above
    if current and previous is not None and _content(previous) == _content(found):
        return None
    version = max(previous.version if previous else 0, above) + 1
    return DesiredState(
        device_uuid=device_uuid,
        version=version,
        incarnation=incarnation,
        issued_at=now,
        edge_deployment=found.edge_deployment,
        modules=dict(found.modules),
        routes=dict(found.routes),
        telemetry=found.telemetry,
        twins=dict(found.twins),
        twin_versions=_twin_versions(previous, found.twins, max(0, above - previous.version) if previous else above),
        agent=found.agent,
        key_generation=found.key_generation,
        trusted_keys=list(found.trusted_keys),
    )


def _twin_versions(previous: DesiredState | None, twins: Mapping[str, dict[str, object]], forgotten: int) -> dict[str, int]:
    """Counted up where properties change. Each of the ``forgotten`` desired states may have counted, too: never backwards."""
    counted: dict[str, int] = {}
    for name, twin in twins.items():
        known = previous is not None and name in previous.twins
        before = previous.twin_versions.get(name, int(known)) if previous else 0
        same = previous is not None and known and previous.twins[name] == twin and not forgotten
        counted[name] = before if same else before + 1 + forgotten
    return counted


def _content(of: DesiredState | Composition) -> tuple[object, ...]:
    keys = (of.key_generation, tuple(of.trusted_keys))
    return of.edge_deployment, of.modules, of.routes, of.telemetry, of.twins, of.agent, keys
