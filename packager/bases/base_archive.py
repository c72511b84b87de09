"""`docker-archive:FILE`: a base out of what `docker save` writes. It has no manifest, so its digest is its config's.

A config names its layers by their plain bytes, and an archive may hold them packed in any way. They are packed anew, by our
own compressor: the same base is then the same layers, whichever tool saved it.
"""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP
from hedgerow.contracts.oci import Descriptor, ImageConfig
from hedgerow.safe_tar import UNPACKED_BYTES_MAX, BoundedTarInfo
from packager.bases.base_image import BaseImage, keep_base, known_base
from packager.bases.layer_content import damage, unpacked_stream
from packager.cache.layers import LayerCache, cache_key
from packager.errors import BaseUnreadable
from packager.oci.blobs import CHUNK_BYTES, DOCUMENT_BYTES_MAX, BlobFolder
from packager.oci.compress import compressor_name
from packager.oci.documents import read_foreign
from packager.oci.tar_layer import write_layer


class _ArchiveEntry(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: list[str]


def from_archive(archive: Path, cache: LayerCache, known_as: str | None = None) -> BaseImage:
    """``known_as``: the image id, where an engine said it. Raises BaseUnreadable, DiskFull."""
    with _opened(archive) as tar:
        entry, raw = _documents(tar, archive)
        digest = known_as or digest_of(raw)
        if known := base_by_image_id(cache, digest):
            return known
        config = read_foreign(raw, ImageConfig, str(archive))
        if len(entry.layers) != len(config.rootfs.diff_ids):
            raise BaseUnreadable(base=archive, problem="its config and its layers do not agree")
        layers = [_take_layer(cache.blobs, _member(tar, name, archive), archive) for name in entry.layers]
    return keep_base(cache, digest, str(archive), config, layers, key=_record_key(digest))


def base_by_image_id(cache: LayerCache, image_id: str) -> BaseImage | None:
    """The base of an archive, or of an engine, that an earlier build took."""
    return known_base(cache, _record_key(image_id))


def _record_key(image_id: str) -> str:
    return cache_key("archive", image_id, compressor_name(MEDIA_OCI_LAYER_GZIP))


def _documents(tar: tarfile.TarFile, archive: Path) -> tuple[_ArchiveEntry, bytes]:
    entries = read_foreign(_document(tar, "manifest.json", archive), list[_ArchiveEntry], str(archive))
    if len(entries) != 1:
        raise BaseUnreadable(base=archive, problem=f"it holds {len(entries)} images, not one")
    return entries[0], _document(tar, entries[0].config, archive)


def _take_layer(blobs: BlobFolder, member: IO[bytes], archive: Path) -> Descriptor:
    """Whether it is what the config says is seen when the base is looked through."""
    stored = write_layer(blobs, "base", MEDIA_OCI_LAYER_GZIP, _plain_chunks(member, archive))
    return Descriptor(media_type=stored.media_type, digest=stored.digest, size=stored.size_bytes)


def _plain_chunks(member: IO[bytes], archive: Path) -> Iterator[bytes]:
    left = UNPACKED_BYTES_MAX
    unreadable: tuple[type[Exception], ...] = (*damage(), OSError, tarfile.TarError)
    try:
        with unpacked_stream(member) as content:
            while chunk := content.read(CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise BaseUnreadable(base=archive, problem=f"a layer unpacks to more than {UNPACKED_BYTES_MAX} bytes")
                yield chunk
    except unreadable as problem:
        raise BaseUnreadable(base=archive, problem=f"a layer cannot be read ({problem})") from problem


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    if not archive.is_file():  # opening a pipe would wait for ever
        raise BaseUnreadable(base=archive, problem="it is no regular file" if archive.exists() else "there is no such file")
    with contextlib.ExitStack() as stack:
        try:
            tar = stack.enter_context(tarfile.open(archive, mode="r:", tarinfo=BoundedTarInfo))
        except (OSError, tarfile.TarError) as problem:
            raise BaseUnreadable(base=archive, problem=str(problem)) from problem
        yield tar


def _document(tar: tarfile.TarFile, name: str, archive: Path) -> bytes:
    data = _member(tar, name, archive).read(DOCUMENT_BYTES_MAX + 1)
    if len(data) > DOCUMENT_BYTES_MAX:
        raise BaseUnreadable(base=archive, problem=f"its {name} is larger than {DOCUMENT_BYTES_MAX} bytes")
    return data


def _member(tar: tarfile.TarFile, name: str, archive: Path) -> IO[bytes]:
    # Docker writes equal layers once and links to them by name; extractfile follows such links within the archive only.
    try:
        member = tar.extractfile(name)
    except (KeyError, OSError, tarfile.TarError, RecursionError) as problem:
        raise BaseUnreadable(base=archive, problem=f"it has no {name} that can be read") from problem
    if member is None:
        raise BaseUnreadable(base=archive, problem=f"its {name} is no file")
    return member
