"""Rollouts as the hub goes on with them: look, judge, and write down in one transaction what follows.

    a deployment changed ──▶ share out ──▶ release a group ──▶ (desired states: desired.py) ──▶ told
                                                ▲                                                 │ reports
                                                └── advance (plan.py) ◀── outcomes by device ◀────┘

Everything is in the database, so a hub that takes over goes on. What a device says is written down by the hub that hears it;
what follows from that is decided by the one that holds the lease. A report costs one look at the rows of its device, and only
while a rollout is open; groups are counted once a second at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice

import msgspec
from sqlalchemy import Connection

from hedgerow.contracts.events import Actor
from hedgerow.contracts.rollout import Rollout
from registry.blobs.errors import BlobMissing
from registry.errors import RecordNotFound
from registry.hub.desired import LEASE, LEASE_TTL_S
from registry.hub.rollouts import plan
from registry.hub.rollouts.membership import shared
from registry.hub.rollouts.outcomes import TROUBLE_LASTS, has_answered, health_of, read_seen
from registry.hub.rollouts.plan import Happening
from registry.store import edge_deployments, edge_revisions, events, leases, rollout_devices, rollouts
from registry.store.database import Database
from registry.store.rollout_devices import Outcome, Told

LOOK_EVERY_S = 30.0
# All that a second's reports mean to a rollout is worked out at once.
_GATHER_S = 1.0
# A look at every report, for those that another hub, or nobody, made use of.
_LOOK_AT_ALL_EVERY_S = 300.0
_MOST_HEARD = 20_000
_PART = 500
_PARTS_IN_A_ROW = 5
_WRITTEN_AT_ONCE = 2_000


class Rollouts:
    """See the module's docstring. One thread at a time."""

    def __init__(self, database: Database, holder: str) -> None:
        self._database, self._holder = database, holder
        self._heard: set[str] = set()
        self._open = True
        self._due_s = 0.0
        self._all_due_s = 0.0
        self._to_look: list[tuple[str, int, str]] = []

    def heard(self, uuids: Iterable[str], now_s: float) -> None:
        """These devices reported, or were told something, since :meth:`tend` looked last."""
        if not self._open:
            return
        self._heard |= set(uuids)
        if len(self._heard) > _MOST_HEARD:
            self._heard.clear()
            self._to_look.clear()
            self._all_due_s = now_s
        if self._heard or self._all_due_s <= now_s:
            self._due_s = min(self._due_s, now_s + _GATHER_S)

    def hurry(self) -> None:
        """Somebody changed something."""
        self._due_s = 0.0

    def postpone(self, now_s: float) -> None:
        """What was under way failed; nothing of it is remembered."""
        self._due_s, self._all_due_s = now_s + 2.0, 0.0
        self._to_look.clear()

    def wake_in_s(self, now_s: float) -> float:
        """When :meth:`tend` wants to be called."""
        return max(0.0, self._due_s - now_s)

    def tend(self, now: datetime, now_s: float) -> bool:
        """Go on with every rollout; whether desired states have to be settled for it.

        Raises DatabaseUnavailable, LeaseLost.
        """
        self._due_s = now_s + LOOK_EVERY_S
        with self._database.read() as connection:
            found = rollouts.in_states(connection, rollouts.OPEN)
        self._open = bool(found)
        if not found:
            self._heard.clear()
            return False
        changed = False
        for rollout in found:
            if rollout.state == "running" and not rollout.groups:
                changed |= self._share_out(rollout, now)
        self._judge({rollout.id: rollout for rollout in found}, now, now_s)
        for rollout in found:
            changed |= self._finish(rollout, now) if rollout.state == "reversing" else self._advance(rollout, now, now_s)
        return changed

    # --- groups --------------------------------------------------------------------------------------------------------

    def _share_out(self, found: Rollout, now: datetime) -> bool:
        """Devices first, in parts, so that nobody waits long for the database; they mean nothing until the groups are there."""
        with self._database.write() as connection:
            if leases.acquire(connection, LEASE, self._holder, LEASE_TTL_S, now) is None:
                return False
            rollout_devices.forget(connection, found.id)  # of a hub that did not come to the end
        with self._database.read() as connection:
            shares, members = shared(connection, found)
        for start in range(0, len(members), _WRITTEN_AT_ONCE):
            with self._database.write() as connection:
                if leases.acquire(connection, LEASE, self._holder, LEASE_TTL_S, now) is None:
                    return False
                rollout_devices.add(connection, found.id, members[start : start + _WRITTEN_AT_ONCE])
        with self._database.write() as connection:
            rollout = self._locked(connection, found, now)
            if rollout is None or rollout.state != "running" or rollout.groups:
                return False
            held = {member.held_revision for member in members} | {rollout.previous_revision, rollout.revision - 1}
            edge_revisions.forget_others(connection, rollout.edge_deployment, [one for one in held if one is not None])
            rollouts.write(connection, msgspec.structs.replace(rollout, groups=list(shares.groups)))
            sizes = ", ".join(f"{group.name}: {group.devices}" for group in shares.groups)
            tell(connection, rollout, [Happening("started", f"{len(members)} devices in groups ({sizes})"[:1000])], now)
        forgotten = _WRITTEN_AT_ONCE
        while forgotten == _WRITTEN_AT_ONCE:
            with self._database.write() as connection:
                forgotten = rollout_devices.forget_before(connection, rollout, _WRITTEN_AT_ONCE)
        return True

    def _advance(self, found: Rollout, now: datetime, now_s: float) -> bool:
        with self._database.read() as connection:
            seen = rollouts.find(connection, found.id)
            troubled = rollout_devices.longest_troubled(connection, found.id)
        lasts = troubled is not None and troubled <= now - TROUBLE_LASTS
        if seen is None or (not lasts and plan.advance(seen, now)[0] == seen):
            self._look_again(seen, troubled, now, now_s)
            return False
        with self._database.write() as connection:
            rollout = self._locked(connection, found, now)
            if rollout is None or rollout.state not in rollouts.UNDER_WAY:
                return False  # somebody steered it meanwhile
            if lasts and rollout_devices.fail_troubled(connection, found.id, now - TROUBLE_LASTS, now):
                (rollout,) = rollouts.counted(connection, [rollout])
            after, happened = plan.advance(rollout, now)
            self._put(connection, rollout, after, now)
            tell(connection, after, happened, now)
        self._due_s = min(self._due_s, now_s + _GATHER_S)
        return _tells_devices(rollout, after)

    def _put(self, connection: Connection, before: Rollout, after: Rollout, now: datetime) -> None:
        for number, (old, new) in enumerate(zip(before.groups, after.groups, strict=True)):
            if old.state == "waiting" and new.state != "waiting":
                rollout_devices.release(connection, after.id, number, now)
            if old.state != "failed" and new.state == "failed" and plan.is_out_of_time(after, number, now):
                rollout_devices.time_out(connection, after.id, number, now)
        rollouts.write(connection, after)
        if after.state == "reversing":
            try:
                with connection.begin_nested():
                    reverse(connection, after, events.system("hub"), now)
            except (BlobMissing, RecordNotFound) as problem:
                # What it would go back to is not there any more: somebody has to decide.
                reason = f"{after.reason}; it could not be reversed: {problem}"
                rollouts.write(connection, msgspec.structs.replace(after, state="paused", reason=reason, ended_at=None))
        if after.state == "succeeded":
            edge_revisions.let_go(connection, after.edge_deployment, but=after.previous_revision)

    def _finish(self, found: Rollout, now: datetime) -> bool:
        """A rollout that is reversed, once its devices have answered or had the time to."""
        with self._database.read() as connection:
            left = rollout_devices.not_back(connection, found.id)
            rollout = rollouts.find(connection, found.id)
        if rollout is None or (left and now < (rollout.ended_at or now) + plan.longest_wait(rollout)):
            return False
        with self._database.write() as connection:
            locked = self._locked(connection, found, now)
            if locked is None or locked.state != "reversing":
                return False
            note = f"; {left} devices have not answered" if left else ""
            done = msgspec.structs.replace(locked, state="reversed", reason=locked.reason + note, ended_at=now)
            rollouts.write(connection, done)
            edge_revisions.let_go(connection, done.edge_deployment, but=done.previous_revision)
            tell(connection, done, [Happening("reversed", done.reason)], now)
        return False

    def _locked(self, connection: Connection, found: Rollout, now: datetime) -> Rollout | None:
        """As it is now. None while another hub is in charge, and when it is gone."""
        if leases.acquire(connection, LEASE, self._holder, LEASE_TTL_S, now) is None:
            return None
        # Whoever changes the deployment locks it first, too.
        if edge_deployments.find(connection, found.edge_deployment) is None:
            return None
        return rollouts.find(connection, found.id, lock=True)

    def _look_again(self, rollout: Rollout | None, troubled: datetime | None, now: datetime, now_s: float) -> None:
        moments = [] if rollout is None else [plan.next_look(rollout), troubled and troubled + TROUBLE_LASTS]
        for moment in moments:
            if moment is not None:
                wait_s = max(_GATHER_S, (moment - now).total_seconds())
                self._due_s = min(self._due_s, now_s + wait_s)

    # --- devices -------------------------------------------------------------------------------------------------------

    def _judge(self, by_id: Mapping[str, Rollout], now: datetime, now_s: float) -> None:
        """Write down how the devices do that reported; all of them, now and then."""
        self._look_at_all(by_id, now, now_s)
        heard = iter(sorted(self._heard))
        while part := list(islice(heard, _PART)):
            with self._database.read() as connection:
                told = rollout_devices.told(connection, part, by_id)
            self._write_outcomes(told, by_id, now)
        self._heard.clear()

    def _look_at_all(self, by_id: Mapping[str, Rollout], now: datetime, now_s: float) -> None:
        """A part of it at a time: of a large fleet, messages would wait too long for the whole."""
        if not self._to_look and now_s >= self._all_due_s:
            self._to_look = [(one.id, number, "") for one in by_id.values() for number in _undecided(one)]
            self._all_due_s = now_s + _LOOK_AT_ALL_EVERY_S
        for _ in range(_PARTS_IN_A_ROW):
            if not self._to_look:
                return
            rollout_id, number, after = self._to_look.pop()
            with self._database.read() as connection:
                told = rollout_devices.told_after(connection, rollout_id, number, after, _PART)
            self._write_outcomes(told, by_id, now)
            if len(told) == _PART:
                self._to_look.append((rollout_id, number, told[-1].uuid))
        self._due_s = min(self._due_s, now_s + _GATHER_S)

    def _write_outcomes(self, told: Iterable[Told], by_id: Mapping[str, Rollout], now: datetime) -> None:
        rolled = ((by_id[each.rollout_id], each) for each in told if each.rollout_id in by_id)
        outcomes = [one for rollout, each in rolled if (one := outcome(rollout, each, now)) is not None]
        if outcomes:
            with self._database.write() as connection:
                rollout_devices.put_outcomes(connection, outcomes)


