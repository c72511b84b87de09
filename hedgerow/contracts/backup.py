"""The description inside every backup: what it holds and where it came from."""

from __future__ import annotations

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.names import Digest

BACKUP_FORMAT = 1


class LostBlob(msgspec.Struct, frozen=True, kw_only=True):
    """Content that the records promise and that the workspace itself had lost or damaged when it was backed up."""

    digest: Digest
    problem: str


class BackupHeader(Document, frozen=True, kw_only=True):
    """First member of the archive (``backup.json``). ``revisions`` are schema revisions by database part.

    ``keyid`` names the workspace's signing key, so that keys kept elsewhere can be told to be its own; ``size_bytes`` is
    about how large the archive becomes (0: not known).
    """

    format: int
    workspace_id: str
    incarnation: str
    hedgerow_version: str
    revisions: dict[str, str]
    has_keys: bool
    has_blobs: bool
    created_at: Instant
    keyid: str = ""
    size_bytes: int = 0


class BackupEnd(Document, frozen=True, kw_only=True):
    """Last member (``end.json``): without it the archive was cut off. ``digest`` covers every byte before it and the rest of it.

    ``rows`` counts by PART/TABLE. What is in ``lost`` has no member, or one that does not hash to its name.
    This document is read strictly (its one spelling is part of the check): a change of it is a new BACKUP_FORMAT.
    """

    rows: dict[str, int]
    blobs: int
    blob_bytes: int
    digest: Digest
    lost: list[LostBlob] = []


class RestoreReport(Document, frozen=True, kw_only=True):
    """What a restore did; ``incarnation`` is the new one, ``interrupted`` the work that was under way and now failed."""

    workspace_id: str
    incarnation: str
    rows: dict[str, int]
    blobs: int
    blob_bytes: int
    keys_restored: bool
    tokens_revoked: int
    interrupted: int = 0
    lost: list[LostBlob] = []
