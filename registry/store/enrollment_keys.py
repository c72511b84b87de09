"""Enrolment keys: what devices bring to become known by themselves, once or by the thousand.

Form: ``hre_ID_SECRET``, kept as tokens are (``tokens.py``): the id finds the row, the secret's sha256 is compared in constant
time. A use is counted, and its device made, in one transaction that holds the key's row: two at once never share a last use.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, or_, select, update

from hedgerow.contracts.api_fleet import Device, EnrollDevice
from hedgerow.contracts.enrollment import ENROLLMENT_PREFIX, CreateEnrollmentKey, EnrollmentKey, EnrollWithKey
from hedgerow.contracts.names import check_name
from registry.errors import InvalidPage, NameTaken, RecordNotFound
from registry.identity.errors import (
    EnrolledDeviceRevoked,
    EnrollmentKeyInvalid,
    EnrollmentKeyRefused,
    EnrollmentNameRefused,
)
from registry.store import fleet
from registry.store.tables import devices, enrollment_keys, enrollments
from registry.store.time_text import from_text, maybe_from_text, to_text

# Random names of 32 bits meet now and then in a large fleet; three times in a row they do not.
_NAMES_TRIED = 3
_NAMELESS = "device-"


@dataclass(frozen=True)
class Enrolled:
    """A device that enrolled with a key. ``again``: the same installation asked before, and this is its device."""

    device: Device
    key_generation: int
    again: bool


def create(connection: Connection, wanted: CreateEnrollmentKey, now: datetime, created_by: str = "") -> EnrollmentKey:
    """``secret`` of the answer is the whole key and exists nowhere else. Raises EnrollmentKeyInvalid, InvalidName."""
    check(wanted)
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    expires_at = None if wanted.expires_in_s is None else now + timedelta(seconds=wanted.expires_in_s)
    connection.execute(
        enrollment_keys.insert().values(
            id=key_id,
            name=wanted.name,
            secret_hash=_hash(secret),
            tags=msgspec.json.encode(wanted.tags, order="sorted").decode(),
            device=wanted.device,
            names=wanted.names,
            uses_max=wanted.uses_max,
            uses=0,
            created_at=to_text(now),
            created_by=created_by,
            expires_at=None if expires_at is None else to_text(expires_at),
        )
    )
    return msgspec.structs.replace(find(connection, key_id), secret=f"{ENROLLMENT_PREFIX}_{key_id}_{secret}")


def check(wanted: CreateEnrollmentKey) -> None:
    """What the types do not tell. Raises EnrollmentKeyInvalid, InvalidName."""
    if wanted.device is not None and wanted.names is not None:
        raise EnrollmentKeyInvalid(problem=f"it is for the device {wanted.device} and for names with {wanted.names} at once")
    if wanted.device is not None and wanted.uses_max != 1:
        raise EnrollmentKeyInvalid(problem=f"there is one device {wanted.device}, so it has one use")
    if wanted.names is not None:
        check_name(f"{wanted.names}0", "device")


def find(connection: Connection, key_id: str) -> EnrollmentKey:
    """Raises RecordNotFound."""
    row = connection.execute(select(enrollment_keys).where(enrollment_keys.c.id == key_id)).one_or_none()
    if row is None:
        raise RecordNotFound(kind="enrolment key", name=key_id, command="device key")
    return _info(row)


def newest(connection: Connection, limit: int, after: str | None = None) -> list[EnrollmentKey]:
    """Newest first; ``after`` is the id of the last one seen. Raises InvalidPage."""
    columns = enrollment_keys.c
    query = select(enrollment_keys).order_by(columns.created_at.desc(), columns.id.desc()).limit(limit)
    if after:
        at = connection.execute(select(columns.created_at).where(columns.id == after)).scalar()
        if at is None:
            raise InvalidPage(value=after[:80])
        query = query.where(or_(columns.created_at < at, (columns.created_at == at) & (columns.id < after)))
    return [_info(row) for row in connection.execute(query)]


def revoke(connection: Connection, key_id: str, now: datetime) -> EnrollmentKey:
    """Nothing enrols with it any more; what did stays. Again changes nothing. Raises RecordNotFound."""
    columns = enrollment_keys.c
    connection.execute(
        update(enrollment_keys).where(columns.id == key_id, columns.revoked_at.is_(None)).values(revoked_at=to_text(now))
    )
    return find(connection, key_id)


def verify(connection: Connection, text: str) -> EnrollmentKey:
    """The key that ``text`` is, whether it is still good or not. Raises EnrollmentKeyRefused, which tells nothing more."""
    prefix, _, rest = text.partition("_")
    key_id, _, secret = rest.partition("_")
    row = None
    # Others may send anything: a NUL, for one, PostgreSQL would refuse in its own way.
    if prefix == ENROLLMENT_PREFIX and text.isascii() and key_id.isalnum() and secret:
        row = connection.execute(select(enrollment_keys).where(enrollment_keys.c.id == key_id)).one_or_none()
    if row is None or not hmac.compare_digest(row.secret_hash, _hash(secret)):
        raise EnrollmentKeyRefused(problem="it is not one of this workspace's")
    return _info(row)


def enroll(connection: Connection, key_id: str, wanted: EnrollWithKey, now: datetime) -> Enrolled:
    """The device of this installation: the one it has, or a new one with the key's tags, which costs a use.

    Raises EnrollmentKeyRefused, EnrollmentNameRefused, EnrolledDeviceRevoked, NameTaken.
    """
    row = connection.execute(select(enrollment_keys).where(enrollment_keys.c.id == key_id).with_for_update()).one_or_none()
    if row is None:
        raise EnrollmentKeyRefused(problem="it is not one of this workspace's")
    key = _info(row)
    _check_good(key, now)
    found = _device_of(connection, key, wanted.installation, now)
    if found is None:
        if key.uses_max is not None and key.uses >= key.uses_max:
            raise EnrollmentKeyRefused(problem=f"it was used {key.uses} times, which is as often as it may be")
        found = Enrolled(_new_device(connection, key, wanted.name, now), fleet.FIRST_KEY_GENERATION, again=False)
        at = to_text(now)
        values = {"key_id": key.id, "installation": wanted.installation, "device_uuid": found.device.uuid, "at": at}
        connection.execute(enrollments.insert().values(values))
        counted = {"uses": enrollment_keys.c.uses + 1, "last_used_at": at}
        connection.execute(update(enrollment_keys).where(enrollment_keys.c.id == key.id).values(counted))
    return found


def _check_good(key: EnrollmentKey, now: datetime) -> None:
    if key.revoked_at is not None:
        raise EnrollmentKeyRefused(problem=f"it was revoked at {to_text(key.revoked_at)}")
    if key.expires_at is not None and key.expires_at <= now:
        raise EnrollmentKeyRefused(problem=f"it expired at {to_text(key.expires_at)}")


def _device_of(connection: Connection, key: EnrollmentKey, installation: str, now: datetime) -> Enrolled | None:
    """The device that this installation became with this key; a deleted one is forgotten here, too."""
    mine = (enrollments.c.key_id == key.id, enrollments.c.installation == installation)
    query = select(devices.c.name, devices.c.key_generation).join(enrollments, enrollments.c.device_uuid == devices.c.uuid)
    row = connection.execute(query.where(*mine).with_for_update(of=devices)).one_or_none()
    if row is None:
        return None
    device = fleet.get(connection, row.name, now)
    if device.revoked_at is not None:
        raise EnrolledDeviceRevoked(name=device.name)
    return Enrolled(device, row.key_generation, again=True)


def _new_device(connection: Connection, key: EnrollmentKey, asked: str | None, now: datetime) -> Device:
    name = name_of(key, asked)
    if name is not None:
        return fleet.enroll(connection, EnrollDevice(name=name, tags=key.tags), now)
    return _randomly_named(connection, key, now, _NAMES_TRIED)


def _randomly_named(connection: Connection, key: EnrollmentKey, now: datetime, tries: int) -> Device:
    name = f"{key.names or _NAMELESS}{secrets.token_hex(4)}"
    try:
        return fleet.enroll(connection, EnrollDevice(name=name, tags=key.tags), now)
    except NameTaken:
        if tries <= 1:
            raise
    return _randomly_named(connection, key, now, tries - 1)


def name_of(key: EnrollmentKey, asked: str | None) -> str | None:
    """The name that a device gets which asked for ``asked``; None: any that the key allows. Raises EnrollmentNameRefused."""
    if asked is None or key.device == asked:
        return key.device
    if key.device is not None:
        raise EnrollmentNameRefused(name=asked, rule=f"it is for {key.device}")
    if key.names is not None and not asked.startswith(key.names):
        raise EnrollmentNameRefused(name=asked, rule=f"names have to begin with {key.names}")
    return asked


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _info(row: Row[Any]) -> EnrollmentKey:
    return EnrollmentKey(
        id=row.id,
        name=row.name,
        tags=msgspec.json.decode(row.tags, type=dict[str, str]),
        device=row.device,
        names=row.names,
        uses_max=row.uses_max,
        uses=row.uses,
        created_at=from_text(row.created_at),
        created_by=row.created_by,
        expires_at=maybe_from_text(row.expires_at),
        revoked_at=maybe_from_text(row.revoked_at),
        last_used_at=maybe_from_text(row.last_used_at),
    )
