"""Brings a base image into the cache; here is decided where from.

    docker:TAG               the engine of this machine           base_engine.py
    oci:FOLDER               an OCI image layout                  base_layout.py
    docker-archive:FILE      what `docker save` writes            base_archive.py
    registry:[HOST/]NAME…    somebody's registry; without `registry:` when the first part can only be a host
                                                                  base_registry.py

A base is pinned by digest: of its manifest, whose layers stay as they are; or of its config (the "image id") where there is
no manifest, and then its layers are packed by our own compressor. They are looked through once (``python_version.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hedgerow.contracts.oci import Platform
from hedgerow.contracts.remote_image import names_a_host
from packager.bases.base_archive import from_archive
from packager.bases.base_engine import from_engine
from packager.bases.base_image import BaseImage
from packager.bases.base_layout import from_layout
from packager.bases.python_version import NO_PYTHON, UNKNOWN_PYTHON
from packager.cache.layers import LayerCache
from packager.engine.port import ContainerEngine
from packager.errors import BaseUnsupported, EngineMissing

if TYPE_CHECKING:
    from packager.distribution.access import RemoteAccess

__all__ = ["NO_PYTHON", "UNKNOWN_PYTHON", "BaseImage", "fetch_base"]

Engine = Callable[[], ContainerEngine | None]
Remote = Callable[[], "RemoteAccess"]


def fetch_base(reference: str, platform: Platform, cache: LayerCache, engine: Engine, remote: Remote) -> BaseImage:
    """The base that ``reference`` names. ``engine`` and ``remote`` are asked for only when it lies there.

    Raises BaseUnsupported, BaseUnreadable, BlobCorrupt, DiskFull; EngineMissing for `docker:` when no engine answers;
    for registries EgressRefused and what distribution/errors.py has.
    """
    scheme, rest = _choice(reference)
    if scheme == "oci":
        return from_layout(Path(rest), platform, cache)
    if scheme == "docker-archive":
        return from_archive(Path(rest), cache)
    if scheme == "registry":
        from packager.bases.base_registry import from_registry  # TLS and HTTP: a fifth of the time of an unchanged build

        return from_registry(rest, platform, cache, remote())
    return from_engine(rest, _connected(engine, reference), cache)


def _choice(reference: str) -> tuple[str, str]:
    scheme, _, rest = reference.partition(":")
    if scheme in ("oci", "docker-archive", "docker", "registry"):
        if not rest:
            raise BaseUnsupported(base=reference)
        return scheme, rest
    if names_a_host(reference):
        return "registry", reference
    raise BaseUnsupported(base=reference)


def _connected(engine: Engine, reference: str) -> ContainerEngine:
    connected = engine()
    if connected is None:
        raise EngineMissing(what=f"the base image {reference}")
    return connected
