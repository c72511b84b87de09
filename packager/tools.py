"""What a build is given (`Tools`, from the composition root), and the place where one build works with it (`Workshop`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hedgerow.clock import Clock
from packager.cache.layers import LayerCache
from packager.engine.port import ContainerEngine
from packager.environment.uv_command import Uv
from packager.oci.layout import OciLayout
from packager.progress import Report
from packager.verify.prover import Prover

if TYPE_CHECKING:
    from packager.distribution.access import RemoteAccess


@dataclass(frozen=True)
class Tools:
    """What the composition root hands to a build. ``uv``, ``engine`` and ``remote`` are asked for only when a build needs them.

    ``remote`` is how registries of base images are reached. ``sandbox_required``: as root, an image is not tested without a
    user of its own.
    """

    tool_version: str
    default_base: str | None
    ready_timeout_s: float
    sandbox_required: bool
    cache_bytes: int
    uv: Callable[[Path], Uv]
    engine: Callable[[], ContainerEngine | None]
    remote: Callable[[], RemoteAccess]
    prover: Prover
    clock: Clock


@dataclass(frozen=True)
class Workshop:
    """One build under way: where its image is laid out, where its layers are made, what it works with and whom it tells."""

    layout: OciLayout
    cache: LayerCache
    tools: Tools
    report: Report

    @property
    def scratch(self) -> Path:
        """The build's own temporary folder, beside the cache's blobs."""
        return self.cache.scratch
