"""The fleet in the REST API: devices and their twins, what an edge deployment would change, telemetry and gaps."""

from __future__ import annotations

from typing import Literal

import msgspec

from hedgerow.contracts.api import LabelKey, LabelValue
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.names import KnownName, Name
from hedgerow.contracts.status import StatusReport


class EnrollDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /devices``."""

    name: Name
    tags: dict[str, str] = {}


class ChangeDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PATCH /devices/NAME``. A tag with the value None is taken away; the others stay."""

    tags: dict[LabelKey, LabelValue | None]


class Device(Document, frozen=True, kw_only=True):
    """A device as the fleet knows it; ``seen_at`` is the hub's clock."""

    uuid: str
    name: KnownName
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

    device: KnownName
    desired: DesiredState | None = None
    reported: StatusReport | None = None
    seen_at: Instant | None = None


PlannedAction = Literal["route", "twin", "telemetry", "adjust", "pull", "prove", "stop", "remove", "start", "wait"]


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a device would do, in its order. ``adjust``: the module runs on under changed rules (a probe, a policy).

    ``size_bytes`` are those of an image that is pulled, ``new_bytes`` of them the device does not have yet; None: unknown.
    """

    action: PlannedAction
    module: KnownName | None = None
    text: str = ""
    image: str | None = None
    size_bytes: int | None = None
    new_bytes: int | None = None


class EdgeChange(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge deployment would change on one device; ``add``, ``change`` and ``remove`` name modules.

    ``layers`` lie on ``edge_deployment``, lowest first; ``routes`` and ``twins`` (by module) are those that would change, and
    ``telemetry`` says whether its policy would. ``steps`` only if they were asked for, with what they rest upon in ``basis``.
    """

    device: KnownName
    edge_deployment: KnownName | None
    add: list[KnownName] = []
    change: list[KnownName] = []
    remove: list[KnownName] = []
    problem: str = ""
    layers: list[KnownName] = []
    routes: list[str] = []
    twins: list[KnownName] = []
    telemetry: bool = False
    steps: list[PlannedStep] = []
    basis: str = ""


class EdgePlanGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that would take the very same steps: how many, and the first of their names."""

    count: int
    devices: list[KnownName]
    steps: list[PlannedStep] = []
    problem: str = ""


class EdgePlan(Document, frozen=True, kw_only=True):
    """Answer of ``PUT /edge-deployments/NAME?dry_run=true``: the devices it targets and those on which something would change.

    ``groups`` are there if steps were asked for; the changes of many devices are then told by group only.
    """

    targeted: list[KnownName]
    changes: list[EdgeChange]
    groups: list[EdgePlanGroup] = []


class FleetEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a device; ``device`` is its uuid once it was deleted."""

    number: int
    at: Instant
    device: KnownName
    kind: str
    reason: str


class StoredTelemetry(msgspec.Struct, frozen=True, kw_only=True):
    """One telemetry message as the hub stored it; ``body`` is the module's JSON text, ``id`` counts up as messages arrive."""

    id: int = 0
    device: KnownName
    module: KnownName
    epoch: str
    stream: KnownName
    sequence: int
    time_ms: int
    received_ms: int
    historical: bool
    body: str
    properties: dict[str, str] = {}


class RecordedGap(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of a device that will never arrive."""

    device: KnownName
    epoch: str
    stream: KnownName
    first_sequence: int
    last_sequence: int
    reason: str
    recorded_ms: int
