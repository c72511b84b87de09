"""Devices and what happened to them: enrolment, revocation, the list with each device's newest state, fleet events."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec
from sqlalchemy import Connection, Row, Select, case, delete, func, select, update

from hedgerow.contracts.api_fleet import Device, EnrollDevice, FleetEvent
from hedgerow.contracts.document import decode
from hedgerow.contracts.names import check_known_name
from hedgerow.contracts.status import StatusReport
from registry.errors import NameTaken, RecordNotFound
from registry.store.matching import name_matches, tag_matches
from registry.store.tables import device_sessions, devices, enrollment_keys, enrollments, fleet_events, twins
from registry.store.time_text import from_text, maybe_from_text, to_text
from registry.store.upsert import insert

FIRST_KEY_GENERATION = 1
Presence = Literal["online", "offline", "revoked"]


@dataclass(frozen=True)
class NewEvent:
    """Something about a device that a person should be able to look up later."""

    device_uuid: str
    kind: str
    reason: str
    device: str = ""


def enroll(connection: Connection, request: EnrollDevice, now: datetime) -> Device:
    """Make a device known under a fresh uuid. Raises NameTaken."""
    device_uuid = str(uuid.uuid4())
    added = connection.execute(
        insert(connection, devices)
        .values(
            uuid=device_uuid,
            name=request.name,
            tags=msgspec.json.encode(request.tags, order="sorted").decode(),
            key_generation=FIRST_KEY_GENERATION,
            enrolled_at=to_text(now),
        )
        .on_conflict_do_nothing(index_elements=[devices.c.name])
        .returning(devices.c.uuid)
    )
    if added.one_or_none() is None:
        raise NameTaken(kind="device", name=request.name)
    connection.execute(twins.insert().values(device_uuid=device_uuid))
    record_events(connection, [NewEvent(device_uuid, "enrolled", f"enrolled as {request.name}")], now)
    return get(connection, request.name, now)


def get(connection: Connection, name: str, now: datetime, *, lock: bool = False) -> Device:
    """``lock`` for whoever decides by what it reads. Raises RecordNotFound."""
    query = _devices().where(devices.c.name == name)
    row = connection.execute(query.with_for_update(of=devices) if lock else query).one_or_none()
    if row is None:
        raise RecordNotFound(kind="device", name=name, command="device")
    return _device(row, now)


@dataclass(frozen=True)
class Wanted:
    """Which devices to list; ``tags`` are KEY=VALUE or KEY, and all of them must be there."""

    name: str | None = None
    state: Presence | None = None
    tags: Sequence[str] = ()
    edge_deployment: str | None = None


def page(
    connection: Connection, limit: int, after: str | None, now: datetime, wanted: Wanted | None = None
) -> tuple[list[Device], str | None]:
    """Devices by name, and the ``after`` of the following page (None at the end). Raises InvalidName, InvalidFilter."""
    query = _filtered(_devices(), wanted or Wanted(), now).order_by(devices.c.name).limit(limit + 1)
    if after is not None:
        query = query.where(devices.c.name > after)
    found = [_device(row, now) for row in connection.execute(query)]
    return found[:limit], found[limit - 1].name if len(found) > limit else None


def presence_counts(connection: Connection, now: datetime) -> dict[Presence, int]:
    """How many devices are in each state."""
    present = func.coalesce(device_sessions.c.expires_at, "") > to_text(now)
    state = case((devices.c.revoked_at.is_not(None), "revoked"), (present, "online"), else_="offline")
    query = select(state.label("state"), func.count().label("number")).select_from(
        devices.outerjoin(device_sessions, device_sessions.c.device_uuid == devices.c.uuid)
    )
    counted = {row.state: row.number for row in connection.execute(query.group_by(state))}
    return {name: counted.get(name, 0) for name in get_args(Presence)}


def revoke(connection: Connection, name: str, now: datetime) -> Device:
    """From now on the hub ignores this device and its session is over; again changes nothing. Raises RecordNotFound."""
    device = get(connection, name, now)
    if device.revoked_at is not None:
        return device
    connection.execute(update(devices).where(devices.c.uuid == device.uuid).values(revoked_at=to_text(now)))
    connection.execute(delete(device_sessions).where(device_sessions.c.device_uuid == device.uuid))
    record_events(connection, [NewEvent(device.uuid, "revoked", "revoked by an operator")], now)
    return get(connection, name, now)


def forget(connection: Connection, name: str, now: datetime) -> Device:
    """Delete a device with its twin and session, and return what it was; its telemetry and events stay under its uuid.

    Raises RecordNotFound.
    """
    device = get(connection, name, now)
    connection.execute(delete(devices).where(devices.c.uuid == device.uuid))
    record_events(connection, [NewEvent(device.uuid, "deleted", f"{name} was deleted by an operator")], now)
    return device


def change_tags(connection: Connection, device: Device, tags: Mapping[str, str | None], now: datetime) -> Device:
    """Set these tags; None takes one away. Wake the hub after the commit: conditions may match otherwise now."""
    merged = {key: value for key, value in {**device.tags, **tags}.items() if value is not None}
    text = msgspec.json.encode(merged, order="sorted").decode()
    connection.execute(update(devices).where(devices.c.uuid == device.uuid).values(tags=text))
    if merged != device.tags:
        record_events(connection, [NewEvent(device.uuid, "tagged", _tag_words(merged))], now)
    return get(connection, device.name, now)


def names_by_uuid(connection: Connection) -> dict[str, str]:
    """The name of every device, for rows of the series database, which only know uuids."""
    return {row.uuid: row.name for row in connection.execute(select(devices.c.uuid, devices.c.name))}


def key_generations(connection: Connection) -> list[tuple[str, int]]:
    """UUID and generation of the key of every device that was not revoked."""
    query = select(devices.c.uuid, devices.c.key_generation).where(devices.c.revoked_at.is_(None))
    return [(row.uuid, row.key_generation) for row in connection.execute(query)]


def storable(text: str) -> str:
    """What a stranger wrote, for a column of text: PostgreSQL's holds no NUL, and would refuse all that is written with it."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}")


