"""Module twins: properties that modules report, and the versions of those that are desired of them.

    module ──▶ agent (whole, on its disk) ──TwinReport──▶ hub ──TwinAck──▶ agent      desired: in the signed DesiredState

Reported properties travel as deltas: a JSON merge patch (RFC 7386) from one version of a module's properties to the next. The
hub applies a patch only to the version that it was made from; else it says which one it has, and gets the whole.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.names import KnownName

# Of one module's properties as JSON text. IoT Hub's limit is 32 KB.
MAX_REPORTED_BYTES = 256 * 1024
TwinVersion = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class TwinReport(Document, frozen=True, kw_only=True):
    """A module's reported properties at ``version``; a patch of those at ``base_version``, or the whole when that is None.

    Versions count up from 1 for each (device, ``epoch``, module); ``epoch`` changes when the device lost what it had (another
    card, a damaged file), and then only a whole is taken.
    """

    device_uuid: str
    session: str
    epoch: str
    module: KnownName
    version: TwinVersion
    base_version: TwinVersion | None = None
    reported: dict[str, Any] = {}


class TwinAck(Document, frozen=True, kw_only=True):
    """The hub has ``version`` of a module's reported properties (0: nothing of this epoch, send the whole).

    ``digest`` is that of their canonical JSON (``merge_patch.json_text``), so that a copied card is noticed: it has the same
    versions with other properties.
    """

    device_uuid: str
    session: str
    epoch: str
    module: KnownName
    version: TwinVersion
    digest: str = ""


class ModuleTwin(Document, frozen=True, kw_only=True):
    """A module's twin in the REST API. ``desired`` is what it is told: its deployment's, and ``patch`` on top of it."""

    device: KnownName
    module: KnownName
    desired: dict[str, Any] = {}
    desired_version: int = 0
    patch: dict[str, Any] = {}
    reported: dict[str, Any] = {}
    reported_version: int = 0
    reported_at: Instant | None = None
    revision: int = 0


class PatchTwin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PATCH /devices/NAME/modules/MODULE/twin``: a merge patch on what was patched before; ``null`` takes a key away again."""

    desired: dict[str, Any]
