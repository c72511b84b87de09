"""``/api/v1/signing-keys``, ``/unsigned-desired-states``: the keys that sign for devices, and what waits for one kept elsewhere.

    add ──▶ both sign, devices are told ──▶ devices say that they believe it ──▶ retire the old one
    private + take-offline ──▶ what changes for devices waits ──▶ export, sign elsewhere, import ──▶ hub

The control plane never takes a private half in; one that leaves is proved to be kept before it is forgotten here.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Sequence

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from hedgerow.contracts.api import Page
from hedgerow.contracts.device import TrustedKey
from hedgerow.contracts.document import decode
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.signed import open_signed
from hedgerow.contracts.signing import (
    AddSigningKey,
    KeepSigningKey,
    PrivateSigningKey,
    RefusedSignature,
    SignedState,
    SignedStates,
    SigningKey,
    SigningKeyList,
    TakenSignatures,
    UnsignedState,
)
from hedgerow.errors import HedgerowError, InvalidDocument
from registry.identity.errors import (
    KeysNotConfirmed,
    LastSigningKey,
    SignatureStale,
    SigningKeyStays,
    SigningKeyUnknown,
    TooManySigningKeys,
)
from registry.identity.signing_keys import ListedKey, SigningKeys, add_key, read_signing_keys, retire_key, take_offline
from registry.server.http import (
    MAX_LIST_BODY_BYTES,
    answer,
    check_scope,
    context,
    is_forced,
    page_arguments,
    read_body,
    tell,
    write_once,
)
from registry.server.operation import FORCE, PAGE, operation
from registry.store import device_keys, unsigned

_NAMED = 20
# What proxies say of themselves.
_FORWARDED = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"})


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("signing_keys", __name__, url_prefix="/api/v1")
    blueprint.get("/signing-keys")(list_signing_keys)
    blueprint.post("/signing-keys")(add_signing_key)
    blueprint.post("/signing-keys/<keyid>/retire")(retire_signing_key)
    blueprint.post("/signing-keys/<keyid>/private")(show_signing_key)
    blueprint.post("/signing-keys/<keyid>/take-offline")(take_signing_key_offline)
    blueprint.get("/unsigned-desired-states")(list_unsigned_states)
    blueprint.post("/unsigned-desired-states/signatures")(take_signatures)
    return blueprint


@operation("List the keys that sign for devices", "reader", scope="workspace", result=SigningKeyList)
def list_signing_keys() -> Response:
    """The first is by which a backup knows its workspace. Nothing private is in it."""
    with context().database.read() as connection:
        return _listed(connection)


@operation(
    "Add a signing key",
    "owner",
    scope="workspace",
    body=AddSigningKey,
    result=SigningKey,
    status=201,
    errors=(TooManySigningKeys,),
)
def add_signing_key() -> Response:
    """From now on it signs beside the others, and devices are told to believe it."""
    here = context()
    wanted = read_body(AddSigningKey)

    def add(connection: Connection) -> Response:
        made = add_key(here.workspace.keys, wanted.uses)
        tell(connection, "workspace.signing-key-added", _subject(), keyid=made.public.keyid, uses=" ".join(wanted.uses))
        return answer(_shown(made, _without(device_keys.believed(connection), [made.public])), 201)

    answered = write_once(add)
    here.wakeups.wake("hub")
    return answered


@operation(
    "Retire a signing key",
    "owner",
    scope="workspace",
    result=SigningKeyList,
    query=(FORCE,),
    errors=(SigningKeyUnknown, LastSigningKey, KeysNotConfirmed),
)
def retire_signing_key(keyid: str) -> Response:
    """Its private half is gone, and devices stop to believe it. Refused while a device believes none of the others."""
    here, forced = context(), is_forced()

    def away(connection: Connection) -> Response:
        keys = _keys()
        gone = keys.find(keyid)
        missing = _cut_off(device_keys.believed(connection), [one for one in keys.listed.keys if one is not gone])
        if missing and not forced:
            raise KeysNotConfirmed(count=len(missing), devices=", ".join(missing[:_NAMED]), keyid=gone.public.keyid)
        retire_key(here.workspace.keys, gone.public.keyid)
        tell(
            connection,
            "workspace.signing-key-retired",
            _subject(),
            keyid=gone.public.keyid,
            unconfirmed=", ".join(missing[:_NAMED]),
        )
        return _listed(connection)

    answered = write_once(away)
    here.wakeups.wake("hub")
    return answered


@operation(
    "Show the private half of a signing key",
    "owner",
    scope="workspace",
    result=PrivateSigningKey,
    errors=(SigningKeyUnknown, SigningKeyStays),
)
def show_signing_key(keyid: str) -> Response:
    """For keeping it elsewhere; `take-offline` then makes the control plane forget it.

    On the workspace's own machine only: an owner's token that was stolen can be revoked, a key that was copied cannot.
    """
    _check_on_this_machine()

    def show(connection: Connection) -> Response:
        keys = _keys()
        found = keys.find(keyid)
        private = base64.b64encode(keys.private_of(found)).decode()
        tell(connection, "workspace.signing-key-shown", _subject(), keyid=found.public.keyid)
        return answer(PrivateSigningKey(keyid=found.public.keyid, private=private), headers={"Cache-Control": "no-store"})

    return write_once(show)


@operation(
    "Forget the private half of a signing key",
    "owner",
    scope="workspace",
    body=KeepSigningKey,
    result=SigningKeyList,
    errors=(SigningKeyUnknown, TooManySigningKeys),
)
def take_signing_key_offline(keyid: str) -> Response:
    """`proof` shows that somebody has it. What changes for devices then waits for its signature."""
    here = context()
    try:
        proof = base64.b64decode(read_body(KeepSigningKey).proof, validate=True)
    except ValueError:
        raise InvalidDocument(document="KeepSigningKey", problem="`proof` is not base64") from None

    def forget(connection: Connection) -> Response:
        gone = take_offline(here.workspace.keys, _keys().find(keyid).public.keyid, proof)
        tell(connection, "workspace.signing-key-taken-offline", _subject(), keyid=gone.public.keyid)
        return _listed(connection)

    answered = write_once(forget)
    here.wakeups.wake("hub")
    return answered


@operation("List desired states that wait for a signature", "reader", scope="devices", result=Page[UnsignedState], query=PAGE)
def list_unsigned_states() -> Response:
    """By device: the very bytes to be signed, and what the device has now."""
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = unsigned.page(connection, limit, after)
    items = [
        UnsignedState(
            device=one.device,
            device_uuid=one.device_uuid,
            version=one.version,
            payload=base64.b64encode(one.payload).decode(),
            previous=None if one.previous is None else base64.b64encode(one.previous).decode(),
        )
        for one in found
    ]
    return answer(Page(items=items, next=following))


@operation("Bring signatures of desired states", "contributor", scope="devices", body=SignedStates, result=TakenSignatures)
def take_signatures() -> Response:
    """Each must be of exactly what waits, by a key of this workspace that may sign it; the hub publishes what was taken."""
    here = context()
    brought = read_body(SignedStates, limit_bytes=MAX_LIST_BODY_BYTES)
    for state in brought.states:
        check_scope("devices", state.device)
    keys = _keys()

    def take(connection: Connection) -> Response:
        taken: list[str] = []
        refused: list[RefusedSignature] = []
        for one in brought.states:
            try:
                version = _take(connection, keys, one)
            except HedgerowError as problem:
                refused.append(RefusedSignature(device=one.device, problem=str(problem)))
                continue
            tell(connection, "device.desired-signed", f"device/{one.device}", version=str(version))
            taken.append(one.device)
        return answer(TakenSignatures(taken=taken, refused=refused))

    answered = write_once(take)
    here.wakeups.wake("hub")
    return answered


def _check_on_this_machine() -> None:
    """Raises SigningKeyStays. Without a proxy the server listens on loopback only; with one, only its Unix socket is ours."""
    through: object = request.environ.get("gunicorn.socket")
    ours = isinstance(through, socket.socket) and through.family == socket.AF_UNIX
    if _FORWARDED & {name.lower() for name, _ in request.headers} or (context().settings.behind_proxy and not ours):
        raise SigningKeyStays


def _take(connection: Connection, keys: SigningKeys, brought: SignedState) -> int:
    """The version that was taken. Raises SignatureRefused, InvalidDocument, SignatureStale."""
    try:
        envelope = base64.b64decode(brought.envelope, validate=True)
    except ValueError:
        raise InvalidDocument(document="SignedState", problem="`envelope` is not base64") from None
    payload = open_signed(envelope, PAYLOAD_DESIRED_STATE, keys.verifiers("desired"))
    state = decode(payload, DesiredState)
    if device_keys.name_of(connection, state.device_uuid) != brought.device or not unsigned.put_signed(
        connection, state.device_uuid, payload, envelope
    ):
        raise SignatureStale(device=brought.device, version=state.version)
    return state.version


def _listed(connection: Connection) -> Response:
    believed = device_keys.believed(connection)
    return answer(SigningKeyList(keys=[_shown(one, _without(believed, [one.public])) for one in _keys().listed.keys]))


def _keys() -> SigningKeys:
    return read_signing_keys(context().workspace.keys)


def _subject() -> str:
    return f"workspace/{context().workspace.id}"


def _without(believed: Sequence[tuple[str, frozenset[str]]], keys: Sequence[TrustedKey]) -> list[str]:
    """Names of devices that have not said to believe all of ``keys``."""
    wanted = {key.keyid for key in keys}
    return [name for name, trusts in believed if not wanted <= trusts]


def _cut_off(believed: Sequence[tuple[str, frozenset[str]]], left: Sequence[ListedKey]) -> list[str]:
    """Names of devices that could not be told what to run with the keys that are ``left``.

    Every key that is here signs, so one of them that a device believes is enough. Where none is here a person chooses the key,
    so a device has to believe each.
    """
    able = [one for one in left if one.public.may_sign("desired")]
    here = {one.public.keyid for one in able if one.file is not None}
    if here:
        return [name for name, trusts in believed if not here & trusts]
    return _without(believed, [one.public for one in able])


def _shown(key: ListedKey, unconfirmed: Sequence[str]) -> SigningKey:
    public = key.public
    return SigningKey(
        keyid=public.keyid,
        key=public.key,
        uses=public.uses,
        here=key.file is not None,
        unconfirmed=list(unconfirmed[:_NAMED]),
        unconfirmed_count=len(unconfirmed),
    )
