"""Signing desired states away from any server: read what waits, say what it would do, sign it. Nothing here needs a network.

The summary is made from the very bytes that are signed. Whatever it could not show (a field that this release does not know)
is refused, so that nobody signs what they could not read.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from hedgerow.contracts.document import decode, digest_of, encode
from hedgerow.contracts.edge import DesiredModule, DesiredState, ModuleSpec, TelemetryPolicy
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.signed import SignedEnvelope, open_signed, sign
from hedgerow.contracts.signing import SignedState, UnsignedState, raw_key
from hedgerow.errors import HedgerowError, InvalidDocument, MissingExtra, UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# What a desired state has where it says nothing.
_NOTHING: tuple[object, ...] = (None, 0, {}, TelemetryPolicy())
_SHOWN = ("kind", "image", "command", "create_options", "status")
_CHARS = 1000


class SigningKeyUnusable(UserError):
    """A file that should hold a private signing key."""

    key = "signing_key_unusable"
    message = "{path} holds no signing key: {problem}"
    remedy = "Give the file that `hedgerow edge keys take-offline` wrote."


class NotToBeSigned(UserError):
    """What should be signed is not what it says, or cannot be shown."""

    key = "not_to_be_signed"
    message = "What waits for device {device} is not signed: {problem}"
    remedy = "Export it again; if it happens again, do not trust the control plane that it came from."


class WrongSigningKey(UserError):
    """A key that the devices do not believe: the control plane would refuse what it signs."""

    key = "wrong_signing_key"
    message = "What waits for device {device} is not signed: this is key {keyid}, and the workspace's are {believed}"
    remedy = "Sign with the file that `hedgerow edge keys take-offline` wrote for one of those."


@dataclass(frozen=True)
class Reading:
    """What one desired state would do, in words; equal for devices that get the same."""

    deployment: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Devices with the same reading."""

    reading: Reading
    devices: list[str] = field(default_factory=list)


def private_key(text: str, path: object) -> Ed25519PrivateKey:
    """Of a key file's text. Raises SigningKeyUnusable, MissingExtra."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ModuleNotFoundError as problem:
        raise MissingExtra(what="Signing", module=problem.name, extra="edge") from None
    try:
        return Ed25519PrivateKey.from_private_bytes(raw_key(text))
    except ValueError as problem:
        raise SigningKeyUnusable(path=path, problem=problem) from None


def keyid_of(private: Ed25519PrivateKey) -> str:
    """As devices know it."""
    return digest_of(private.public_key().public_bytes_raw())


def read_state(waiting: UnsignedState) -> DesiredState:
    """The desired state, all of which this release knows. Raises NotToBeSigned."""
    try:
        payload = base64.b64decode(waiting.payload, validate=True)
        state = decode(payload, DesiredState)
    except (ValueError, InvalidDocument) as problem:
        raise NotToBeSigned(device=waiting.device, problem=f"it is no desired state ({problem})") from None
    if encode(state) != payload:
        raise NotToBeSigned(device=waiting.device, problem="it holds what this release of hedgerow does not know")
    if (state.device_uuid, state.version) != (waiting.device_uuid, waiting.version):
        raise NotToBeSigned(device=waiting.device, problem="it is for another device, or another version")
    return state


def readings(states: Sequence[UnsignedState], private: Ed25519PrivateKey) -> list[Group]:
    """What signing would do, device by device put together; the largest group first. Raises NotToBeSigned, WrongSigningKey."""
    found: dict[Reading, Group] = {}
    for waiting in states:
        state = read_state(waiting)
        _check_believed(waiting.device, state, keyid_of(private))
        reading = _reading(state, _previous(waiting, private))
        found.setdefault(reading, Group(reading)).devices.append(waiting.device)
    return sorted(found.values(), key=lambda group: (-len(group.devices), group.devices))


def _check_believed(device: str, state: DesiredState, keyid: str) -> None:
    """Raises WrongSigningKey for a key that this very state takes away, or that was never one of the workspace's."""
    able = [key.keyid for key in state.trusted_keys if key.may_sign("desired")]
    if able and keyid not in able:
        raise WrongSigningKey(device=device, keyid=keyid, believed=", ".join(able))


