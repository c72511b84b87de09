"""EnvironmentLock: the exact wheels of a Python environment for one platform. Written by the packager."""

from __future__ import annotations

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.names import Digest, KnownName, Version


class LockedPackage(msgspec.Struct, frozen=True, kw_only=True):
    """One package with every hash that the lock accepts (``sha256:…``)."""

    name: str
    version: str
    hashes: list[str]


class EnvironmentLock(Document, frozen=True, kw_only=True):
    """What ``uv pip compile --generate-hashes`` decided for one Python and one platform."""

    python_version: str
    platform: str
    requirements: list[str]
    packages: list[LockedPackage]
    digest: Digest


class Environment(Document, frozen=True, kw_only=True):
    """A registered environment version: what was asked for; locks are made per platform when an image is built.

    ``conda_packages`` are those of a conda file that are not Python itself and do not come from pip, as written there
    (``numpy=1.26``), for a build to map to wheels; ``channels`` are the file's. ``digest`` covers all but name and version.
    """

    name: KnownName
    version: Version
    python_version: str = "3.11"
    requirements: list[str] = []
    conda_packages: list[str] = []
    channels: list[str] = []
    variables: dict[str, str] = {}
    digest: Digest
    created_at: Instant
