"""Certificates of devices: which were issued, until when, and which were revoked. The certificates themselves are not kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, or_, select, update

from hedgerow.contracts.enrollment import DeviceCertificate
from registry.device_errors import NoCertificateOfDevice
from registry.errors import InvalidPage
from registry.store.tables import device_certificates as table
from registry.store.tables import devices
from registry.store.time_text import from_text, maybe_from_text, to_text

# After its end a row tells people when a device was certified last, and nothing else.
KEPT_AFTER_END = timedelta(days=90)


def record(connection: Connection, device_uuid: str, serial: str, issued_at: datetime, expires_at: datetime) -> None:
    """A new certificate, before anybody sees it; rows that ended long ago go."""
    connection.execute(delete(table).where(table.c.expires_at < to_text(issued_at - KEPT_AFTER_END)))
    connection.execute(
        table.insert().values(
            serial=serial, device_uuid=device_uuid, issued_at=to_text(issued_at), expires_at=to_text(expires_at)
        )
    )


def issued_since(connection: Connection, device_uuid: str, since: datetime) -> int:
    """How many certificates the device was given since then."""
    query = select(func.count()).where(table.c.device_uuid == device_uuid, table.c.issued_at > to_text(since))
    return connection.execute(query).scalar_one()


def of_device(
    connection: Connection, device_uuid: str, name: str, limit: int, after: str | None = None
) -> list[DeviceCertificate]:
    """Newest first; ``after`` is the serial of the last one seen. Raises InvalidPage."""
    query = select(table).where(table.c.device_uuid == device_uuid)
    if after is not None:
        at = connection.execute(
            select(table.c.issued_at).where(table.c.serial == after, table.c.device_uuid == device_uuid)
        ).scalar()
        if at is None:
            raise InvalidPage(value=after[:80])
        query = query.where(or_(table.c.issued_at < at, (table.c.issued_at == at) & (table.c.serial < after)))
    found = connection.execute(query.order_by(table.c.issued_at.desc(), table.c.serial.desc()).limit(limit))
    return [_certificate(row, name) for row in found]


def get(connection: Connection, device_uuid: str, name: str, serial: str) -> DeviceCertificate:
    """Raises NoCertificateOfDevice."""
    query = select(table).where(table.c.serial == serial, table.c.device_uuid == device_uuid)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NoCertificateOfDevice(device=name, serial=serial[:128])
    return _certificate(row, name)


def revoke(connection: Connection, device_uuid: str, now: datetime, serial: str | None = None) -> int:
    """One certificate of the device, or (None) all that are still good; returns how many there were."""
    wanted = (table.c.device_uuid == device_uuid, table.c.revoked_at.is_(None), table.c.expires_at > to_text(now))
    only = () if serial is None else (table.c.serial == serial,)
    return connection.execute(update(table).where(*wanted, *only).values(revoked_at=to_text(now))).rowcount


def revoked(connection: Connection, now: datetime) -> list[tuple[str, datetime]]:
    """Serial and time of every revoked certificate that has not ended by itself, in order."""
    query = select(table.c.serial, table.c.revoked_at).where(table.c.revoked_at.is_not(None), table.c.expires_at > to_text(now))
    return [(row.serial, from_text(row.revoked_at)) for row in connection.execute(query.order_by(table.c.serial))]


def revoked_alone(connection: Connection, now: datetime) -> set[str]:
    """Serials of revoked certificates that have not ended, of devices that are still good."""
    query = (
        select(table.c.serial)
        .join(devices, devices.c.uuid == table.c.device_uuid)
        .where(devices.c.revoked_at.is_(None), table.c.revoked_at.is_not(None), table.c.expires_at > to_text(now))
    )
    return set(connection.execute(query).scalars())


def barred(connection: Connection) -> set[str]:
    """UUIDs of devices that were revoked or deleted and had certificates: a connection made with one may still be there."""
    query = (
        select(table.c.device_uuid)
        .distinct()
        .outerjoin(devices, devices.c.uuid == table.c.device_uuid)
        .where(or_(devices.c.uuid.is_(None), devices.c.revoked_at.is_not(None)))
    )
    return set(connection.execute(query).scalars())


def _certificate(row: Row[Any], name: str) -> DeviceCertificate:
    return DeviceCertificate(
        serial=row.serial,
        device=name,
        issued_at=from_text(row.issued_at),
        expires_at=from_text(row.expires_at),
        revoked_at=maybe_from_text(row.revoked_at),
    )
