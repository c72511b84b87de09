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

from hedgerow.contracts.edge import DesiredModule, DesiredState, EdgeDeployment, Route, TelemetryPolicy
from hedgerow.contracts.service import ImagePin
from registry.hub.layers import merged_telemetry, merged_twins, pile_up
from registry.hub.target import Condition, matches, parse_target

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING_REPORTED: Mapping[str, str] = {}


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
) -> Composition | Incomposable:
    """The content for the device of this name; ``pins`` resolves the image references of manifests.

    ``reported`` is what its report says (:func:`registry.hub.reported.facts_of`), for targets that ask for it.
    """
    meant = [one.deployment for one in ordered if matches(one.condition, device, tags, reported)]
    winner = next((one for one in meant if not one.layered), None)
    if winner is None:
        return Composition(None, None, {})
    pile = pile_up(winner, [one for one in meant if one.layered])
    uppermost = {name: (deployment.name, spec) for deployment in pile for name, spec in deployment.modules.items()}
    modules: dict[str, DesiredModule] = {}
    for name, (source, spec) in uppermost.items():
        if spec.image is not None and spec.image not in pins:
            return Incomposable(source, spec.image)
        modules[name] = DesiredModule(spec=spec, image=None if spec.image is None else pins[spec.image])
    return Composition(
        edge_deployment=winner.name,
        revision=winner.revision,
        modules=modules,
        routes={name: route for deployment in pile for name, route in deployment.routes.items()},
        telemetry=merged_telemetry(pile),
        twins={name: twin for name, twin in merged_twins(pile).items() if name in modules},
        layers=tuple(deployment.name for deployment in pile if deployment.layered),
    )


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
    if previous is None and not found.modules and found.edge_deployment is None and above == 0:
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
    )


def _content(of: DesiredState | Composition) -> tuple[object, ...]:
    return of.edge_deployment, of.modules, of.routes, of.telemetry, of.twins
