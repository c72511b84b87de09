"""Reads a layer that somebody else made: its media type by its first bytes, its plain bytes, the members of its tar."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_LAYER_TAR, MEDIA_OCI_LAYER_ZSTD
from hedgerow.safe_tar import BoundedTarInfo
from packager.oci.blobs import CHUNK_BYTES


def type_of_content(head: bytes) -> str:
    """The media type of a layer by its first four bytes."""
    if head.startswith(b"\x1f\x8b"):
        return MEDIA_OCI_LAYER_GZIP
    return MEDIA_OCI_LAYER_ZSTD if head.startswith(b"\x28\xb5\x2f\xfd") else MEDIA_OCI_LAYER_TAR


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The layer's plain bytes; neither gzip nor zstd reads more at once than it is asked for."""
    with path.open("rb") as file, unpacked_stream(file) as content:
        yield content


@contextmanager
def unpacked_stream(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The same of a file that is open and can be sought in."""
    kind = type_of_content(file.read(4))
    file.seek(0)
    if kind == MEDIA_OCI_LAYER_GZIP:
        with gzip.GzipFile(fileobj=file) as content:
            yield cast("IO[bytes]", content)
    elif kind == MEDIA_OCI_LAYER_ZSTD:
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False) as frames:
            yield cast("IO[bytes]", frames)
    else:
        yield file


def damage() -> tuple[type[Exception], ...]:
    """What is raised for packed bytes that cannot be unpacked."""
    import zstandard

    return (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)


def members(content: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, read as a stream: every byte once. Raises tarfile.TarError."""
    with tarfile.open(fileobj=content, mode="r|", tarinfo=BoundedTarInfo, bufsize=CHUNK_BYTES) as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # not in typeshed; it would keep them all
            yield member
