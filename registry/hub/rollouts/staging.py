"""Which revision of each edge deployment a device has, while rollouts are under way.

Composition stays pure and knows nothing of rollouts: it is handed the candidates of one device, in which each deployment
stands with the revision that this device has now, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.rollout import Rollout
from registry.hub.compose import Candidate, candidates
from registry.hub.rollouts.plan import was_released
from registry.hub.target import uses_reported
from registry.store import edge_deployments, edge_revisions, rollout_devices, rollouts
from registry.store.rollout_devices import UNTOLD


@dataclass(frozen=True)
class Stage:
    """One deployment whose rollout is under way.

    ``has`` is the revision by device (None: nothing of it), ``others`` that of devices which came to match since it began.
    """

    newest: EdgeDeployment
    before: Mapping[int, EdgeDeployment]
    has: Mapping[str, int | None]
    others: int | None

    def revision_for(self, uuid: str) -> int | None:
        return self.has.get(uuid, self.others)

    def at(self, revision: int | None) -> EdgeDeployment | None:
        """A revision that is not remembered is a mistake somewhere: then the newest is wanted more than none."""
        return None if revision is None else self.before.get(revision, self.newest)


@dataclass(frozen=True)
class Staging:
    """All deployments. ``untold`` devices are to be told, even if nothing changes for them."""

    deployments: Sequence[EdgeDeployment]
    stages: Sequence[Stage] = ()
    untold: frozenset[str] = frozenset()
    _made: dict[tuple[int | None, ...], list[Candidate]] = field(default_factory=dict)

    def for_device(self, uuid: str) -> Sequence[Candidate]:
        """In the order in which they win on this device."""
        key = tuple(stage.revision_for(uuid) for stage in self.stages)
        if key not in self._made:
            staged = {stage.newest.name: stage.at(revision) for stage, revision in zip(self.stages, key, strict=True)}
            chosen = (staged.get(one.name, one) for one in self.deployments)
            self._made[key] = candidates(one for one in chosen if one is not None)
        return self._made[key]

    def every_one(self) -> list[EdgeDeployment]:
        """All revisions that some device may have."""
        return [*self.deployments, *(one for stage in self.stages for one in stage.before.values())]

    def asks_for_reports(self) -> bool:
        """Whether what devices report decides about one of them."""
        return any(uses_reported(one.condition) for one in candidates(self.every_one()))


def load(connection: Connection, only: Iterable[str] | None = None, *, hold: bool = False) -> Staging:
    """As it is now, for all devices or those of ``only``. ``hold`` as in :func:`edge_deployments.every`."""
    deployments = edge_deployments.every(connection, hold=hold)
    wanted = None if only is None else list(only)
    newest = {one.name: one for one in deployments}
    stages: list[Stage] = []
    untold: set[str] = set()
    for rollout in rollouts.in_states(connection, rollouts.OPEN):
        members = rollout_devices.members(connection, rollout.id, wanted)
        untold |= {one.uuid for one in members if one.state != "waiting" and one.desired_version == UNTOLD}
        if rollout.state in rollouts.UNDER_WAY and rollout.edge_deployment in newest:
            has = {one.uuid: rollout.revision if was_released(rollout, one.group) else one.held_revision for one in members}
            stages.append(_stage(connection, rollout, newest[rollout.edge_deployment], has, wanted))
    return Staging(deployments, stages, frozenset(untold))


def without(staging: Staging, deployments: Iterable[EdgeDeployment], name: str) -> Staging:
    """As if ``deployments`` were there, and ``name`` with its newest revision on every device."""
    return Staging(list(deployments), [stage for stage in staging.stages if stage.newest.name != name])


def _stage(
    connection: Connection,
    rollout: Rollout,
    newest: EdgeDeployment,
    has: Mapping[str, int | None],
    only: Sequence[str] | None,
) -> Stage:
    all_told = bool(rollout.groups) and was_released(rollout, len(rollout.groups) - 1)
    others = rollout.revision if all_told else rollout.previous_revision
    before = edge_revisions.kept(connection, rollout.edge_deployment)
    if not rollout.groups:
        # Nobody knows yet to which group a device belongs.
        has, others = held_before(connection, rollout, only)
    return Stage(newest, before, has, others)


def held_before(
    connection: Connection, rollout: Rollout, only: Iterable[str] | None = None
) -> tuple[Mapping[str, int | None], int | None]:
    """The revision that each device had when ``rollout`` began, and that of devices which are not named."""
    replaced = rollouts.replaced_by(connection, rollout)
    if replaced is None:
        return {}, rollout.previous_revision
    has = {
        one.uuid: replaced.revision if was_released(replaced, one.group) else one.held_revision
        for one in rollout_devices.members(connection, replaced.id, only)
    }
    all_told = was_released(replaced, len(replaced.groups) - 1)
    return has, replaced.revision if all_told else replaced.previous_revision
