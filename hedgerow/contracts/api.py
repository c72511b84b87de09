"""Requests and answers of the REST API below ``/api/v1``, shared by server and SDK. Lists answer ``Page`` objects."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

import msgspec

from hedgerow.contracts.convert import Quantize
from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.model import DataRef, FileEntry, RelativePath, SourceCommit, TensorSpec
from hedgerow.contracts.names import SCOPE_PATTERN, Digest, KnownName, Name, Version
from hedgerow.contracts.service import DeploymentSettings, Percent

T = TypeVar("T")
Role = Literal["owner", "contributor", "reader", "puller", "device", "run"]
LabelKey = Annotated[str, msgspec.Meta(min_length=1, max_length=250)]
LabelValue = Annotated[str, msgspec.Meta(max_length=8000)]
Labels = dict[LabelKey, LabelValue]
# ``models:iris``, ``models:team-a.*`` or ``models:*``: a noun of the API, and a name or the beginning of names.
Scope = Annotated[str, msgspec.Meta(pattern=SCOPE_PATTERN)]


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list; ``next`` is the ``after`` of the following page, None at the end."""

    items: list[T]
    next: str | None = None


class RoleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the control plane: ``pid`` is None when nothing holds its lock."""

    role: str
    pid: int | None


class WorkspaceInfo(Document, frozen=True, kw_only=True):
    """Answer of ``GET /workspace``."""

    workspace_id: str
    incarnation: str
    hedgerow_version: str
    url: str
    broker_url: str
    roles: list[RoleStatus]


class RegisterModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /models``. Every file's blob must have been uploaded (``PUT /blobs/DIGEST``) before, or stand in ``inline``.

    ``inline`` maps digests to content (base64) and saves small models a request for each file; ``aliases`` point at the
    new version from the moment that it is visible.
    """

    name: Name
    files: Annotated[list[FileEntry], msgspec.Meta(min_length=1)]
    framework: Annotated[str, msgspec.Meta(max_length=100)] = "custom"
    framework_version: Annotated[str, msgspec.Meta(max_length=100)] | None = None
    description: Annotated[str, msgspec.Meta(max_length=10_000)] = ""
    tags: Labels = {}
    properties: Labels = {}
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    sample_input: FileEntry | None = None
    run_id: str | None = None
    source: SourceCommit | None = None
    data: list[DataRef] = []
    aliases: list[Name] = []
    inline: dict[Digest, bytes] = {}


class ChangeModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PATCH /models/REF``. A tag with the value None is taken away; properties can be added, never changed."""

    description: Annotated[str, msgspec.Meta(max_length=10_000)] | None = None
    tags: dict[LabelKey, LabelValue | None] = {}
    properties: Labels = {}


class ConvertModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /models/REF/convert``, answers an Activity of kind ``model.convert``: the model as ONNX, registered as ``name``.

    ``name`` None: the model's own with ``-onnx`` behind it. The other fields mean what they mean in a ConvertRequest
    (``contracts/convert.py``); ``tags`` are those of the version that is made.
    """

    name: Name | None = None
    entry: RelativePath | None = None
    quantize: Quantize = "none"
    opset: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    accuracy_loss_max: Annotated[float, msgspec.Meta(ge=0)] = 0.01
    atol: Annotated[float, msgspec.Meta(ge=0)] = 1e-4
    rtol: Annotated[float, msgspec.Meta(ge=0)] = 1e-3
    tags: Labels = {}


