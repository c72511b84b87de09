"""What the file worker is asked to do and what it answers. Crosses as JSON: a task file in, a ProgressLine out."""

from __future__ import annotations

import msgspec

from hedgerow.contracts.model import FileEntry, RelativePath
from hedgerow.contracts.names import Digest

# Given by the controller, whose settings these are; absent for a workspace that keeps its contents itself.
ENV_BLOBS, ENV_BLOBS_ENDPOINT = "HEDGEROW_BLOBS", "HEDGEROW_BLOBS_ENDPOINT"


class LaidFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A blob that shall stand at ``path`` below the task's root. ``link``: the reader only reads and checks by itself."""

    path: RelativePath
    digest: Digest
    link: bool = False


class LayOut(msgspec.Struct, frozen=True, kw_only=True, tag="lay-out", forbid_unknown_fields=True):
    """Make ``root`` with folders and files. With ``owner`` (a uid) all of it belongs to that user."""

    blobs: str
    root: str
    files: list[LaidFile]
    folders: list[RelativePath] = []
    owner: int | None = None


class TakeIn(msgspec.Struct, frozen=True, kw_only=True, tag="take-in", forbid_unknown_fields=True):
    """Store everything that image ``digest`` of the OCI layout in ``layout`` consists of. Answers :class:`Parts`.

    ``referrers`` are manifests that lie beside it (``BuildResult.referrers``): what they lead to is stored with it. Of what the
    records know already (``known``, and held until the image is recorded) only the documents are looked at again.
    """

    blobs: str
    layout: str
    digest: Digest
    media_type: str
    referrers: list[Digest] = []
    known: list[Digest] = []


class Collect(msgspec.Struct, frozen=True, kw_only=True, tag="collect", forbid_unknown_fields=True):
    """Store every regular file below ``folder``, which foreign code has filled. Answers :class:`Collected`."""

    blobs: str
    folder: str


class Unpack(msgspec.Struct, frozen=True, kw_only=True, tag="unpack", forbid_unknown_fields=True):
    """Unpack the layers of image ``digest`` into ``target``, which is there whole or not at all."""

    blobs: str
    digest: Digest
    target: str


Task = LayOut | TakeIn | Collect | Unpack


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A stored blob of an image. ``chunk_hashes``: as in ``registry.blobs.ChunkHashes``, empty for one chunk."""

    digest: Digest
    media_type: str
    size_bytes: int
    chunk_hashes: bytes = b""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of :class:`TakeIn`."""

    parts: list[Part]


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of :class:`Collect`; ``left_out`` says in words what was not taken and why. ``chunk_hashes`` of the large ones."""

    files: list[FileEntry]
    left_out: list[str]
    chunk_hashes: dict[Digest, bytes] = {}


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of tasks that have nothing more to say."""


Answer = Parts | Collected | Done
