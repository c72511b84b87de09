"""BuildRequest and BuildResult: what crosses to ``python -m packager`` and back; plus its progress lines."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hedgerow.contracts.document import Document
from hedgerow.contracts.image import ImageKind, ModelRef, PlatformImage, Referrer, StageName, Verification
from hedgerow.contracts.model import TensorSpec
from hedgerow.contracts.names import Digest, KnownName, Version
from hedgerow.contracts.work import Problem

# How layers of code and wheels are packed. gzip is read everywhere; zstd by Docker 23, containerd 1.5 and newer.
Compression = Literal["gzip", "zstd"]


class BuildModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model version laid out in ``folder`` (absolute path of this machine, read only). ``stage``: kind fpga only.

    ``sample_input`` is the path of a request body with which the test of an image tries its scoring script.
    """

    ref: ModelRef
    folder: str
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    stage: StageName | None = None
    sample_input: str | None = None


class BuildRequest(Document, frozen=True, kw_only=True):
    """Everything an image is made of. Paths are absolute; ``cache`` is shared between builds, ``out`` is empty.

    ``script`` may also be relative to ``source``. ``allowed_secrets`` are files of ``source`` (relative), and of models
    (``NAME/PATH``), that look like secrets and are wanted in the image all the same; any other such file is refused
    (``contracts/secret_files.py``). ``bases`` are bases of single platforms and win over ``base``. ``conda_packages`` are
    mapped to wheels; what cannot be is named, or with ``dockerfile`` made by an engine. ``rebuild``: make everything anew
    though an equal build is known; ``upgrade``: lock the newest versions that fit, though a lock of the same requirements is
    known.
    """

    name: KnownName
    version: Version
    kind: ImageKind
    models: list[BuildModel]
    script: str | None = None
    source: str | None = None
    allowed_secrets: list[str] = []
    requirements: list[str] = []
    conda_packages: list[str] = []
    channels: list[str] = []
    python_version: str = "3.11"
    variables: dict[str, str] = {}
    platforms: list[str] = msgspec.field(default_factory=lambda: ["linux/amd64"])
    base: str | None = None
    bases: dict[str, str] = {}
    compression: Compression = "gzip"
    dockerfile: bool = False
    verify: bool = True
    rebuild: bool = False
    upgrade: bool = False
    out: str
    cache: str


class FileFact(msgspec.Struct, frozen=True, kw_only=True):
    """A file (absolute path of this machine) outside of the request that an answer rests on; ``seen``: see `file_facts.py`."""

    path: str
    seen: str


class BuildResult(Document, frozen=True, kw_only=True):
    """An OCI image layout in the request's ``out`` folder; ``digest`` names its manifest (or index).

    ``reused``: nothing was made, an equal build (the same ``plan_key``) was known. ``referrers`` lie in the layout too. ``notes``
    are sentences for a person: what of the environment was left out, or is not reproducible. ``rests_on``: the same request
    has the same answer as long as these files are what they were; None: only another build can tell (a tag may have moved).
    """

    digest: Digest
    media_type: str
    size_bytes: int
    platforms: list[PlatformImage]
    script_digest: Digest | None = None
    lock_digest: Digest | None = None
    base: str | None = None
    base_digest: Digest | None = None
    tool_version: str
    plan_key: Digest | None = None
    reused: bool = False
    referrers: list[Referrer] = []
    notes: list[str] = []
    rests_on: list[FileFact] | None = None
    verification: Verification


class ProgressLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of JSON on a worker process's stdout. The last line carries ``result`` or ``problem``.

    ``result`` is the worker's own document (of the packager a BuildResult), to be read with ``document.convert``.
    """

    progress: float | None = None
    step: str = ""
    log: str = ""
    result: dict[str, Any] | None = None
    problem: Problem | None = None