def record_events(connection: Connection, events: Iterable[NewEvent], now: datetime) -> None:
    """Add fleet events. Whoever records what strangers can cause limits the rate (``registry.hub.seldom``)."""
    rows = [
        {"at": to_text(now), "device_uuid": event.device_uuid, "kind": event.kind, "reason": storable(event.reason[:1000])}
        for event in events
    ]
    if rows:
        connection.execute(fleet_events.insert(), rows)


def events_before(
    connection: Connection, limit: int, before: int | None = None, device_uuid: str | None = None
) -> list[FleetEvent]:
    """Newest first; ``before`` is the number of the last one seen."""
    query = (
        select(fleet_events, devices.c.name)
        .outerjoin(devices, devices.c.uuid == fleet_events.c.device_uuid)
        .order_by(fleet_events.c.number.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(fleet_events.c.number < before)
    if device_uuid is not None:
        query = query.where(fleet_events.c.device_uuid == device_uuid)
    return [
        FleetEvent(
            number=row.number,
            at=from_text(row.at),
            device=row.name or row.device_uuid,
            kind=row.kind,
            reason=row.reason,
        )
        for row in connection.execute(query)
    ]


def _tag_words(tags: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(tags.items())) or "no tags"


def _filtered(query: Select[Any], wanted: Wanted, now: datetime) -> Select[Any]:
    if wanted.name is not None:
        query = query.where(name_matches(devices.c.name, wanted.name, "device"))
    if wanted.edge_deployment is not None:
        query = query.where(twins.c.edge_deployment == check_known_name(wanted.edge_deployment, "edge deployment"))
    # As in _device: online as long as it may keep its session without a word.
    present = func.coalesce(device_sessions.c.expires_at, "") > to_text(now)
    if wanted.state == "revoked":
        query = query.where(devices.c.revoked_at.is_not(None))
    elif wanted.state is not None:
        query = query.where(devices.c.revoked_at.is_(None), present if wanted.state == "online" else ~present)
    return query.where(*(tag_matches(devices.c.tags, tag) for tag in wanted.tags))


def _devices() -> Select[Any]:
    return (
        select(
            devices,
            twins.c.desired_version,
            twins.c.unsigned_version,
            twins.c.edge_deployment,
            twins.c.reported,
            twins.c.seen_at,
            device_sessions.c.expires_at,
            enrollment_keys.c.id.label("key_id"),
            enrollment_keys.c.name.label("key_name"),
        )
        .outerjoin(twins, twins.c.device_uuid == devices.c.uuid)
        .outerjoin(device_sessions, device_sessions.c.device_uuid == devices.c.uuid)
        # One row at most: an enrolment makes a device, and later ones of its installation change nothing of that.
        .outerjoin(enrollments, enrollments.c.device_uuid == devices.c.uuid)
        .outerjoin(enrollment_keys, enrollment_keys.c.id == enrollments.c.key_id)
    )


def _device(row: Row[Any], now: datetime) -> Device:
    return Device(
        uuid=row.uuid,
        name=row.name,
        tags=msgspec.json.decode(row.tags, type=dict[str, str]),
        desired_version=row.desired_version or 0,
        edge_deployment=row.edge_deployment,
        reported=decode(row.reported, StatusReport) if row.reported else None,
        seen_at=maybe_from_text(row.seen_at),
        # A device is online as long as it may keep its session without a word.
        online=row.revoked_at is None and row.expires_at is not None and row.expires_at > to_text(now),
        enrolled_at=from_text(row.enrolled_at),
        revoked_at=maybe_from_text(row.revoked_at),
        key_generation=row.key_generation,
        wanted_key_generation=row.wanted_key_generation,
        unsigned_version=row.unsigned_version or 0,
        enrolled_with=f"{row.key_name} ({row.key_id})" if row.key_id else "",
    )