class SetAlias(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PUT /models/NAME/aliases/ALIAS``. Moving, unprotecting or removing a protected alias needs the role owner."""

    version: Version
    protected: bool | None = None


class ModelAlias(msgspec.Struct, frozen=True, kw_only=True):
    """A name for one version of a model that can be moved (``iris@champion``)."""

    name: KnownName
    alias: Name
    version: Version
    protected: bool
    revision: int
    updated_at: Instant
    updated_by: str


class CreateEnvironment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /environments``: from ``requirements`` or from ``conda_file``, the text of a conda YAML file, not both.

    ``python_version`` None: the conda file's, else 3.11. Lines of ``requirements`` are those of a requirements.txt.
    """

    name: Name
    python_version: str | None = None
    requirements: list[Annotated[str, msgspec.Meta(max_length=2000)]] = []
    conda_file: Annotated[str, msgspec.Meta(max_length=512 * 1024)] | None = None
    variables: dict[str, str] = {}


class DeployImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PUT /endpoints/E/deployments/D``, answers an Activity of kind ``service.deploy``."""

    image: str
    settings: DeploymentSettings = DeploymentSettings()


class SetTraffic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PUT /endpoints/E/traffic``; ``revision`` is the one the caller saw (optimistic lock)."""

    traffic: dict[str, Percent]
    revision: int


class SubmitRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /runs``, answers a Run. ``snapshot`` are the source folder's files, uploaded as blobs before.

    A value ``secret:NAME`` in ``variables`` stands for the value of that secret, which only the script sees.
    """

    experiment: Name
    script: RelativePath
    arguments: list[str] = []
    snapshot: Annotated[list[FileEntry], msgspec.Meta(min_length=1)]
    variables: dict[str, str] = {}
    source: SourceCommit | None = None
    data: list[DataRef] = []


class LoggedMetric(msgspec.Struct, frozen=True, kw_only=True):
    """One value inside ``LogToRun``."""

    name: str
    value: float
    step: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] = 0


class LogToRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /runs/ID/log`` with the run's own token."""

    metrics: list[LoggedMetric] = []
    parameters: dict[str, str] = {}


class CreateToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /tokens``; ``expires_in_s`` None means never, no ``scopes`` everything that the role may."""

    name: Name
    role: Role
    scopes: list[Scope] = []
    expires_in_s: Annotated[int, msgspec.Meta(ge=1)] | None = None


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret; ``secret`` is filled in the answer to its creation only."""

    id: str
    name: KnownName
    role: Role
    scopes: list[str] = []
    created_by: str = ""
    created_at: Instant
    expires_at: Instant | None = None
    revoked_at: Instant | None = None
    last_used_at: Instant | None = None
    secret: str | None = None


class BlobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``PUT /blobs/DIGEST``; until ``leased_until`` a garbage collection leaves it alone."""

    digest: Digest
    size_bytes: int
    leased_until: Instant


class AskForBlobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /blobs/missing``: which of these are not stored. Those that are get a new lease."""

    digests: Annotated[list[Digest], msgspec.Meta(min_length=1, max_length=10_000)]


class MissingBlobs(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``POST /blobs/missing``."""

    missing: list[Digest]


class BlobChunks(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /blobs/DIGEST/chunks``: sha256 (hex) of each ``chunk_bytes`` of the content, the last one shorter."""

    digest: Digest
    size_bytes: int
    chunk_bytes: int
    hashes: list[str]


class BlobBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``POST /blobs/batch``, whose body is a row of contents, each after its digest (32 bytes) and size (8 bytes)."""

    count: int
    size_bytes: int
    leased_until: Instant


class FreedBlob(msgspec.Struct, frozen=True, kw_only=True):
    """One blob inside ``CollectedGarbage``."""

    digest: Digest
    size_bytes: int


class CollectedGarbage(msgspec.Struct, frozen=True, kw_only=True):
    """What a garbage collection freed, or would free (``dry_run``). It stands as text values in its activity's ``result``.

    ``leftovers`` are remains of uploads that were cut off; ``first`` are at most 20 of the blobs.
    """

    blobs: int = 0
    size_bytes: int = 0
    leftovers: int = 0
    leftover_bytes: int = 0
    dry_run: bool = False
    first: list[FreedBlob] = []


class CollectGarbage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /gc``, answers an Activity of kind ``blobs.collect``."""

    dry_run: bool = False


class PutSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PUT /secrets/NAME``."""

    value: Annotated[str, msgspec.Meta(min_length=1, max_length=64 * 1024)]


class SecretInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A secret without its value, which no answer ever holds."""

    name: Name
    key_id: str
    revision: int
    created_at: Instant
    updated_at: Instant
    updated_by: str


class RotatedVault(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``POST /secrets/rotate-key``: the new key's id and how many sealed values were sealed anew."""

    key_id: str
    resealed: int
