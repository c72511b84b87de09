"""``/api/v1/devices/NAME/rotate-key`` and ``…/key``: a device gets another key.

    operator ── rotate-key ──▶ wanted ── hub: desired state ──▶ device ── key ──▶ grant ── key/taken ──▶ only that

A device that was told (``DesiredState.key_generation``) fetches its key with ``hedgerow/contracts/device_keys.py``. The hub
hears the new key too: whichever of the two comes first ends the rotation (``registry/store/device_keys.py``).
"""

from __future__ import annotations

import base64
from typing import TypeVar

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api_fleet import Device
from hedgerow.contracts.device_keys import (
    ANSWER,
    MAX_SEALED_CHARS,
    REQUEST,
    TAKEN,
    FetchedKey,
    FetchKey,
    KeyGrant,
    KeyRequest,
    KeyTaken,
    grant_for,
)
from hedgerow.contracts.document import Document, decode, encode
from hedgerow.contracts.names import check_known_name
from hedgerow.contracts.seal import SealRefused, device_key, seal, unseal
from registry.errors import RecordNotFound
from registry.identity.errors import DeviceRevoked, KeyRequestInvalid, NoKeyWanted, NotThisDevice
from registry.server.http import answer, caller, context, no_content, read_body, tell, write_once
from registry.server.operation import operation
from registry.store import device_keys, fleet
from registry.store.device_keys import DeviceKeys

D = TypeVar("D", bound=Document)


def add_routes(blueprint: Blueprint) -> None:
    """Called by ``api_fleet``."""
    blueprint.post("/devices/<name>/rotate-key")(rotate_device_key)
    blueprint.post("/devices/<name>/key")(fetch_device_key)
    blueprint.post("/devices/<name>/key/taken")(confirm_device_key)


@operation("Give a device another key", "contributor", scope="devices", result=Device, errors=(RecordNotFound, DeviceRevoked))
def rotate_device_key(name: str) -> Response:
    """It fetches the key when it hears of it; until it uses it the one of before is good. Again, meanwhile, changes nothing."""
    here = context()
    now = here.clock.now()

    def rotate(connection: Connection) -> Response:
        before = device_keys.get(connection, check_known_name(name, "device"), now, lock=True)
        if before.revoked:
            raise DeviceRevoked(device=name)
        after = device_keys.want_next(connection, before, now)
        if after.wanted != before.wanted:
            tell(connection, "device.key-rotation-wanted", f"device/{name}", uuid=after.uuid, generation=str(after.wanted))
        return answer(fleet.get(connection, name, now))

    answered = write_once(rotate)
    here.wakeups.wake("hub")
    return answered


@operation(
    "Fetch this device's next key",
    "device",
    scope="devices",
    body=FetchKey,
    result=FetchedKey,
    errors=(RecordNotFound, NotThisDevice, NoKeyWanted, SealRefused, KeyRequestInvalid),
)
def fetch_device_key(name: str) -> Response:
    """For devices only, with their own token. The same answer again as long as the device does not use the key."""
    here = context()
    sealed, now = _sealed(name), here.clock.now()

    def fetch(connection: Connection) -> Response:
        keys = _mine(connection, name)
        current = device_key(here.workspace.device_master, keys.uuid, keys.generation)
        request = _opened(name, unseal(current, keys.uuid, REQUEST, sealed), KeyRequest, keys)
        if keys.wanted <= keys.generation:
            raise NoKeyWanted(device=name, generation=keys.generation)
        again = device_keys.was_fetched(connection, keys.uuid, keys.wanted, here.workspace.device_master)
        grant = KeyGrant(
            generation=keys.wanted,
            device_key=base64.b64encode(device_key(here.workspace.device_master, keys.uuid, keys.wanted)).decode(),
            pull_token=device_keys.token_for(connection, keys.uuid, name, keys.wanted, here.workspace.device_master, now),
        )
        try:
            granted = grant_for(request, grant)
        except ValueError:
            raise KeyRequestInvalid(device=name, problem="its public_key is no X25519 key") from None
        if not again:  # a device that asks all day must not fill the events
            tell(connection, "device.key-fetched", f"device/{name}", uuid=keys.uuid, generation=str(keys.wanted))
        return answer(FetchedKey(sealed=base64.b64encode(seal(current, keys.uuid, ANSWER, encode(granted))).decode()))

    return write_once(fetch)


@operation(
    "Say that this device has its next key",
    "device",
    scope="devices",
    body=FetchKey,
    errors=(RecordNotFound, NotThisDevice, SealRefused, KeyRequestInvalid),
)
def confirm_device_key(name: str) -> Response:
    """Sealed with the new key and sent with the new token: keys and tokens of before are refused from now on."""
    here = context()
    sealed, now = _sealed(name), here.clock.now()

    def confirm(connection: Connection) -> Response:
        keys = _mine(connection, name)
        for generation in range(keys.generation, max(keys.wanted, keys.generation + device_keys.AHEAD) + 1):
            key = device_key(here.workspace.device_master, keys.uuid, generation)
            try:
                taken = _opened(name, unseal(key, keys.uuid, TAKEN, sealed), KeyTaken, keys)
            except SealRefused:
                continue
            if taken.generation != generation:
                raise KeyRequestInvalid(device=name, problem=f"it speaks of key {taken.generation}")
            if device_keys.take_over(connection, keys.uuid, generation, now):
                tell(connection, "device.key-rotated", f"device/{name}", uuid=keys.uuid, generation=str(generation))
            master, token_id = here.workspace.device_master, caller().token_id
            device_keys.revoke_other_tokens(connection, keys.uuid, token_id, generation, master, now)
            return no_content()
        raise SealRefused(purpose=TAKEN, device_uuid=keys.uuid)

    answered = write_once(confirm)
    here.wakeups.wake("broker")
    return answered


def _sealed(name: str) -> bytes:
    text = read_body(FetchKey).sealed
    if len(text) > MAX_SEALED_CHARS:
        raise KeyRequestInvalid(device=name[:128], problem=f"it has more than {MAX_SEALED_CHARS} characters")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise KeyRequestInvalid(device=name[:128], problem="it is not base64") from None


def _mine(connection: Connection, name: str) -> DeviceKeys:
    """The caller's own keys; nobody changes them meanwhile. Raises NotThisDevice, RecordNotFound."""
    found = device_keys.get(connection, check_known_name(name, "device"), context().clock.now(), lock=True)
    if caller().subject != found.uuid:
        raise NotThisDevice(name=name)
    return found


def _opened(name: str, payload: bytes, kind: type[D], keys: DeviceKeys) -> D:
    said = decode(payload, kind)
    if getattr(said, "device_uuid", None) != keys.uuid:
        raise KeyRequestInvalid(device=name, problem="it names another device")
    return said
