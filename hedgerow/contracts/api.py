"""Requests and answers of the REST API below ``/api/v1``, shared by server and SDK. Lists answer ``Page`` objects."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

import msgspec

from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.image import ImageKind
from hedgerow.contracts.model import FileEntry, RelativePath, TensorSpec
from hedgerow.contracts.names import Digest, Name
from hedgerow.contracts.service import DeploymentSettings, Percent
from hedgerow.contracts.status import StatusReport

T = TypeVar("T")
Role = Literal["owner", "contributor", "reader", "puller", "device", "run"]


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
    """``POST /models``. Every file's blob must have been uploaded (``PUT /blobs/DIGEST``) before."""

    name: Name
    files: Annotated[list[FileEntry], msgspec.Meta(min_length=1)]
    framework: str = "custom"
    framework_version: str | None = None
    description: str = ""
    tags: dict[str, str] = {}
    properties: dict[str, str] = {}
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    run_id: str | None = None


class CreateEnvironment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /environments``."""

    name: Name
    python_version: str = "3.11"
    requirements: list[str] = []
    variables: dict[str, str] = {}


class BuildImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /images``, answers an Activity of kind ``image.build``. ``source`` are files of the scoring source folder."""

    name: Name
    kind: ImageKind = "onnx"
    models: Annotated[list[str], msgspec.Meta(min_length=1)]
    script: RelativePath | None = None
    source: list[FileEntry] = []
    environment: str | None = None
    platforms: list[str] = msgspec.field(default_factory=lambda: ["linux/amd64"])
    base: str | None = None
    verify: bool = True
    tags: dict[str, str] = {}


class DeployImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PUT /endpoints/E/deployments/D``, answers an Activity of kind ``service.deploy``."""

    image: str
    settings: DeploymentSettings = DeploymentSettings()


class SetTraffic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PUT /endpoints/E/traffic``; ``revision`` is the one the caller saw (optimistic lock)."""

    traffic: dict[str, Percent]
    revision: int


class EnrollDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /devices``."""

    name: Name
    tags: dict[str, str] = {}


class Device(Document, frozen=True, kw_only=True):
    """A device as the fleet knows it; ``seen_at`` is the hub's clock."""

    uuid: str
    name: Name
    tags: dict[str, str] = {}
    desired_version: int = 0
    edge_deployment: str | None = None
    reported: StatusReport | None = None
    seen_at: Instant | None = None
    online: bool = False
    enrolled_at: Instant
    revoked_at: Instant | None = None


class EnrolledDevice(Document, frozen=True, kw_only=True):
    """Answer of ``POST /devices``; ``config`` holds the device's key and is never shown again."""

    device: Device
    config: DeviceConfig


class DeviceTwin(Document, frozen=True, kw_only=True):
    """Answer of ``GET /devices/NAME/twin``: what the device should run beside what it says of itself."""

    device: Name
    desired: DesiredState | None = None
    reported: StatusReport | None = None
    seen_at: Instant | None = None


class EdgeChange(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge deployment would change on one device; ``add``, ``change`` and ``remove`` name modules."""

    device: Name
    edge_deployment: Name | None
    add: list[Name] = []
    change: list[Name] = []
    remove: list[Name] = []
    problem: str = ""


class EdgePlan(Document, frozen=True, kw_only=True):
    """Answer of ``PUT /edge-deployments/NAME?dry_run=true``: the devices it targets and those whose modules would change."""

    targeted: list[Name]
    changes: list[EdgeChange]


class FleetEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a device; ``device`` is its uuid once it was deleted."""

    number: int
    at: Instant
    device: Name
    kind: str
    reason: str


class StoredTelemetry(msgspec.Struct, frozen=True, kw_only=True):
    """One telemetry message as the hub stored it; ``body`` is the module's JSON text, ``id`` counts up as messages arrive."""

    id: int = 0
    device: Name
    module: Name
    epoch: str
    stream: Name
    sequence: int
    time_ms: int
    received_ms: int
    historical: bool
    body: str


class RecordedGap(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of a device that will never arrive."""

    device: Name
    epoch: str
    stream: Name
    first_sequence: int
    last_sequence: int
    reason: str
    recorded_ms: int


class SubmitRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /runs``, answers a Run. ``snapshot`` are the source folder's files, uploaded as blobs before."""

    experiment: Name
    script: RelativePath
    arguments: list[str] = []
    snapshot: Annotated[list[FileEntry], msgspec.Meta(min_length=1)]
    variables: dict[str, str] = {}


class LoggedMetric(msgspec.Struct, frozen=True, kw_only=True):
    """One value inside ``LogToRun``."""

    name: str
    value: float
    step: int = 0


class LogToRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /runs/ID/log`` with the run's own token."""

    metrics: list[LoggedMetric] = []
    parameters: dict[str, str] = {}


class CreateToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /tokens``; ``expires_in_s`` None means never."""

    name: Name
    role: Role
    expires_in_s: Annotated[int, msgspec.Meta(ge=1)] | None = None


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret; ``secret`` is filled in the answer to its creation only."""

    id: str
    name: Name
    role: Role
    created_at: Instant
    expires_at: Instant | None = None
    revoked_at: Instant | None = None
    last_used_at: Instant | None = None
    secret: str | None = None


class BlobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``PUT /blobs/DIGEST``."""

    digest: Digest
    size_bytes: int
