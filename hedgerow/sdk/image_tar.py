"""An image as one tar that ``docker load``, ``podman load`` and OCI tools read: fetched from ``/v2/``, checked blob by blob.

The tar is an OCI image layout with the ``manifest.json`` beside it that Docker's classic image store wants. It holds nothing
but the image and, if wanted, what lies beside it (bill of materials, proof), which OCI tools find in its index.json: no times,
no owners, members in one order. The same image, with the same beside it, is the same file, on any day.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from msgspec import structs

from hedgerow.backoff import Backoff
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.names import CONTAINER_CONFIG_TYPES, INDEX_TYPES
from hedgerow.contracts.oci import Descriptor, ImageDocument, Index, index_bytes, read_image_document
from hedgerow.contracts.oci_layout import OCI_LAYOUT, blob_path, docker_manifest
from hedgerow.sdk.blobs import again
from hedgerow.sdk.errors import ApiError, DownloadDamaged, NoSuchPlatform, ServerUnreachable
from hedgerow.sdk.transport import Transport
from hedgerow.tar_headers import END_OF_TAR, padding, plain_header

# Told (bytes done, bytes in all).
Progress = Callable[[int, int], None]
DOCUMENT_BYTES_MAX = 8 << 20
_ATTEMPTS, _BUSY = 5, "toomanyrequests"
_BACKOFF = Backoff(first_s=0.3, cap_s=5.0, immediate_s=0.1)


@dataclass(frozen=True)
class Contents:
    """All that the tar of an image holds: its blobs by digest, which of them were read already, and the documents on top."""

    blobs: dict[str, Descriptor]
    known: dict[str, bytes]
    documents: dict[str, bytes]
    runs_in_engines: bool

    @property
    def size_bytes(self) -> int:
        """Of the blobs together."""
        return sum(one.size for one in self.blobs.values())


def contents_of(transport: Transport, record: ImageRecord, platform: str | None = None, *, referrers: bool = False) -> Contents:
    """What the tar of ``record`` holds. ``platform`` (``linux/arm64``): that one alone; None: all that there are.

    With ``referrers`` also what refers to the manifests in it, and what refers to that. Raises NoSuchPlatform, DownloadDamaged,
    ApiError, ServerUnreachable.
    """
    reading = _Reading(transport, record)
    top = reading.top(platform)
    singles = list(reading.walk(top))
    name = f"{record.name}:{record.version}"
    # Engines that keep images by their whole names write this one out so; `docker images` shows it as NAME:VERSION.
    named = {"io.containerd.image.name": f"docker.io/library/{name}", "org.opencontainers.image.ref.name": str(record.version)}
    beside = reading.beside() if referrers else []
    documents = {"index.json": index_bytes([structs.replace(top, annotations=named), *beside]), "oci-layout": OCI_LAYOUT}
    runnable = [
        (one.config, one.layers or []) for one in singles if one.config and one.config.media_type in CONTAINER_CONFIG_TYPES
    ]
    if runnable:
        # Docker's classic store takes one image: that of the first platform.
        config, layers = runnable[0]
        documents["manifest.json"] = docker_manifest(config.digest, [layer.digest for layer in layers], name)
    return Contents(reading.blobs, reading.known, documents, runs_in_engines=bool(runnable))


def tar_of(transport: Transport, name: str, contents: Contents, progress: Progress | None = None) -> Iterator[bytes]:
    """The tar in pieces; a blob that arrives with other content ends it with DownloadDamaged, before its end is written."""
    done, total = 0, contents.size_bytes
    for digest, blob in sorted(contents.blobs.items()):
        yield plain_header(blob_path(digest), blob.size)
        for piece in checked_pieces(transport, name, blob, contents.known.get(digest)):
            done += len(piece)
            yield piece
            if progress is not None:
                progress(done, total)
        yield padding(blob.size)
    for path, document in sorted(contents.documents.items()):
        yield plain_header(path, len(document)) + document + padding(len(document))
    yield END_OF_TAR


class _Reading:
    def __init__(self, transport: Transport, record: ImageRecord) -> None:
        self._transport, self._record = transport, record
        self.blobs: dict[str, Descriptor] = {}
        self.known: dict[str, bytes] = {}

    def top(self, platform: str | None) -> Descriptor:
        """The image itself, or the manifest of one platform of it. Raises NoSuchPlatform."""
        record = self._record
        if platform is None or [one.platform for one in record.platforms] == [platform]:
            return self._described(record.digest, record.media_type)
        document = self._document(record.digest)
        offered = document.manifests or []
        found = [one for one in offered if one.platform is not None and str(one.platform) == platform]
        # linux/arm64 is also what another tool calls linux/arm64/v8.
        found += [one for one in offered if one.platform and f"{one.platform}/".startswith(f"{platform}/")]
        if not found:
            have = ", ".join(one.platform for one in record.platforms)
            raise NoSuchPlatform(image=f"{record.name}:{record.version}", platform=platform, have=have)
        return found[0]

    def walk(self, top: Descriptor) -> Iterator[ImageDocument]:
        """Single manifests in their order; every blob on the way is noted, and none is gone through twice."""
        pending = [top]
        while pending:
            one = pending.pop(0)
            if one.digest in self.blobs:
                continue
            self.blobs[one.digest] = one
            document = self._document(one.digest)
            if one.media_type in INDEX_TYPES:
                pending[:0] = document.manifests or []
                continue
            for below in document.below:
                self.blobs.setdefault(below.digest, below)
            yield document

    def beside(self) -> list[Descriptor]:
        """What refers to the manifests that were gone through, and to that, by digest; their blobs are noted."""
        found: dict[str, Descriptor] = {}
        # An index that was only read to find one platform is not among them.
        pending = [digest for digest in self.known if digest in self.blobs]
        while pending:
            path = f"/v2/{self._record.name}/referrers/{pending.pop()}"
            listed = self._transport.call("GET", path, Index).manifests
            fresh = [one for one in listed if one.digest not in self.blobs]
            for one in fresh:
                found[one.digest] = one
                for _ in self.walk(one):
                    pass
            pending += [one.digest for one in fresh]
        return [found[digest] for digest in sorted(found)]

    def _described(self, digest: str, media_type: str) -> Descriptor:
        self._document(digest)
        return Descriptor(media_type=media_type, digest=digest, size=len(self.known[digest]))

    def _document(self, digest: str) -> ImageDocument:
        data = self.known.get(digest)
        if data is None:
            data = self.known[digest] = again(lambda: self._fetched(digest))
        try:
            return read_image_document(data)
        except ValueError as problem:
            raise DownloadDamaged(path=f"manifest {digest}", found=f"no manifest ({problem})", expected="one") from None

    def _fetched(self, digest: str) -> bytes:
        data = bytearray()
        for piece in self._transport.download(f"/v2/{self._record.name}/manifests/{digest}"):
            data += piece
            if len(data) > DOCUMENT_BYTES_MAX:
                break
        return _right(bytes(data), digest)


def checked_pieces(transport: Transport, name: str, blob: Descriptor, known: bytes | None) -> Iterator[bytes]:
    """The blob's content (``known``: it is here already); after a break the rest is fetched.

    Raises DownloadDamaged in place of its end.
    """
    if known is not None:
        yield known
        return
    sha, at = hashlib.sha256(), 0
    for piece in _resumed(transport, f"/v2/{name}/blobs/{blob.digest}", blob):
        sha.update(piece)
        at += len(piece)
        yield piece
    found = f"sha256:{sha.hexdigest()}"
    if found != blob.digest or at != blob.size:
        raise DownloadDamaged(path=f"blob {blob.digest}", found=f"{found}, {at} bytes", expected=f"{blob.size} bytes")


def _resumed(transport: Transport, path: str, blob: Descriptor) -> Iterator[bytes]:
    """The content, asked for again from where a connection broke; the last error is raised when nothing more comes."""
    at, failures = 0, 0
    while at < blob.size:
        begun = at
        try:
            for piece in transport.download_range(path, at, blob.size, blob.digest):
                at += len(piece)
                yield piece
        except (ServerUnreachable, ApiError) as problem:
            failures = failures + 1 if at == begun else 0
            if failures == _ATTEMPTS or (isinstance(problem, ApiError) and problem.problem.code != _BUSY):
                raise
            threading.Event().wait(_BACKOFF.delay_s(failures, random.random))


def _right(data: bytes, digest: str) -> bytes:
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != digest:
        raise DownloadDamaged(path=f"manifest {digest}", found=found, expected=digest)
    return data
