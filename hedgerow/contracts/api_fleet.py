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
from hedgerow.contracts.twins import ModuleTwin


class EnrollDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /devices``."""

    name: Name
    tags: dict[str, str] = {}


class ChangeDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PATCH /devices/NAME``. A tag with the value None is taken away; the others stay."""

    tags: dict[LabelKey, LabelValue | None]


class Device(Document, frozen=True, kw_only=True):
    """A device as the fleet knows it; ``seen_at`` is the hub's clock.

    ``enrolled_with`` is the enrolment key that it came with, ``NAME (ID)``; empty: a person enrolled it.
    ``key_generation`` counts its keys; while ``wanted_key_generation`` is above it the device should fetch the next one.
    ``unsigned_version`` is a desired state that waits for a signature (0: none does).
    """

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
    enrolled_with: str = ""
    key_generation: int = 1
    wanted_key_generation: int = 0
    unsigned_version: int = 0


class EnrolledDevice(Document, frozen=True, kw_only=True):
    """Answer of ``POST /devices``; ``config`` holds the device's key and is never shown again."""

    device: Device
    config: DeviceConfig


class DeviceTwin(Document, frozen=True, kw_only=True):
    """Answer of ``GET /devices/NAME/twin``: what the device should run and what it says of itself, with its modules' twins."""

    device: KnownName
    desired: DesiredState | None = None
    reported: StatusReport | None = None
    seen_at: Instant | None = None
    modules: dict[KnownName, ModuleTwin] = {}


PlannedAction = Literal["route", "twin", "telemetry", "adjust", "pull", "prove", "stop", "remove", "start", "wait", "upgrade"]


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a device would do, in its order. ``adjust``: the module runs on under changed rules (a probe, a policy).
    ``upgrade``: another release of the agent itself.

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
    agent: bool = False
    steps: list[PlannedStep] = []
    basis: str = ""
    rollout_group: str = ""


class EdgePlanRolloutGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group of the rollout that would begin: how many devices are in it, and the first of their names."""

    name: str
    count: int
    devices: list[KnownName]


class EdgePlanGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that would take the very same steps: how many, and the first of their names."""

    count: int
    devices: list[KnownName]
    steps: list[PlannedStep] = []
    problem: str = ""


class EdgePlan(Document, frozen=True, kw_only=True):
    """Answer of ``PUT /edge-deployments/NAME?dry_run=true``: the devices it targets and those on which something would change.

    ``groups`` are there if steps were asked for; the changes of many devices are then told by group only. ``rollout`` are the
    groups, in their order, through which it would be rolled out (none: to every device at once).
    """

    targeted: list[KnownName]
    changes: list[EdgeChange]
    groups: list[EdgePlanGroup] = []
    rollout: list[EdgePlanRolloutGroup] = []


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
