"""The devices of rollouts: to which group each belongs, since when it was told, how it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, bindparam, delete, func, select, update

from hedgerow.contracts.rollout import DeviceOutcome, Rollout, RolloutDevice
from registry.store import fleet
from registry.store.tables import devices, edge_rollout_devices, edge_rollouts, twins
from registry.store.time_text import maybe_from_text, to_text

UNTOLD, NOTHING_TO_TELL = 0, -1


@dataclass(frozen=True)
class Member:
    """A device of a rollout: which group, and which revision it has while it waits (None: nothing of the deployment)."""

    uuid: str
    group: int
    held_revision: int | None
    state: DeviceOutcome = "waiting"
    desired_version: int = UNTOLD


@dataclass(frozen=True)
class Told:
    """A device that was released, beside what it last said; ``issued`` is the version of its newest desired state."""

    rollout_id: str
    uuid: str
    group: int
    state: DeviceOutcome
    desired_version: int
    since: datetime | None
    reported: str | None
    issued: int
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a device of a rollout does from now on; ``was`` is the state that this replaces."""

    rollout_id: str
    uuid: str
    was: DeviceOutcome
    state: DeviceOutcome
    reason: str = ""
    since: datetime | None = None


@dataclass(frozen=True)
class EnrolledDevice:
    """A device by which groups are made."""

    uuid: str
    name: str
    tags: Mapping[str, str]
    reported: str | None


def add(connection: Connection, rollout_id: str, members: Sequence[Member]) -> None:
    """Each waits; those that were deleted meanwhile are left out."""
    uuids = [member.uuid for member in members]
    there = select(devices.c.uuid).where(devices.c.uuid.in_(uuids)).with_for_update(read=True)
    present = {row.uuid for row in connection.execute(there)}
    rows = [
        {
            "rollout_id": rollout_id,
            "device_uuid": member.uuid,
            "group_number": member.group,
            "held_revision": member.held_revision,
            "state": member.state,
        }
        for member in members
        if member.uuid in present
    ]
    if rows:
        connection.execute(edge_rollout_devices.insert(), rows)


def forget(connection: Connection, rollout_id: str) -> None:
    """All rows of a rollout."""
    connection.execute(delete(edge_rollout_devices).where(edge_rollout_devices.c.rollout_id == rollout_id))


def forget_before(connection: Connection, rollout: Rollout, most: int) -> int:
    """Rows of earlier rollouts of the same deployment go: how their devices did is not asked any more. Returns how many."""
    earlier = select(edge_rollouts.c.id).where(
        edge_rollouts.c.edge_deployment == rollout.edge_deployment, edge_rollouts.c.revision < rollout.revision
    )
    found = connection.execute(
        select(edge_rollout_devices.c.rollout_id, edge_rollout_devices.c.device_uuid)
        .where(edge_rollout_devices.c.rollout_id.in_(earlier))
        .limit(most)
    ).all()
    for of in {row.rollout_id for row in found}:
        connection.execute(
            delete(edge_rollout_devices).where(
                edge_rollout_devices.c.rollout_id == of,
                edge_rollout_devices.c.device_uuid.in_([row.device_uuid for row in found if row.rollout_id == of]),
            )
        )
    return len(found)


def members(connection: Connection, rollout_id: str, uuids: Iterable[str] | None = None) -> list[Member]:
    """Every device of a rollout, or those of ``uuids`` that belong to it."""
    query = _of(rollout_id, uuids)
    return [
        Member(row.device_uuid, row.group_number, row.held_revision, row.state, row.desired_version)
        for row in connection.execute(query)
    ]


def release(connection: Connection, rollout_id: str, group: int, now: datetime) -> None:
    """The devices of a group are to be told."""
    connection.execute(
        update(edge_rollout_devices)
        .where(
            edge_rollout_devices.c.rollout_id == rollout_id,
            edge_rollout_devices.c.group_number == group,
            edge_rollout_devices.c.state == "waiting",
        )
        .values(state="released", released_at=to_text(now))
    )


