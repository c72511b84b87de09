"""What a change of the edge deployments would do to each device, before anything is touched. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection

from hedgerow.contracts.api_fleet import EdgeChange, EdgePlan, EdgePlanGroup, EdgePlanRolloutGroup, PlannedStep
from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredModule, DesiredState, EdgeDeployment
from hedgerow.contracts.names import Reference
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.status import ModuleStatus, StatusReport
from registry.hub.changes import Content, agent_step, content_of, difference, steps_at_once
from registry.hub.compose import Incomposable, candidates, compose
from registry.hub.desired import read_envelope, resolve_images
from registry.hub.reported import facts_of, read_report
from registry.hub.rollouts import staging
from registry.hub.rollouts.membership import foretold
from registry.hub.rollouts.sharing import Shares
from registry.hub.rollouts.staging import Staging
from registry.hub.steps import image_name, images_there, planned_steps
from registry.hub.target import matches
from registry.store import fleet, images, module_twins, twins
from registry.store.twins import StoredTwin

# Of a group of devices that take the same steps.
_NAMED = 20
# From so many on, changes are told by group.
_MOST_CHANGES = 1000


@dataclass(frozen=True)
class Steps:
    """That steps are wanted; ``device`` narrows the plan to one."""

    device: str | None = None


def preview(connection: Connection, deployments: Iterable[EdgeDeployment], of: str, steps: Steps | None = None) -> EdgePlan:
    """The plan if exactly ``deployments`` were there; ``targeted`` are the devices that deployment ``of`` matches.

    Where ``of`` would be rolled out in groups, the plan is the end of that; rollouts of others stay where they are.
    """
    ordered = candidates(deployments)
    stages = staging.without(staging.load(connection), [one.deployment for one in ordered], of)
    references = [image for one in stages.every_one() for spec in one.modules.values() for image in spec.images().values()]
    look = _Look(connection, stages, resolve_images(connection, references), steps is not None)
    aimed = [one for one in ordered if one.deployment.name == of]
    asks = steps is not None or stages.asks_for_reports()
    shares = next((foretold(connection, one.deployment) for one in aimed), None)
    targeted: list[str] = []
    changes: list[EdgeChange] = []
    for twin in twins.stored_twins(connection, with_reports=asks):
        if steps is not None and steps.device not in (None, twin.name):
            continue
        report = read_report(twin.reported)
        facts = facts_of(report)
        if any(matches(one.condition, twin.name, twin.tags, facts) for one in aimed):
            targeted.append(twin.name)
        change = look.change_of(twin, report, facts)
        if change is not None:
            changes.append(_in_group(change, twin.uuid, shares))
    rollout = _foretold_groups(connection, shares)
    if steps is None:
        return EdgePlan(targeted=targeted, changes=changes, rollout=rollout)
    return EdgePlan(targeted=targeted, changes=changes[:_MOST_CHANGES], groups=_grouped(changes), rollout=rollout)


def _in_group(change: EdgeChange, uuid: str, shares: Shares | None) -> EdgeChange:
    if shares is None or uuid not in shares.group_of:
        return change
    return msgspec.structs.replace(change, rollout_group=shares.groups[shares.group_of[uuid]].name)


def _foretold_groups(connection: Connection, shares: Shares | None) -> list[EdgePlanRolloutGroup]:
    if shares is None:
        return []
    names = fleet.names_by_uuid(connection)
    members: list[list[str]] = [[] for _ in shares.groups]
    for uuid, number in shares.group_of.items():
        members[number].append(names[uuid])
    return [
        EdgePlanRolloutGroup(name=group.name, count=group.devices, devices=sorted(of)[:_NAMED])
        for group, of in zip(shares.groups, members, strict=True)
    ]


class _Look:
    """Compares device by device; what is the same for many is worked out once."""

    def __init__(self, connection: Connection, stages: Staging, pins: Mapping[str, ImagePin], with_steps: bool) -> None:
        self._connection, self._stages, self._pins, self._with_steps = connection, stages, pins, with_steps
        self._patches = module_twins.patches(connection)
        self._steps: dict[bytes, list[PlannedStep]] = {}
        self._blobs: dict[str, Mapping[str, int]] = {}

    def change_of(self, twin: StoredTwin, report: StatusReport | None, facts: Mapping[str, str]) -> EdgeChange | None:
        """None for a device on which nothing would change."""
        found = compose(
            twin.name, twin.tags, self._stages.for_device(twin.uuid), self._pins, facts, self._patches.get(twin.uuid, {})
        )
        if isinstance(found, Incomposable):
            problem = f"image {found.missing_image} does not exist"
            return EdgeChange(device=twin.name, edge_deployment=found.edge_deployment, problem=problem)
        state = None if twin.desired is None else read_envelope(twin.desired)
        before, after = content_of(state), content_of(found)
        change = difference(twin.name, found, before, after)
        if change is None or not self._with_steps:
            return change
        steps = self._steps_of(before, after, report.modules if report else {})
        return msgspec.structs.replace(change, steps=steps, basis=_basis(state, report))

    def _steps_of(self, before: Content, after: Content, statuses: Mapping[str, ModuleStatus]) -> list[PlannedStep]:
        seen = {name: (one.state, one.image_digest, one.exit_code, one.started_at is None) for name, one in statuses.items()}
        key = msgspec.json.encode((before, after, seen), order="deterministic")
        if key not in self._steps:
            there = set[str]().union(*(self._layers(pin) for pin in images_there(before.modules, statuses)))
            planned = planned_steps(before.modules, statuses, after.modules)
            sized = [self._sized(step, after.modules, there) for step in planned]
            self._steps[key] = [*steps_at_once(before, after), *sized, *agent_step(before, after)]
        return self._steps[key]

    def _sized(self, step: PlannedStep, modules: Mapping[str, DesiredModule], there: set[str]) -> PlannedStep:
        module = modules.get(step.module or "") if step.action == "pull" else None
        pins = () if module is None else (module.image, module.shadow_image)
        pin = next((one for one in pins if one is not None and image_name(one) == step.image), None)
        if pin is None:
            return step
        blobs = self._layers(pin)
        if not blobs:
            return step
        platforms = images.get(self._connection, Reference(pin.name, pin.version)).platforms
        if len(platforms) > 1:
            # Which of them the device is of is not known here.
            return msgspec.structs.replace(step, size_bytes=max(one.size_bytes for one in platforms))
        new = sum(size for digest, size in blobs.items() if digest not in there)
        there |= blobs.keys()
        return msgspec.structs.replace(step, size_bytes=sum(blobs.values()), new_bytes=new)

    def _layers(self, pin: ImagePin) -> Mapping[str, int]:
        """Sizes by digest of what is pulled for an image of this workspace; nothing is known of others."""
        if pin.reference is not None:
            return {}
        if pin.digest not in self._blobs:
            self._blobs[pin.digest] = images.blob_sizes(self._connection, pin.name, pin.version)
        return self._blobs[pin.digest]


def _basis(state: DesiredState | None, report: StatusReport | None) -> str:
    if report is None:
        return "it has not reported yet: planned as if nothing ran on it"
    told = f"its report of {report.reported_at:%Y-%m-%d %H:%M:%S} UTC"
    if state is not None and report.desired.version != state.version:
        return f"{told}, which is of desired version {report.desired.version}; {state.version} is on its way already"
    return told


def _grouped(changes: Sequence[EdgeChange]) -> list[EdgePlanGroup]:
    """The largest first."""
    groups: dict[bytes, list[EdgeChange]] = {}
    for change in changes:
        same = EdgePlanGroup(count=0, devices=[], steps=change.steps, problem=change.problem)
        groups.setdefault(encode(same), []).append(change)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0].device))
    return [
        EdgePlanGroup(
            count=len(group),
            devices=[change.device for change in group[:_NAMED]],
            steps=group[0].steps,
            problem=group[0].problem,
        )
        for group in ordered
    ]
