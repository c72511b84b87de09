"""ImageRecord (packager to registry) and ScoringConfig (the file inside every image that tells the runtime what to serve)."""

from __future__ import annotations

from typing import Literal

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.model import RelativePath, TensorSpec
from hedgerow.contracts.names import Digest, KnownName, Version

ImageKind = Literal["onnx", "docker", "fpga"]
# The stages of an image of kind fpga, in their order.
StageName = Literal["pre", "accelerated", "post"]

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


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of an image of kind fpga: an ONNX file, and the execution providers that it is meant for, the best first.

    ``model`` and ``version`` are those of one of the config's ``models``. ``feeds`` says for each of its inputs which output of
    the stage before goes in; empty for the first stage, whose inputs are the request's.
    """

    name: StageName
    model: KnownName
    version: Version
    entry: RelativePath
    providers: list[str]
    feeds: dict[str, str] = {}


class ScoringConfig(Document, frozen=True, kw_only=True):
    """``hedgerow.json``: models to serve, and the scoring script if there is one.

    With ``stages`` its models are one: served under name and version of the accelerated one, inputs of the first stage,
    outputs of the last.
    """

    models: list[ServedModel]
    stages: list[Stage] = []
    script: RelativePath | None = None
    source: RelativePath | None = None
    variables: dict[str, str] = {}


# The platform of an artifact (kinds onnx and fpga), which has no machine code.
ANY_PLATFORM = "any"


class PlatformImage(msgspec.Struct, frozen=True, kw_only=True):
    """One platform of an image (``linux/amd64``; ``any`` for an ONNX artifact, which has no machine code)."""

    platform: str
    digest: Digest
    size_bytes: int


class Referrer(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that lies beside an image: a manifest whose ``subject`` is the image's manifest or index.

    ``annotations`` are those of its manifest, as the referrers list of the OCI API repeats them.
    """

    digest: Digest
    media_type: str
    artifact_type: str
    size_bytes: int
    subject: Digest
    annotations: dict[str, str] = {}


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What the test before "built" found; measured once and stored beside the image, never in it.

    ``how`` the image ran; ``platform`` is the one that was tested, ``engine_platform`` that of the engine. ``latency_ms`` is the
    median over the rows (of a script: its one call), ``latency_p99_ms`` the 99th percentile. ``peak_memory_bytes`` of a process
    adds up the peaks of its processes; of a container it is what the engine tells. ``batchable`` names the models whose rows,
    alone and together, gave the same answers.
    """

    state: Literal["passed", "skipped"]
    reason: str
    how: Literal["container", "process", "none"] = "none"
    rows: int = 0
    max_abs_error: float | None = None
    tolerance: float | None = None
    latency_ms: float | None = None
    latency_p99_ms: float | None = None
    started_in_s: float | None = None
    peak_memory_bytes: int | None = None
    platform: str | None = None
    engine_platform: str | None = None
    batchable: list[str] = []


class ImageRecord(Document, frozen=True, kw_only=True):
    """An image version, addressed by ``digest`` (the OCI manifest's, or the index's when there are several platforms).

    ``environment`` is the ``name:version`` that its script was packed for; ``plan_key`` stands for everything that decided its
    bytes (``packager/plan_key.py``); ``notes`` are the build's sentences for a person. Only tags change, which counts
    ``revision`` up.
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
    plan_key: Digest | None = None
    notes: list[str] = []
    tags: dict[str, str] = {}
    revision: int = 1
    verification: Verification | None = None
    created_at: Instant
