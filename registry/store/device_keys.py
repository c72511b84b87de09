"""Generations of devices' keys: which one holds, which one is wanted.

key_generation  wanted_key_generation
      g              0 … g              nothing to do
      g               g + 1             the device should fetch g + 1; both are taken from it
    g + 1             g + 1             it was heard under g + 1: from now on only that
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

import msgspec
from sqlalchemy import Connection, select, update

from hedgerow.contracts.document import decode
from registry.store import fleet, tokens
from registry.store.fleet import NewEvent
from registry.store.tables import devices, twins
from registry.store.tables import tokens as token_rows
from registry.store.time_text import to_text

# A database that was restored may know less than the device: its keys of a while ago are keys of this workspace all the same.
AHEAD = 8


class _Believed(msgspec.Struct):
    """What counts of a StatusReport here."""

    trusted_keys: list[str] = []


@dataclass(frozen=True)
class DeviceKeys:
    """``wanted`` is ``generation`` when the device has what it should have."""

    uuid: str
    name: str
    generation: int
    wanted: int
    revoked: bool


def get(connection: Connection, name: str, now: datetime, *, lock: bool = False) -> DeviceKeys:
    """Raises RecordNotFound."""
    device = fleet.get(connection, name, now, lock=lock)
    row = connection.execute(
        select(devices.c.key_generation, devices.c.wanted_key_generation).where(devices.c.uuid == device.uuid)
    ).one()
    wanted = max(row.key_generation, row.wanted_key_generation)
    return DeviceKeys(device.uuid, device.name, row.key_generation, wanted, device.revoked_at is not None)


def want_next(connection: Connection, keys: DeviceKeys, now: datetime) -> DeviceKeys:
    """The device should fetch the next key; again, while it has not, changes nothing."""
    if keys.wanted > keys.generation:
        return keys
    wanted = keys.generation + 1
    connection.execute(update(devices).where(devices.c.uuid == keys.uuid).values(wanted_key_generation=wanted))
    fleet.record_events(connection, [NewEvent(keys.uuid, "key-rotation-wanted", f"it should fetch key {wanted}")], now)
    return replace(keys, wanted=wanted)


def take_over(connection: Connection, device_uuid: str, generation: int, now: datetime) -> bool:
    """The device proved that it has the key of ``generation``: older ones are refused from now on. False: it was so before."""
    changed = connection.execute(
        update(devices)
        .where(devices.c.uuid == device_uuid, devices.c.key_generation < generation)
        .values(key_generation=generation)
    )
    if changed.rowcount == 0:
        return False
    fleet.record_events(connection, [NewEvent(device_uuid, "key-rotated", f"it uses key {generation} now")], now)
    return True


def token_for(connection: Connection, device_uuid: str, name: str, generation: int, master: bytes, now: datetime) -> str:
    """The device's token of this generation: always the same, so that a lost answer leaves nothing behind."""
    token_id, secret = _derived(device_uuid, generation, master)
    if not was_fetched(connection, device_uuid, generation, master):
        tokens.create(connection, name=name, role="device", subject=device_uuid, now=now, made=(token_id, secret))
    return tokens.text_of(token_id, secret)


def was_fetched(connection: Connection, device_uuid: str, generation: int, master: bytes) -> bool:
    """Whether the token of this generation was made before."""
    token_id, _ = _derived(device_uuid, generation, master)
    return connection.execute(select(token_rows.c.id).where(token_rows.c.id == token_id)).one_or_none() is not None


def _derived(device_uuid: str, generation: int, master: bytes) -> tuple[str, str]:
    """Id and secret of a token."""
    derived = hmac.new(master, f"hedgerow-device-token-v1|{device_uuid}|{generation}".encode(), sha256).hexdigest()
    return derived[:12], hmac.new(master, b"hedgerow-device-token-v1|" + derived.encode(), sha256).hexdigest()


def revoke_other_tokens(
    connection: Connection, device_uuid: str, kept: str, generation: int, master: bytes, now: datetime
) -> int:
    """Revoke every token of the device but the one with id ``kept`` and that of ``generation``; returns how many there were.

    Who sends what somebody else said, with a token of before, must not take the newest away.
    """
    done = connection.execute(
        update(token_rows)
        .where(
            token_rows.c.role == "device",
            token_rows.c.subject == device_uuid,
            token_rows.c.id.not_in([kept, _derived(device_uuid, generation, master)[0]]),
            token_rows.c.revoked_at.is_(None),
        )
        .values(revoked_at=to_text(now))
    )
    return done.rowcount


def believed(connection: Connection) -> list[tuple[str, frozenset[str]]]:
    """Of every device that was not revoked, by name: the ids of the workspace's keys that it said to believe."""
    query = (
        select(devices.c.name, twins.c.reported)
        .join(twins, twins.c.device_uuid == devices.c.uuid)
        .where(devices.c.revoked_at.is_(None))
        .order_by(devices.c.name)
    )
    rows = connection.execute(query)
    return [(row.name, frozenset(decode(row.reported, _Believed).trusted_keys if row.reported else ())) for row in rows]


def name_of(connection: Connection, device_uuid: str) -> str | None:
    """Of a device that was not revoked; None when there is none."""
    query = select(devices.c.name).where(devices.c.uuid == device_uuid, devices.c.revoked_at.is_(None))
    return connection.execute(query).scalar_one_or_none()
