"""How a device gets its DeviceConfig by itself: with an enrolment key that somebody made for it, or for a group of devices.

    operator ── POST /enrollment-keys ──▶ key (text, once)  ─ ─ by hand, in an image ─ ─▶  device ── POST /enroll ──▶ device.toml

The answer to the same ``installation`` with the same key is the same device again, for as long as the key is good: a device
that lost the answer asks again.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.names import KnownName, Name
from hedgerow.contracts.seal import seal, unseal

# ``hre_ID_SECRET``, as tokens are ``hrw_ID_SECRET``.
ENROLLMENT_PREFIX = "hre"
# Purpose of a seal, no topic's leaf.
_CERTIFICATE_REQUEST = "certificate-request"


class CreateEnrollmentKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /enrollment-keys``. ``uses_max`` 1 is a one-time key, None a group's without a limit.

    ``device`` is the only name that a device may take with it; ``names`` what its name has to begin with; neither: any name.
    Devices get ``tags``, whatever they say of themselves.
    """

    name: Name
    tags: dict[str, str] = {}
    device: Name | None = None
    names: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$(?!\n)")] | None = None
    uses_max: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = 1
    expires_in_s: Annotated[int, msgspec.Meta(ge=1, le=315_360_000)] | None = 7 * 86_400


class EnrollmentKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret; ``secret`` (the whole text) is filled in the answer to its creation only."""

    id: str
    name: KnownName
    tags: dict[str, str] = {}
    device: KnownName | None = None
    names: str | None = None
    uses_max: int | None = None
    uses: int = 0
    created_at: Instant
    created_by: str = ""
    expires_at: Instant | None = None
    revoked_at: Instant | None = None
    last_used_at: Instant | None = None
    secret: str | None = None


class EnrollWithKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /enroll``, with the key as bearer. ``installation`` is random, made once by the device and kept.

    ``name`` None: the key's ``device``, or its ``names`` and something random.
    """

    installation: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]
    name: Name | None = None


class EnrolledByKey(Document, frozen=True, kw_only=True):
    """Answer of ``POST /enroll``."""

    config: DeviceConfig


class SignCertificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /devices/NAME/certificates`` with the device's own token: a PKCS #10 request (PEM) for its key at the broker.

    ``seal`` is the line that stands before ``request`` when that is sealed with the device's key (``contracts/seal.py``): the
    token alone, which goes with every pull of an image, is no way to the broker.
    """

    request: Annotated[str, msgspec.Meta(max_length=16 * 1024)]
    seal: Annotated[str, msgspec.Meta(max_length=256)] = ""


def sealed_request(key: bytes, device_uuid: str, request: str) -> SignCertificate:
    """``request`` as the device with this key sends it."""
    line, _, _ = seal(key, device_uuid, _CERTIFICATE_REQUEST, request.encode()).partition(b"\n")
    return SignCertificate(request=request, seal=line.decode())


def check_request(key: bytes, device_uuid: str, wanted: SignCertificate) -> None:
    """Raises SealRefused unless the device with this key sent it."""
    unseal(key, device_uuid, _CERTIFICATE_REQUEST, f"{wanted.seal}\n{wanted.request}".encode())


class DeviceCertificate(Document, frozen=True, kw_only=True):
    """An X.509 client certificate of a device; ``certificate`` and ``authority`` are PEM, in the answer to its making only."""

    serial: str
    device: KnownName
    issued_at: Instant
    expires_at: Instant
    revoked_at: Instant | None = None
    certificate: str = ""
    authority: str = ""
