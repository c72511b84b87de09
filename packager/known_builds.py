"""Builds that were made before, by the key of their plan: an equal one is linked together from the cache and returned at once."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hedgerow.contracts.build import BuildRequest, BuildResult
from hedgerow.contracts.oci import Descriptor
from packager.cache.layers import LayerCache
from packager.oci.layout import OciLayout

_KIND = "build"


@dataclass(frozen=True)
class KnownBuild:
    """A finished build: its answer, the image, what lies beside it, and every blob of all of them."""

    result: BuildResult
    top: Descriptor
    beside: tuple[Descriptor, ...]
    blobs: tuple[str, ...]


def find_known(key: str, request: BuildRequest, cache: LayerCache) -> KnownBuild | None:
    """The build of that plan, if all of its blobs are still there and it was tested as ``request`` wants it."""
    if request.rebuild:
        return None
    known = cache.find(_KIND, key, KnownBuild)
    if known is None or (request.verify and known.result.verification.state != "passed"):
        return None
    return known if all(cache.holds(digest) for digest in known.blobs) else None


def lay_out(known: KnownBuild, name: str, layout: OciLayout, cache: LayerCache) -> BuildResult:
    """The known build as a layout of its own."""
    for digest in known.blobs:
        layout.blobs.take(cache.blobs, digest)
    layout.seal(known.top, name, known.beside)
    return msgspec.structs.replace(known.result, reused=True)


def keep_known(key: str, known: KnownBuild, layout: OciLayout, cache: LayerCache) -> None:
    """Remember a build that is finished: each of its blobs was written or checked by it.

    Manifests and other documents so far stand in its layout only.
    """
    for digest in known.blobs:
        mine, kept = layout.blobs.path(digest), cache.blobs.path(digest)
        # What stood there before this build was not written by it, and may be damaged.
        if kept.exists() and not mine.samefile(kept) and not cache.holds(digest):
            kept.unlink()
        cache.blobs.take(layout.blobs, digest)
        cache.note(digest)
    cache.keep(_KIND, key, known)