def time_out(connection: Connection, rollout_id: str, group: int, now: datetime) -> None:
    """Those of a group that did not become well are out of time."""
    connection.execute(
        update(edge_rollout_devices)
        .where(
            edge_rollout_devices.c.rollout_id == rollout_id,
            edge_rollout_devices.c.group_number == group,
            edge_rollout_devices.c.state == "released",
        )
        .values(
            state="timed-out",
            reason=func.coalesce(func.nullif(edge_rollout_devices.c.reason, ""), "it did not say in time that it runs it well"),
            ended_at=to_text(now),
        )
    )


def take_back(connection: Connection, rollout_id: str) -> None:
    """Every device that was released is to be told that it gets the revision before."""
    connection.execute(
        update(edge_rollout_devices)
        .where(edge_rollout_devices.c.rollout_id == rollout_id, edge_rollout_devices.c.state != "waiting")
        .values(desired_version=UNTOLD, ended_at=None)
    )


def not_back(connection: Connection, rollout_id: str) -> int:
    """How many devices of a rollout that is reversed have not answered yet."""
    query = (
        select(func.count())
        .select_from(edge_rollout_devices)
        .join(devices, devices.c.uuid == edge_rollout_devices.c.device_uuid)
        .where(
            edge_rollout_devices.c.rollout_id == rollout_id,
            edge_rollout_devices.c.state != "waiting",
            edge_rollout_devices.c.ended_at.is_(None),
            devices.c.revoked_at.is_(None),
        )
    )
    return int(connection.execute(query).scalar_one())


def told(connection: Connection, uuids: Iterable[str], rollout_ids: Iterable[str]) -> list[Told]:
    """Of these devices, what is to be judged of these rollouts."""
    query = _told().where(
        edge_rollout_devices.c.device_uuid.in_(list(uuids)), edge_rollout_devices.c.rollout_id.in_(list(rollout_ids))
    )
    return [_as_told(row) for row in connection.execute(query)]


def told_after(connection: Connection, rollout_id: str, group: int, after: str, limit: int) -> list[Told]:
    """:func:`told` of a group, in order of uuid from the one behind ``after`` on."""
    query = _told().where(
        edge_rollout_devices.c.rollout_id == rollout_id,
        edge_rollout_devices.c.group_number == group,
        edge_rollout_devices.c.device_uuid > after,
    )
    return [_as_told(row) for row in connection.execute(query.order_by(edge_rollout_devices.c.device_uuid).limit(limit))]


def put_outcomes(connection: Connection, outcomes: Sequence[Outcome]) -> None:
    """Unless the device's state became another one meanwhile."""
    if not outcomes:
        return
    statement = (
        update(edge_rollout_devices)
        .where(
            edge_rollout_devices.c.rollout_id == bindparam("of"),
            edge_rollout_devices.c.device_uuid == bindparam("device"),
            edge_rollout_devices.c.state == bindparam("was"),
        )
        .values(state=bindparam("now"), reason=bindparam("why"), ended_at=bindparam("since"))
    )
    rows = [
        {
            "of": one.rollout_id,
            "device": one.uuid,
            "was": one.was,
            "now": one.state,
            "why": fleet.storable(one.reason),
            "since": None if one.since is None else to_text(one.since),
        }
        for one in sorted(outcomes, key=lambda outcome: (outcome.rollout_id, outcome.uuid))
    ]
    connection.execute(statement, rows)


def fail_troubled(connection: Connection, rollout_id: str, since: datetime, now: datetime) -> int:
    """Devices in trouble ``since`` then, or longer, have failed. Returns how many."""
    done = connection.execute(
        update(edge_rollout_devices)
        .where(
            edge_rollout_devices.c.rollout_id == rollout_id,
            edge_rollout_devices.c.state == "released",
            edge_rollout_devices.c.ended_at <= to_text(since),
        )
        .values(state="failed", ended_at=to_text(now))
    )
    return int(done.rowcount)


