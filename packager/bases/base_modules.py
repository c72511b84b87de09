"""What a base image's own Python can import beside its standard library: a base with PyTorch has it for every script."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path

from packager.bases.base_image import BaseImage
from packager.bases.layer_content import damage, members, unpacked
from packager.cache.layers import LayerCache, cache_key
from packager.scripts.module_names import modules_of_base

log = logging.getLogger(__name__)
_GENERATION = 1


def base_modules(base: BaseImage, cache: LayerCache) -> frozenset[str] | None:
    """The top-level modules in the base's site folders, or None when its layers cannot be looked through."""
    key = cache_key("base-modules", _GENERATION, base.digest)
    known = cache.find("base-modules", key, list[str])
    if known is not None:
        return frozenset(known)
    found: set[str] = set()
    unreadable: tuple[type[Exception], ...] = (*damage(), OSError, tarfile.TarError, ValueError)
    try:
        for layer in base.layers:
            found |= modules_of_base(_names(cache.blobs.path(layer.digest)))
    except unreadable as problem:
        log.warning("the base image %s cannot be looked through: %s", base.digest, problem)
        return None
    cache.keep("base-modules", key, sorted(found))
    return frozenset(found)


def _names(layer: Path) -> Iterator[str]:
    with unpacked(layer) as content:
        for member in members(content):
            yield member.name
