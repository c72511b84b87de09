"""A base whose layers are in the cache, and the record by which it is found there again."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_LAYER_TAR, MEDIA_OCI_LAYER_ZSTD
from hedgerow.contracts.oci import Descriptor, ImageConfig
from packager.bases.python_version import find_python
from packager.cache.layers import LayerCache
from packager.errors import BaseUnreadable

_OCI_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar": MEDIA_OCI_LAYER_TAR,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": MEDIA_OCI_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": MEDIA_OCI_LAYER_ZSTD,
}


class _Settings(msgspec.Struct, frozen=True, rename="pascal"):
    """What of a base's open settings is read here and goes on into ours."""

    env: list[str] | None = None
    labels: dict[str, str] | None = None


@dataclass(frozen=True)
class BaseImage:
    """A base whose layers are in the cache. ``python`` is `Python 3.11`, UNKNOWN_PYTHON or NO_PYTHON."""

    digest: str
    config: ImageConfig
    layers: tuple[Descriptor, ...]
    python: str


def known_base(cache: LayerCache, key: str) -> BaseImage | None:
    """The base of an earlier build, if every layer of it is still here and well."""
    base = cache.find("base", key, BaseImage)
    return base if base and all(cache.holds(layer.digest) for layer in base.layers) else None


def keep_base(
    cache: LayerCache, digest: str, where: str, config: ImageConfig, layers: list[Descriptor], *, key: str | None = None
) -> BaseImage:
    """Look through the layers, which are in the cache, and remember the base as ``key`` (its digest, where that is enough).

    Raises BaseUnreadable: nothing is remembered.
    """
    if len(layers) != len(config.rootfs.diff_ids):
        raise BaseUnreadable(base=where, problem="its config and its layers do not agree")
    try:
        msgspec.convert(config.config or {}, _Settings)
    except msgspec.ValidationError as problem:
        raise BaseUnreadable(base=where, problem=f"its config is none of an image ({problem})") from None
    paths = [cache.blobs.path(layer.digest) for layer in layers]
    for layer, path in zip(layers, paths, strict=True):
        if (found := path.stat().st_size) != layer.size:
            raise BaseUnreadable(base=where, problem=f"its layer {layer.digest} has {found} bytes, not {layer.size}")
    base = BaseImage(digest, config, tuple(layers), find_python(paths, config.rootfs.diff_ids, where))
    cache.keep("base", key or digest, base)
    return base


def as_oci(layer: Descriptor) -> Descriptor:
    """The layer as it stands in our manifest: OCI's name for its type, and nothing that its old manifest said besides."""
    media_type = _OCI_TYPES.get(layer.media_type, layer.media_type)
    return Descriptor(media_type=media_type, digest=layer.digest, size=layer.size)
