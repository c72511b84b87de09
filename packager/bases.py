"""Brings a base image into the cache, layers as they are: `docker:TAG`, `oci:FOLDER` or `docker-archive:FILE`.

A base is pinned by digest: of its manifest for an OCI layout, of its config (the "image id") for the other two, because a
docker-archive has no manifest. Nothing is unpacked; the layers are only searched once for the Python that they bring.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP
from hedgerow.safe_tar import BoundedTarInfo
from packager.blobs import CHUNK_BYTES, DOCUMENT_BYTES_MAX, BlobFolder, file_chunks
from packager.engine import ContainerEngine
from packager.errors import BaseUnreadable, BaseUnsupported, EngineMissing
from packager.gunzip import Gunzip
from packager.layer_cache import LayerCache
from packager.oci_documents import Descriptor, ImageConfig, Platform, read_foreign
from packager.oci_layout import find_manifest, read_manifest
from packager.tar_layer import MEDIA_OCI_LAYER_TAR

log = logging.getLogger(__name__)
MEDIA_OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
_DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
# PATH order of the usual bases: what stands first is what `python3` means.
_PYTHONS = ("usr/local/bin/python3", "usr/bin/python3")
UNKNOWN_PYTHON = "an unknown Python"
NO_PYTHON = "no python3"


@dataclass(frozen=True)
class BaseImage:
    """A base whose layers are in the cache. ``python`` is `Python 3.11`, UNKNOWN_PYTHON or NO_PYTHON."""

    digest: str
    config: ImageConfig
    layers: tuple[Descriptor, ...]
    python: str


class _ArchiveEntry(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: list[str]


def fetch_base(reference: str, platform: Platform, cache: LayerCache, engine: Callable[[], ContainerEngine | None]) -> BaseImage:
    """The base that ``reference`` names.

    Raises BaseUnsupported, BaseUnreadable, BlobCorrupt, DiskFull; EngineMissing for `docker:` when no engine answers.
    """
    scheme, _, rest = reference.partition(":")
    if not rest or scheme not in ("oci", "docker-archive", "docker"):
        raise BaseUnsupported(base=reference)
    if scheme == "oci":
        return _from_layout(Path(rest), platform, cache)
    if scheme == "docker-archive":
        return _from_archive(Path(rest), cache)
    connected = engine()
    if connected is None:
        raise EngineMissing(what=f"the base image {reference}")
    return _from_engine(rest, connected, cache)


def _from_layout(layout: Path, platform: Platform, cache: LayerCache) -> BaseImage:
    found = find_manifest(layout, platform)
    if known := _known(cache, found.digest):
        return known
    source = BlobFolder(layout)
    manifest = read_manifest(source, found.digest)
    config = read_foreign(source.read(manifest.config.digest), ImageConfig, str(layout))
    for layer in manifest.layers:
        if not source.path(layer.digest).is_file():
            raise BaseUnreadable(base=layout, problem=f"its layer {layer.digest} is missing")
        cache.blobs.add(file_chunks(source.path(layer.digest)), expected=layer.digest, where=layout)
    return _keep(cache, found.digest, str(layout), config, [_plain(layer) for layer in manifest.layers])


def _from_archive(archive: Path, cache: LayerCache, known_as: str | None = None) -> BaseImage:
    with _opened(archive) as tar:
        entries = read_foreign(_document(tar, "manifest.json", archive), list[_ArchiveEntry], str(archive))
        if len(entries) != 1:
            raise BaseUnreadable(base=archive, problem=f"it holds {len(entries)} images, not one")
        raw = _document(tar, entries[0].config, archive)
        digest = known_as or digest_of(raw)
        if known := _known(cache, digest):
            return known
        config = read_foreign(raw, ImageConfig, str(archive))
        if len(entries[0].layers) != len(config.rootfs.diff_ids):
            raise BaseUnreadable(base=archive, problem="its config and its layers do not agree")
        layers = [
            _take_layer(cache.blobs, _member(tar, name, archive), diff_id, archive)
            for name, diff_id in zip(entries[0].layers, config.rootfs.diff_ids, strict=True)
        ]
    return _keep(cache, digest, str(archive), config, layers)


def _from_engine(tag: str, engine: ContainerEngine, cache: LayerCache) -> BaseImage:
    image_id = engine.image_id(tag)
    if known := _known(cache, image_id):
        return known
    log.info("saving base image %s (%s) out of the engine", tag, image_id)
    saved = BlobFolder(cache.scratch)
    blob = saved.add(engine.save(image_id))
    try:
        return _from_archive(saved.path(blob.digest), cache, known_as=image_id)
    finally:
        saved.path(blob.digest).unlink()


def _known(cache: LayerCache, digest: str) -> BaseImage | None:
    base = cache.find("base", digest, BaseImage)
    return base if base and all(cache.blobs.holds(layer.digest) for layer in base.layers) else None


def _keep(cache: LayerCache, digest: str, where: str, config: ImageConfig, layers: list[Descriptor]) -> BaseImage:
    if len(layers) != len(config.rootfs.diff_ids):
        raise BaseUnreadable(base=where, problem="its config and its layers do not agree")
    base = BaseImage(digest, config, tuple(layers), _find_python(cache.blobs.path(layer.digest) for layer in layers))
    cache.keep("base", digest, base)
    return base


def _plain(layer: Descriptor) -> Descriptor:
    media_type = MEDIA_OCI_LAYER_GZIP if layer.media_type == _DOCKER_LAYER_GZIP else layer.media_type
    return Descriptor(media_type=media_type, digest=layer.digest, size=layer.size)


def _take_layer(blobs: BlobFolder, member: IO[bytes], diff_id: str, archive: Path) -> Descriptor:
    """One pass: store the layer and check that its uncompressed bytes are those that the config names."""
    head = member.read(CHUNK_BYTES)
    media_type, plain = _layer_type(head), hashlib.sha256()
    unpack: Callable[[bytes], Iterable[bytes]] = Gunzip().feed if media_type == MEDIA_OCI_LAYER_GZIP else _as_it_is

    def passing() -> Iterator[bytes]:
        chunk = head
        while chunk:
            for piece in unpack(chunk):
                plain.update(piece)
            yield chunk
            chunk = member.read(CHUNK_BYTES)
        # The standard library of this Python cannot unpack zstd; the engine that pulls the image checks that one.
        if media_type != MEDIA_OCI_LAYER_ZSTD and "sha256:" + plain.hexdigest() != diff_id:
            raise BaseUnreadable(base=archive, problem=f"a layer is not what its config says ({diff_id})")

    try:
        blob = blobs.add(passing())
    except (zlib.error, tarfile.TarError) as problem:
        raise BaseUnreadable(base=archive, problem=str(problem)) from problem
    return Descriptor(media_type=media_type, digest=blob.digest, size=blob.size_bytes)


def _layer_type(head: bytes) -> str:
    if head.startswith(b"\x1f\x8b"):
        return MEDIA_OCI_LAYER_GZIP
    return MEDIA_OCI_LAYER_ZSTD if head.startswith(b"\x28\xb5\x2f\xfd") else MEDIA_OCI_LAYER_TAR


def _as_it_is(chunk: bytes) -> Iterable[bytes]:
    return (chunk,)


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    if not archive.is_file():  # opening a pipe would wait for ever
        raise BaseUnreadable(base=archive, problem="there is no such file")
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


def _find_python(layers: Iterable[Path]) -> str:
    found: dict[str, str] = {}
    for layer in layers:
        try:
            with tarfile.open(layer, mode="r:*", tarinfo=BoundedTarInfo) as tar:
                found |= {path: _python_version(member) for member in tar if (path := _normal(member.name)) in _PYTHONS}
        except (OSError, EOFError, zlib.error, tarfile.TarError):
            return UNKNOWN_PYTHON
    return next((found[path] for path in _PYTHONS if path in found), NO_PYTHON)


def _python_version(member: tarfile.TarInfo) -> str:
    target = PurePosixPath(member.linkname).name if member.issym() else ""
    version = target.removeprefix("python")
    return f"Python {version}" if version != target and version.startswith("3.") else UNKNOWN_PYTHON


def _normal(name: str) -> str:
    return name.removeprefix("./").removeprefix("/")