def signed(waiting: UnsignedState, private: Ed25519PrivateKey) -> SignedState:
    """With the signature. Raises NotToBeSigned."""
    read_state(waiting)
    payload = base64.b64decode(waiting.payload, validate=True)
    envelope = sign(PAYLOAD_DESIRED_STATE, payload, {keyid_of(private): private.sign})
    encoded = base64.b64encode(envelope).decode()
    return SignedState(device=waiting.device, device_uuid=waiting.device_uuid, envelope=encoded)


def _previous(waiting: UnsignedState, private: Ed25519PrivateKey) -> DesiredState | None:
    """What the device has, if this very key signed it: nobody else's word counts."""
    from cryptography.exceptions import InvalidSignature

    if waiting.previous is None:
        return None

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            private.public_key().verify(signature, message)
        except InvalidSignature:
            return False
        return True

    try:
        envelope = base64.b64decode(waiting.previous, validate=True)
        decode(envelope, SignedEnvelope)
        state = decode(open_signed(envelope, PAYLOAD_DESIRED_STATE, {keyid_of(private): verify}), DesiredState)
    except (ValueError, HedgerowError):
        return None
    return state if state.device_uuid == waiting.device_uuid else None


def _reading(state: DesiredState, previous: DesiredState | None) -> Reading:
    before: Mapping[str, DesiredModule] = previous.modules if previous else {}
    lines = [] if previous else ["(what its devices have now is not known, or was not signed with this key)"]
    for name in sorted(state.modules.keys() | before.keys()):
        module = state.modules.get(name)
        if module is None:
            lines.append(f"- {name}  goes")
            continue
        mark = "+" if name not in before else " " if before[name] == module else "*"
        lines.append(f"{mark} {name}  {_shown(module)}")
        rest = _rest(module)
        if mark != " " and rest:
            lines.append(f"    with {_short(rest)}")
    for what in ("routes", "telemetry", "twins", "agent", "key_generation"):
        now = getattr(state, what)
        if now != getattr(previous, what) if previous else now not in _NOTHING:
            lines.append(f"* {what}: {_short(now)}")
    lines += _keys(state, previous)
    return Reading(state.edge_deployment or "no deployment", tuple(lines))


def _keys(state: DesiredState, previous: DesiredState | None) -> list[str]:
    if previous is not None and previous.trusted_keys == state.trusted_keys:
        return []
    return [
        f"! from now on it believes key {key.keyid} for {' and '.join(key.uses) if key.uses else 'everything'}"
        for key in state.trusted_keys
    ]


def _shown(module: DesiredModule) -> str:
    spec = module.spec
    if module.image is not None:
        pin = module.image
        run = f"image {pin.reference or f'{pin.name}:{pin.version}'} {pin.digest}"
    else:
        run = f"image {spec.image}" if spec.image else ""
    command = f"command {_short(spec.command)}" if spec.command else ""
    shadow = f"shadow {module.shadow_image.digest}" if module.shadow_image else ""
    options = f"options {_short(spec.create_options)}" if spec.create_options else ""
    stopped = "stopped" if spec.status == "stopped" else ""
    return "  ".join(part for part in (spec.kind, run, command, shadow, options, stopped) if part)


def _rest(module: DesiredModule) -> dict[str, object]:
    """What else its manifest says, but for what is as it is anyway."""
    usual = ModuleSpec()
    values = {name: getattr(module.spec, name) for name in module.spec.__struct_fields__ if name not in _SHOWN}
    return {name: value for name, value in values.items() if value != getattr(usual, name)}


def _short(value: object) -> str:
    text = msgspec.json.encode(value, order="sorted").decode()
    return text if len(text) <= _CHARS else f"{text[:_CHARS]}… ({len(text)} characters, {digest_of(text.encode())})"