def outcome(rollout: Rollout, told: Told, now: datetime) -> Outcome | None:
    """How this device does from now on; None when nothing is new. Pure."""
    report = read_seen(told.reported)
    if rollout.state == "reversing":
        if told.since is not None or not has_answered(report, told.desired_version, told.issued):
            return None
        return Outcome(told.rollout_id, told.uuid, told.state, told.state, told.reason, now)
    health = health_of(report, told.desired_version, told.issued)
    match health.what, told.state:
        case "well", "released" | "failed" | "timed-out":
            return Outcome(told.rollout_id, told.uuid, told.state, "succeeded", "", now)
        case "failed", "released" | "succeeded" | "timed-out":
            return Outcome(told.rollout_id, told.uuid, told.state, "failed", health.reason, now)
        case "troubled", "succeeded":
            return Outcome(told.rollout_id, told.uuid, told.state, "released", health.reason, now)
        case "troubled", "released" if told.since is None:
            return Outcome(told.rollout_id, told.uuid, told.state, "released", health.reason, now)
        case _:
            return None


def reverse(connection: Connection, rollout: Rollout, by: Actor, now: datetime) -> None:
    """What the deployment said before ``rollout`` is its next revision; devices that were released are to be told.

    The caller stored ``rollout``, whose state is ``reversing``. Raises RecordNotFound, BlobMissing.
    """
    stored = edge_deployments.restore(connection, rollout.edge_deployment, rollout.previous_revision, now)
    rollout_devices.take_back(connection, rollout.id)
    details = {"revision": str(stored.revision), "target": stored.target[:500], "reason": rollout.reason[:1000]}
    subject = f"edge-deployment/{rollout.edge_deployment}"
    events.record(connection, kind="edge-deployment.changed", subject=subject, actor=by, now=now, details=details)


def tell(connection: Connection, rollout: Rollout, happened: Iterable[Happening], now: datetime) -> None:
    """Events of what the hub decided, in the transaction of the decision."""
    for what in happened:
        details = {"revision": str(rollout.revision), "reason": what.reason[:1000], **what.details}
        subject = f"edge-rollout/{rollout.edge_deployment}"
        kind = f"edge-rollout.{what.kind}"
        events.record(connection, kind=kind, subject=subject, actor=events.system("hub"), now=now, details=details)


def _undecided(rollout: Rollout) -> list[int]:
    """The groups whose devices' reports still matter."""
    everyone = rollout.state == "reversing"
    return [number for number, group in enumerate(rollout.groups) if everyone or group.state in ("running", "soaking")]


def _tells_devices(before: Rollout, after: Rollout) -> bool:
    released = any(
        old.state == "waiting" and new.state != "waiting" for old, new in zip(before.groups, after.groups, strict=True)
    )
    return released or after.state != before.state
