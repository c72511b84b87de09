"""What the hub keeps of each device between messages: session lease, newest report, desired state.

Written by the hub only. A desired state is written under the hub's lease: after a take-over the old holder's write is
refused (``LeaseLost``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, delete, select, update

from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.status import StatusReport
from registry.store import leases
from registry.store.leases import Lease
from registry.store.tables import desired_images, device_sessions, devices, twins
from registry.store.time_text import from_text, to_text
from registry.store.upsert import insert


@dataclass(frozen=True)
class Session:
    """Who may speak for a device until ``expires_at``: one run (``starts``) of one agent installation (``instance``)."""

    session: str
    instance: str
    starts: int
    expires_at: datetime


@dataclass(frozen=True)
class KnownDevice:
    """A device as the hub sees it when a message of it arrives."""

    uuid: str
    name: str
    key_generation: int
    revoked: bool
    session: Session | None
    wanted_key_generation: int = 0


@dataclass(frozen=True)
class StoredTwin:
    """A device with what its desired state is made from and what that was last time; ``desired`` is a signed envelope.

    ``reported`` is its StatusReport as JSON, if that was asked for; ``key_generation`` the key that it should have, 0 as long as
    that is its first; ``unsigned`` a desired state that waits for a signature, or has got it (``registry/hub/unsigned.py``).
    """

    uuid: str
    name: str
    tags: Mapping[str, str]
    desired_version: int
    edge_deployment: str | None
    edge_revision: int | None
    desired: bytes | None
    reported: str | None = None
    key_generation: int = 0
    unsigned: bytes | None = None


class _ReportMark(msgspec.Struct):
    session: str
    sequence: int


def known_devices(connection: Connection, uuids: Iterable[str], *, lock: bool = False) -> dict[str, KnownDevice]:
    """Those of ``uuids`` that are enrolled. ``lock`` keeps them as they are until the end of a writing transaction."""
    query: Select[Any] = (
        select(
            devices.c.uuid,
            devices.c.name,
            devices.c.key_generation,
            devices.c.wanted_key_generation,
            devices.c.revoked_at,
            device_sessions.c.session,
            device_sessions.c.instance,
            device_sessions.c.starts,
            device_sessions.c.expires_at,
        )
        .outerjoin(device_sessions, device_sessions.c.device_uuid == devices.c.uuid)
        .where(devices.c.uuid.in_(list(uuids)))
    )
    if lock:
        # In order, so that two hubs do not wait for each other.
        query = query.order_by(devices.c.uuid).with_for_update(of=devices)
    return {row.uuid: _known(row) for row in connection.execute(query)}


def put_session(connection: Connection, device_uuid: str, session: Session) -> None:
    """The device's session from now on; an earlier one is over."""
    put_sessions(connection, {device_uuid: session})


def put_sessions(connection: Connection, sessions: Mapping[str, Session]) -> None:
    """:func:`put_session` of several devices."""
    if not sessions:
        return
    statement = insert(connection, device_sessions)
    changed = {name: statement.excluded[name] for name in ("session", "instance", "starts", "expires_at", "told_offline")}
    rows = [
        {
            "device_uuid": device_uuid,
            "session": session.session,
            "instance": session.instance,
            "starts": session.starts,
            "expires_at": to_text(session.expires_at),
            "told_offline": 0,
        }
        for device_uuid, session in sorted(sessions.items())
    ]
    connection.execute(statement.on_conflict_do_update(index_elements=[device_sessions.c.device_uuid], set_=changed), rows)


def renew_sessions(connection: Connection, device_uuids: Iterable[str], expires_at: datetime, now: datetime) -> list[str]:
    """These devices were heard: their leases run until ``expires_at``. Returns those that had been told to be offline."""
    uuids = list(device_uuids)
    mine = device_sessions.c.device_uuid.in_(uuids)
    silent = select(device_sessions.c.device_uuid).where(mine, device_sessions.c.told_offline == 1).with_for_update()
    back = [row.device_uuid for row in connection.execute(silent)]
    connection.execute(update(device_sessions).where(mine).values(expires_at=to_text(expires_at), told_offline=0))
    connection.execute(update(twins).where(twins.c.device_uuid.in_(uuids)).values(seen_at=to_text(now)))
    return back