def longest_troubled(connection: Connection, rollout_id: str) -> datetime | None:
    """Since when the device is in trouble that has been so longest."""
    query = select(func.min(edge_rollout_devices.c.ended_at)).where(
        edge_rollout_devices.c.rollout_id == rollout_id, edge_rollout_devices.c.state == "released"
    )
    return maybe_from_text(connection.execute(query).scalar())


def put_versions(connection: Connection, rollout_id: str, versions: Mapping[str, int]) -> None:
    """By which desired states these devices were told."""
    statement = (
        update(edge_rollout_devices)
        .where(edge_rollout_devices.c.rollout_id == rollout_id, edge_rollout_devices.c.device_uuid == bindparam("device"))
        .values(desired_version=bindparam("version"))
    )
    rows = [{"device": uuid, "version": version} for uuid, version in sorted(versions.items())]
    if rows:
        connection.execute(statement, rows)


def page(
    connection: Connection, rollout_id: str, limit: int, after: str | None, state: DeviceOutcome | None = None
) -> tuple[list[RolloutDevice], str | None]:
    """By name, with the ``after`` of the following page (None at the end)."""
    query = (
        select(edge_rollout_devices, devices.c.name)
        .join(devices, devices.c.uuid == edge_rollout_devices.c.device_uuid)
        .where(edge_rollout_devices.c.rollout_id == rollout_id)
        .order_by(devices.c.name)
        .limit(limit + 1)
    )
    if state is not None:
        query = query.where(edge_rollout_devices.c.state == state)
    if after is not None:
        query = query.where(devices.c.name > after)
    found = [
        RolloutDevice(
            device=row.name,
            group=row.group_number,
            state=row.state,
            reason=row.reason,
            released_at=maybe_from_text(row.released_at),
            ended_at=maybe_from_text(row.ended_at),
        )
        for row in connection.execute(query)
    ]
    return found[:limit], found[limit - 1].device if len(found) > limit else None


def enrolled(connection: Connection, *, with_reports: bool) -> Iterator[EnrolledDevice]:
    """Every device that was not revoked, without its desired state: of a large fleet that is most of it."""
    reported = [twins.c.reported] if with_reports else []
    query = (
        select(devices.c.uuid, devices.c.name, devices.c.tags, *reported)
        .join(twins, twins.c.device_uuid == devices.c.uuid)
        .where(devices.c.revoked_at.is_(None))
    )
    for row in connection.execute(query):
        tags = msgspec.json.decode(row.tags, type=dict[str, str])
        yield EnrolledDevice(row.uuid, row.name, tags, row.reported if with_reports else None)


def _of(rollout_id: str, uuids: Iterable[str] | None) -> Select[Any]:
    query = select(edge_rollout_devices).where(edge_rollout_devices.c.rollout_id == rollout_id)
    return query if uuids is None else query.where(edge_rollout_devices.c.device_uuid.in_(list(uuids)))


def _told() -> Select[Any]:
    return (
        select(
            edge_rollout_devices.c.rollout_id,
            edge_rollout_devices.c.device_uuid,
            edge_rollout_devices.c.group_number,
            edge_rollout_devices.c.state,
            edge_rollout_devices.c.desired_version,
            edge_rollout_devices.c.ended_at,
            edge_rollout_devices.c.reason,
            twins.c.reported,
            twins.c.desired_version.label("issued"),
        )
        .join(twins, twins.c.device_uuid == edge_rollout_devices.c.device_uuid)
        .where(edge_rollout_devices.c.state != "waiting", edge_rollout_devices.c.desired_version > UNTOLD)
    )


def _as_told(row: Row[Any]) -> Told:
    return Told(
        row.rollout_id,
        row.device_uuid,
        row.group_number,
        row.state,
        row.desired_version,
        maybe_from_text(row.ended_at),
        row.reported,
        row.issued,
        row.reason,
    )
