"""PushRequest and PushResult: what crosses to ``python -m packager push`` and back (progress lines as for builds)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hedgerow.contracts.document import Document
from hedgerow.contracts.names import Digest


class RegistryCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """Who we are to the target's registry."""

    username: str
    password: str

    def __repr__(self) -> str:
        # Whatever shows a value of ours by mistake (a log, a traceback) shows no password.
        return f"RegistryCredentials(username={self.username!r})"


class PushRequest(Document, frozen=True, kw_only=True):
    """Send image ``source`` of the OCI layout in ``layout`` (absolute) to ``target``: `HOST[:PORT]/NAME:TAG`, `http://…` too.

    ``mount_from`` are repositories of the same registry that may have some of its blobs. With ``referrers`` goes what
    lies beside the image, as far as the layout's index.json names it. ``chunk_bytes``: how much one request sends;
    ``attempts``: how often in a row one thing may fail.
    """

    layout: str
    source: Digest
    target: str
    credentials: RegistryCredentials | None = None
    mount_from: list[str] = []
    referrers: bool = True
    chunk_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 << 20
    attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5


class PushedBlob(msgspec.Struct, frozen=True, kw_only=True):
    """Content that the registry lacked and was sent."""

    digest: Digest
    media_type: str
    size_bytes: int


class PushResult(Document, frozen=True, kw_only=True):
    """``digest`` is the image's, there as here; ``reference`` is the target with it. Bytes count blobs, not manifests.

    A blob is in one of ``pushed``, ``mounted`` (another repository there had it) and ``already_there``. ``manifests`` were
    sent; ``referrers`` lie beside the image there, sent now or before.
    """

    digest: Digest
    target: str
    reference: str
    pushed: list[PushedBlob]
    pushed_bytes: int
    mounted: list[Digest]
    already_there: list[Digest]
    manifests: list[Digest]
    referrers: list[Digest]
