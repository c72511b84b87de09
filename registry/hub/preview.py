"""What a change of the edge deployments would do to each device, before anything is touched. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from hedgerow.contracts.api import EdgeChange, EdgePlan
from hedgerow.contracts.edge import DesiredModule, EdgeDeployment
from registry.hub.compose import Incomposable, candidates, compose
from registry.hub.desired import read_envelope, resolve_images
from registry.hub.target import matches
from registry.store import twins


def preview(connection: Connection, deployments: Iterable[EdgeDeployment], of: str) -> EdgePlan:
    """The plan if exactly ``deployments`` were there; ``targeted`` are the devices that deployment ``of`` matches."""
    ordered = candidates(deployments)
    references = [spec.image for one in ordered for spec in one.deployment.modules.values() if spec.image is not None]
    pins = resolve_images(connection, references)
    aimed = [one for one in ordered if one.deployment.name == of]
    targeted: list[str] = []
    changes: list[EdgeChange] = []
    for twin in twins.stored_twins(connection):
        if any(matches(one.condition, twin.name, twin.tags) for one in aimed):
            targeted.append(twin.name)
        before = read_envelope(twin.desired).modules if twin.desired is not None else {}
        found = compose(twin.name, twin.tags, ordered, pins)
        if isinstance(found, Incomposable):
            problem = f"image {found.missing_image} does not exist"
            changes.append(EdgeChange(device=twin.name, edge_deployment=found.edge_deployment, problem=problem))
            continue
        change = _difference(twin.name, found.edge_deployment, before, found.modules)
        if change is not None:
            changes.append(change)
    return EdgePlan(targeted=targeted, changes=changes)


def _difference(
    device: str, source: str | None, before: Mapping[str, DesiredModule], after: Mapping[str, DesiredModule]
) -> EdgeChange | None:
    add = sorted(after.keys() - before.keys())
    remove = sorted(before.keys() - after.keys())
    change = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    if not (add or remove or change):
        return None
    return EdgeChange(device=device, edge_deployment=source, add=add, change=change, remove=remove)
