"""Desired states that wait for a signature by a key that is kept elsewhere (``registry/hub/unsigned.py``)."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from registry.store.tables import devices, twins


@dataclass(frozen=True)
class Unsigned:
    """``payload`` are the bytes to be signed, ``previous`` the envelope that the device has."""

    device_uuid: str
    device: str
    version: int
    payload: bytes
    previous: bytes | None


def page(connection: Connection, limit: int, after: str | None) -> tuple[list[Unsigned], str | None]:
    """By name of the device, and the ``after`` of the following page (None at the end)."""
    query = (
        select(devices.c.uuid, devices.c.name, twins.c.unsigned_version, twins.c.unsigned, twins.c.desired)
        .join(twins, twins.c.device_uuid == devices.c.uuid)
        .where(twins.c.unsigned_version > 0, devices.c.revoked_at.is_(None))
        .order_by(devices.c.name)
        .limit(limit + 1)
    )
    if after is not None:
        query = query.where(devices.c.name > after)
    found = [Unsigned(row.uuid, row.name, row.unsigned_version, row.unsigned, row.desired) for row in connection.execute(query)]
    return found[:limit], found[limit - 1].device if len(found) > limit else None


def count(connection: Connection) -> int:
    """Devices whose desired state waits."""
    query = select(func.count()).select_from(twins.join(devices, devices.c.uuid == twins.c.device_uuid))
    return connection.execute(query.where(twins.c.unsigned_version > 0, devices.c.revoked_at.is_(None))).scalar_one()


def put_signed(connection: Connection, device_uuid: str, payload: bytes, envelope: bytes) -> bool:
    """The signature of what waits has come; False when something else, or nothing, waits by now. The hub publishes it."""
    changed = connection.execute(
        update(twins)
        .where(twins.c.device_uuid == device_uuid, twins.c.unsigned_version > 0, twins.c.unsigned == payload)
        .values(unsigned=envelope, unsigned_version=0)
    )
    return changed.rowcount == 1
