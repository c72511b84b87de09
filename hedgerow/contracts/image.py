"""ImageRecord (packager to registry) and ScoringConfig (the file inside every image that tells the runtime what to serve)."""

from __future__ import annotations

from typing import Literal

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.model import RelativePath, TensorSpec
from hedgerow.contracts.names import Digest, KnownName, Version

ImageKind = Literal["onnx", "docker", "fpga"]

# Where a built image keeps its parts, relative to the image's root (`/opt/hedgerow` in a container).
SCORING_CONFIG_FILE = "hedgerow.json"
PARITY_FILE = "parity.npz"


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """The model version that went into an image."""

    name: KnownName
    version: Version
    digest: Digest


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model inside an image: ``path`` is its folder, ``entry`` the file that onnxruntime opens (None: the script does)."""

    name: KnownName
    version: Version
    digest: Digest
    path: RelativePath
    entry: RelativePath | None = None
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    batchable: bool = False


class ScoringConfig(Document, frozen=True, kw_only=True):
    """``hedgerow.json``: models to serve, and the scoring script if there is one."""

    models: list[ServedModel]
    script: RelativePath | None = None
    source: RelativePath | None = None
    variables: dict[str, str] = {}


class PlatformImage(msgspec.Struct, frozen=True, kw_only=True):
    """One platform of an image (``linux/amd64``; ``any`` for an ONNX artifact, which has no machine code)."""

    platform: str
    digest: Digest
    size_bytes: int


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What the test before "built" found; measured once and stored beside the image, never in it.

    ``batchable`` names the models whose rows, alone and together, gave the same answers.
    """

    state: Literal["passed", "skipped"]
    reason: str
    rows: int = 0
    max_abs_error: float | None = None
    tolerance: float | None = None
    latency_ms: float | None = None
    batchable: list[str] = []


class ImageRecord(Document, frozen=True, kw_only=True):
    """An image version, addressed by ``digest`` (the OCI manifest's, or the index's when there are several platforms).

    ``environment`` is the ``name:version`` that its script was packed for. Only tags change, which counts ``revision`` up.
    """

    name: KnownName
    version: Version
    kind: ImageKind
    digest: Digest
    media_type: str
    size_bytes: int
    platforms: list[PlatformImage]
    models: list[ModelRef]
    script_digest: Digest | None = None
    lock_digest: Digest | None = None
    base: str | None = None
    base_digest: Digest | None = None
    environment: str | None = None
    tool_version: str
    tags: dict[str, str] = {}
    revision: int = 1
    verification: Verification | None = None
    created_at: Instant