def fell_silent(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Names of devices whose lease ran out and nobody told of it yet; from now on somebody has."""
    query = (
        select(devices.c.uuid, devices.c.name)
        .join(device_sessions, device_sessions.c.device_uuid == devices.c.uuid)
        .where(device_sessions.c.expires_at <= to_text(now), device_sessions.c.told_offline == 0)
        .order_by(devices.c.name)
        .limit(limit)
    )
    found = connection.execute(query.with_for_update(of=device_sessions)).all()
    uuids = [row.uuid for row in found]
    connection.execute(update(device_sessions).where(device_sessions.c.device_uuid.in_(uuids)).values(told_offline=1))
    return [row.name for row in found]


def anybody_silent(connection: Connection, now: datetime) -> bool:
    """Whether :func:`fell_silent` would find one."""
    query = select(device_sessions.c.device_uuid).where(
        device_sessions.c.expires_at <= to_text(now), device_sessions.c.told_offline == 0
    )
    return connection.execute(query.limit(1)).first() is not None


def put_report(connection: Connection, report: StatusReport, now: datetime) -> bool:
    """Keep a report unless one of the same session with an equal or higher sequence is kept already."""
    stored = connection.execute(select(twins.c.reported).where(twins.c.device_uuid == report.device_uuid)).scalar()
    if stored is not None:
        mark = msgspec.json.decode(stored, type=_ReportMark)
        if mark.session == report.session and mark.sequence >= report.sequence:
            return False
    connection.execute(
        update(twins)
        .where(twins.c.device_uuid == report.device_uuid)
        .values(reported=encode(report).decode(), seen_at=to_text(now))
    )
    return True


def stored_twins(
    connection: Connection, uuids: Iterable[str] | None = None, *, hold: bool = False, with_reports: bool = False
) -> list[StoredTwin]:
    """Every device that was not revoked (or those of ``uuids``), in order of name; ``with_reports`` with what they say.

    ``hold``: nobody deletes one of these devices before this transaction ends.
    """
    query = _twins(with_reports=with_reports).where(devices.c.revoked_at.is_(None)).order_by(devices.c.name)
    if uuids is not None:
        query = query.where(devices.c.uuid.in_(list(uuids)))
    if hold:
        query = query.with_for_update(of=devices, read=True)
    return [
        StoredTwin(
            uuid=row.uuid,
            name=row.name,
            tags=msgspec.json.decode(row.tags, type=dict[str, str]),
            desired_version=row.desired_version,
            edge_deployment=row.edge_deployment,
            edge_revision=row.edge_revision,
            desired=row.desired,
            reported=row.reported if with_reports else None,
            key_generation=_told_generation(row),
            unsigned=row.unsigned,
        )
        for row in connection.execute(query)
    ]


def put_desired(connection: Connection, lease: Lease, state: DesiredState, edge_revision: int | None, envelope: bytes) -> None:
    """What this device should run from now on, with the images it needs. Raises LeaseLost after a take-over."""
    leases.check(connection, lease)
    connection.execute(
        update(twins)
        .where(twins.c.device_uuid == state.device_uuid)
        .values(
            desired_version=state.version,
            edge_deployment=state.edge_deployment,
            edge_revision=edge_revision,
            desired=envelope,
            unsigned=None,
            unsigned_version=0,
        )
    )
    connection.execute(delete(desired_images).where(desired_images.c.device_uuid == state.device_uuid))
    rows = [
        {
            "device_uuid": state.device_uuid,
            "module": name,
            "image_name": image.name,
            "image_version": image.version,
        }
        for module_name, module in state.modules.items()
        for name, image in ((module_name, module.image), (f"{module_name} (shadow)", module.shadow_image))
        if image is not None and image.reference is None
    ]
    if rows:
        connection.execute(desired_images.insert(), rows)


def put_unsigned(connection: Connection, lease: Lease, device_uuid: str, state: DesiredState | None) -> None:
    """What waits for a signature, or (None) that nothing does any more. Raises LeaseLost after a take-over."""
    leases.check(connection, lease)
    payload, version = (None, 0) if state is None else (encode(state), state.version)
    changed = update(twins).where(twins.c.device_uuid == device_uuid)
    connection.execute(changed.values(unsigned=payload, unsigned_version=version))


def put_edge_revision(connection: Connection, lease: Lease, device_uuid: str, name: str | None, revision: int | None) -> None:
    """The deployment changed, but nothing in it that this device would notice. Raises LeaseLost after a take-over."""
    leases.check(connection, lease)
    connection.execute(
        update(twins).where(twins.c.device_uuid == device_uuid).values(edge_deployment=name, edge_revision=revision)
    )


def desired_envelopes(connection: Connection, uuids: Iterable[str] | None = None) -> dict[str, bytes]:
    """The signed desired states of all devices that were not revoked (or of ``uuids``), as they are published."""
    query = (
        select(twins.c.device_uuid, twins.c.desired)
        .join(devices, devices.c.uuid == twins.c.device_uuid)
        .where(twins.c.desired.is_not(None), devices.c.revoked_at.is_(None))
    )
    if uuids is not None:
        query = query.where(twins.c.device_uuid.in_(list(uuids)))
    return {row.device_uuid: row.desired for row in connection.execute(query)}


def _twins(*, with_reports: bool) -> Select[Any]:
    return select(
        *([twins.c.reported] if with_reports else []),
        devices.c.uuid,
        devices.c.name,
        devices.c.tags,
        twins.c.desired_version,
        twins.c.edge_deployment,
        twins.c.edge_revision,
        twins.c.desired,
        twins.c.unsigned,
        devices.c.key_generation,
        devices.c.wanted_key_generation,
    ).join(twins, twins.c.device_uuid == devices.c.uuid)


def _told_generation(row: Row[Any]) -> int:
    generation = max(row.key_generation, row.wanted_key_generation)
    return generation if generation > 1 else 0


def _known(row: Row[Any]) -> KnownDevice:
    held = None
    if row.session is not None:
        held = Session(row.session, row.instance, row.starts, from_text(row.expires_at))
    return KnownDevice(row.uuid, row.name, row.key_generation, row.revoked_at is not None, held, row.wanted_key_generation)
