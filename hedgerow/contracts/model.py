"""ModelManifest: what a registered model version is. Written by the registry; read by packager and runtime."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from hedgerow.contracts.document import Document, Instant, digest_of
from hedgerow.contracts.names import Digest, KnownName, Name, Version

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
# Relative, '/'-separated, without '..', '.' or empty parts; checked again wherever a path meets a file system.
RelativePath = Annotated[str, msgspec.Meta(pattern=r"^(?!/)(?!.*(^|/)\.{0,2}(/|$))[^\x00-\x1f\\]+$(?!\n)", max_length=1024)]


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a model: where it stands inside the model's folder and the blob that holds its bytes."""

    path: RelativePath
    digest: Digest
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output in the words of the Open Inference Protocol; -1 in ``shape`` means "any length"."""

    name: str
    datatype: Datatype
    shape: list[int]


class DataRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set that something was made from: its name and the digest of its content, wherever that lies."""

    name: Name
    digest: Digest
    uri: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class SourceCommit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version-control state of the code; ``dirty`` says that there were changes beside the commit."""

    commit: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{7,64}$(?!\n)")]
    repository: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    branch: Annotated[str, msgspec.Meta(max_length=250)] = ""
    dirty: bool = False


class MlflowFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an ``MLmodel`` file says: its flavours with their facts, and where MLflow knows the model from.

    ``not_read`` says in sentences what the folder also holds that has no place here (a column of dates, a conda file that
    names other files).
    """

    flavors: dict[str, dict[str, str]]
    run_id: str | None = None
    model_uuid: str | None = None
    mlflow_version: str | None = None
    not_read: list[str] = []


class AskedEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """The environment that a model folder asks for (MLflow's conda.yaml or requirements.txt), not yet registered."""

    python_version: str | None = None
    requirements: list[str] = []
    conda_packages: list[str] = []
    channels: list[str] = []


class ModelManifest(Document, frozen=True, kw_only=True):
    """A model version. ``digest`` covers the file list only, so equal content is recognised under any name.

    Files, framework, run, source and data never change; tags and description may, properties may be added, and each
    such change counts ``revision`` up. ``aliases`` are filled in answers; the stored document has none.
    """

    name: KnownName
    version: Version
    digest: Digest
    files: list[FileEntry]
    framework: str = "custom"
    framework_version: str | None = None
    description: str = ""
    tags: dict[str, str] = {}
    properties: dict[str, str] = {}
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    sample_input: FileEntry | None = None
    run_id: str | None = None
    source: SourceCommit | None = None
    data: list[DataRef] = []
    mlflow: MlflowFacts | None = None
    environment: AskedEnvironment | None = None
    aliases: list[str] = []
    revision: int = 1
    created_at: Instant


def digest_of_files(files: Iterable[FileEntry]) -> str:
    """Content digest of a model: canonical JSON of its files, sorted by path."""
    return digest_of(msgspec.json.encode(sorted(files, key=lambda entry: entry.path), order="sorted"))
