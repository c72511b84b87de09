"""Which devices a rollout is for, read from the fleet: when it begins, and beforehand for ``edge plan``.

Those that the new revision matches, and those that it leaves: a device that only the revision before matched loses what it
has, so it is asked in its turn as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.rollout import Rollout, RolloutPolicy
from registry.hub.reported import facts_of, read_report
from registry.hub.rollouts.sharing import Matched, Shares, asks_for_reports, share_out
from registry.hub.rollouts.staging import held_before, load
from registry.hub.target import Condition, matches, parse_target, uses_reported
from registry.store import edge_deployments, edge_revisions, rollout_devices, rollouts
from registry.store.rollout_devices import Member


@dataclass(frozen=True)
class Held:
    """What devices have before: ``has`` by uuid, ``others`` the rest, ``targets`` by revision; most of them have ``base``."""

    has: Mapping[str, int | None]
    others: int | None
    base: int | None
    targets: Mapping[int, Condition]

    def revision_of(self, uuid: str) -> int | None:
        return self.has.get(uuid, self.others)

    def target_of(self, uuid: str) -> Condition | None:
        revision = self.revision_of(uuid)
        return None if revision is None else self.targets.get(revision)


def shared(connection: Connection, rollout: Rollout) -> tuple[Shares, list[Member]]:
    """The devices of a rollout that begins, in their groups."""
    newest = edge_deployments.get(connection, rollout.edge_deployment)
    has, others = held_before(connection, rollout)
    targets = _targets(edge_revisions.kept(connection, rollout.edge_deployment))
    held = Held(has, others, rollout.previous_revision, targets)
    found = _meant(connection, rollout.policy, parse_target(newest.target), held)
    shares = share_out(rollout.id, rollout.policy, found)
    return shares, [Member(uuid, number, held.revision_of(uuid)) for uuid, number in sorted(shares.group_of.items())]


def foretold(connection: Connection, wanted: EdgeDeployment) -> Shares | None:
    """The groups that storing ``wanted`` now would make; None when nothing would be rolled out in groups."""
    if wanted.rollout is None:
        return None
    before = edge_deployments.find(connection, wanted.name, lock=False)
    newest = rollouts.newest(connection, wanted.name)
    if not rollouts.begins(before, wanted, newest):
        return None
    stage = next((one for one in load(connection).stages if one.newest.name == wanted.name), None)
    targets = _targets({**(stage.before if stage else {}), **({before.revision: before} if before else {})})
    if stage is not None and newest is not None:
        held = Held(stage.has, stage.others, newest.previous_revision, targets)
    else:
        revision = before.revision if before else None
        held = Held({}, revision, revision, targets)
    of = rollouts.rollout_id(wanted.name, before.revision + 1 if before else 1)
    return share_out(of, wanted.rollout, _meant(connection, wanted.rollout, parse_target(wanted.target), held))


def _meant(connection: Connection, policy: RolloutPolicy, target: Condition, held: Held) -> Iterator[Matched]:
    asks = asks_for_reports(policy) or any(uses_reported(one) for one in (target, *held.targets.values()))
    for device in rollout_devices.enrolled(connection, with_reports=asks):
        reported = facts_of(read_report(device.reported))
        conditions = (target, held.target_of(device.uuid))
        if any(one is not None and matches(one, device.name, device.tags, reported) for one in conditions):
            early = held.revision_of(device.uuid) != held.base
            yield Matched(device.uuid, device.name, device.tags, reported, early)


def _targets(deployments: Mapping[int, EdgeDeployment]) -> dict[int, Condition]:
    return {revision: parse_target(one.target) for revision, one in deployments.items()}
