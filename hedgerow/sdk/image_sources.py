"""Where an image that is to be served lies: a layout folder, a tar of one, or the workspace. Each gives content by digest.

Nothing is trusted: documents and layers are checked against their digests while they are read, whoever wrote them down.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.oci import Descriptor, read_image_document
from hedgerow.contracts.oci_layout import blob_path
from hedgerow.safe_tar import BoundedTarInfo
from hedgerow.sdk.errors import ImageNotServable
from hedgerow.sdk.image_tar import DOCUMENT_BYTES_MAX, Contents, checked_pieces
from hedgerow.sdk.transport import CHUNK_BYTES, Transport

INDEX_FILE = "index.json"
_MEMBERS_MAX = 100_000
_AGAIN = "Fetch or export it again: hedgerow image export REF FILE.tar"
_HOW = "Give NAME[:VERSION], a tar of `hedgerow image export`, an OCI layout, or a folder that holds hedgerow.json."


class ImageSource(Protocol):
    """A place that gives content by digest."""

    @property
    def where(self) -> str:
        """What it is called in sentences."""
        ...

    def tops(self) -> list[Descriptor]:
        """The images (and what lies beside them) that it has. Raises ImageNotServable."""
        ...

    def pieces(self, blob: Descriptor) -> Iterator[bytes]:
        """A blob's bytes, not checked yet. Raises ImageNotServable (it is not there), OSError."""
        ...


@dataclass(frozen=True)
class LayoutFolder:
    """An OCI image layout on the disk."""

    folder: Path
    where: str

    def tops(self) -> list[Descriptor]:
        with _regular(self.folder / INDEX_FILE, self.where) as file:
            return _index(file.read(DOCUMENT_BYTES_MAX + 1), self.where)

    def pieces(self, blob: Descriptor) -> Iterator[bytes]:
        with _regular(self.folder / blob_path(blob.digest), self.where) as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece


class LayoutTar:
    """A plain tar of an OCI layout, read where it lies. Raises ImageNotServable for one that is none."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self.where = where
        try:
            self._tar = tarfile.open(fileobj=file, mode="r:", tarinfo=BoundedTarInfo)  # noqa: SIM115 - ends with the file
            self._members = {member.name.removeprefix("./"): member for member in self._read() if member.isreg()}
        except tarfile.TarError as problem:
            raise refused(where, f"it is no tar, or a damaged one ({problem})", _AGAIN) from None
        if INDEX_FILE not in self._members:
            raise refused(where, f"it is a tar without {INDEX_FILE}, so it holds no OCI layout", _AGAIN)

    def _read(self) -> Iterator[tarfile.TarInfo]:
        count = 0
        while (member := self._tar.next()) is not None:
            count += 1
            if count > _MEMBERS_MAX:
                raise tarfile.ReadError(f"more than {_MEMBERS_MAX} members")
            yield member

    def tops(self) -> list[Descriptor]:
        return _index(self._open(INDEX_FILE).read(DOCUMENT_BYTES_MAX + 1), self.where)

    def pieces(self, blob: Descriptor) -> Iterator[bytes]:
        content = self._open(blob_path(blob.digest))
        try:
            while piece := content.read(CHUNK_BYTES):
                yield piece
        except tarfile.ReadError:
            return  # cut off: it is too short, which whoever checks it says

    def _open(self, name: str) -> IO[bytes]:
        member = self._members.get(name)
        content = self._tar.extractfile(member) if member is not None else None
        if content is None:
            raise refused(self.where, f"it lacks {name}", _AGAIN)
        return content


@dataclass(frozen=True)
class RecordedImage:
    """An image of the workspace; of its layers only those are fetched that are asked for."""

    transport: Transport
    record: ImageRecord
    contents: Contents

    @property
    def where(self) -> str:
        return f"{self.record.name}:{self.record.version}"

    def tops(self) -> list[Descriptor]:
        return [self.contents.blobs[self.record.digest]]

    def pieces(self, blob: Descriptor) -> Iterator[bytes]:
        return checked_pieces(self.transport, self.record.name, blob, self.contents.known.get(blob.digest))


class CheckedBlob:
    """A blob as a stream that checks itself: ``read`` raises ImageNotServable where its end would be when it is another one."""

    def __init__(self, source: ImageSource, blob: Descriptor) -> None:
        self._where, self._blob, self._pieces = source.where, blob, source.pieces(blob)
        self._sha, self._size, self._rest = hashlib.sha256(), 0, b""

    def read(self, size: int = -1) -> bytes:
        while not self._rest and (piece := next(self._pieces, None)) is not None:
            self._sha.update(piece)
            self._size += len(piece)
            if self._size > self._blob.size:
                break
            self._rest = piece
        if not self._rest and (self._size != self._blob.size or f"sha256:{self._sha.hexdigest()}" != self._blob.digest):
            raise refused(self._where, f"the content of blob {self._blob.digest} is not what its digest says", _AGAIN)
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        return taken


def read_document(source: ImageSource, blob: Descriptor) -> bytes:
    """A manifest, an index or a config, whole. Raises ImageNotServable."""
    if blob.size > DOCUMENT_BYTES_MAX:
        raise refused(source.where, f"its document {blob.digest} has {blob.size} bytes", _AGAIN)
    checked, data = CheckedBlob(source, blob), bytearray()
    while piece := checked.read():
        data += piece
    return bytes(data)


def refused(what: object, problem: str, advice: str = _HOW) -> ImageNotServable:
    return ImageNotServable(what=what, problem=problem, advice=advice)


def _index(data: bytes, where: str) -> list[Descriptor]:
    try:
        if len(data) <= DOCUMENT_BYTES_MAX:
            return read_image_document(data).manifests or []
        problem = "it is too long"
    except ValueError as wrong:
        problem = str(wrong)
    raise refused(where, f"its {INDEX_FILE} cannot be read ({problem})", _AGAIN)


def _regular(path: Path, where: str) -> IO[bytes]:
    # Opening a pipe would wait for ever.
    if not path.is_file():
        raise refused(where, f"it lacks {path.name if path.name == INDEX_FILE else f'blob sha256:{path.name}'}", _AGAIN)
    return path.open("rb")
