"""EdgeDeployment (the operator's manifest) and DesiredState (its composition for one device, signed by the workspace)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.names import KnownName
from hedgerow.contracts.service import ImagePin

RestartPolicy = Literal["never", "on-failure", "on-unhealthy", "always"]
DesiredStatus = Literal["running", "stopped"]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
# What the database keeps as a 32-bit integer.
Priority = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

# Same default as IoT Edge: last of all.
LAST_STARTUP_ORDER = 4_294_967_295


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the agent asks a module whether it is well: GET ``path`` on the module's port must answer 200."""

    path: Annotated[str, msgspec.Meta(pattern=r"^/[!-~]*$(?!\n)", max_length=1024)]
    period_s: Seconds = 5.0
    timeout_s: Seconds = 2.0
    failure_threshold: Annotated[int, msgspec.Meta(ge=1)] = 3


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Upper bounds of a module; None means the host's."""

    memory_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None
    cpus: Annotated[float, msgspec.Meta(gt=0)] | None = None
    open_files: Annotated[int, msgspec.Meta(ge=16)] | None = None


class ModuleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A module as the operator writes it. Either ``image`` (a reference) or ``command`` (argv of a process)."""

    kind: Literal["process", "docker"] = "process"
    image: str | None = None
    command: list[str] = []
    variables: dict[str, str] = {}
    status: DesiredStatus = "running"
    restart_policy: RestartPolicy = "always"
    startup_order: Annotated[int, msgspec.Meta(ge=0, le=LAST_STARTUP_ORDER)] = LAST_STARTUP_ORDER
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    probe: Probe | None = None
    limits: Limits = Limits()
    stop_grace_s: Seconds = 10.0
    create_options: dict[str, object] = {}


class EdgeDeployment(Document, frozen=True, kw_only=True):
    """A manifest with a target condition. Among those that match a device, the highest priority wins; ties: the newest."""

    name: KnownName
    target: str
    priority: Priority = 0
    modules: dict[KnownName, ModuleSpec]
    revision: int = 1
    created_at: Instant | None = None


class DesiredModule(msgspec.Struct, frozen=True, kw_only=True):
    """A module as a device receives it: the image is a digest, nothing is left to resolve."""

    spec: ModuleSpec
    image: ImagePin | None = None


class DesiredState(Document, frozen=True, kw_only=True):
    """All that one device should run. Bound to device and incarnation; the device keeps the highest ``version`` it took."""

    device_uuid: str
    version: int
    incarnation: str
    issued_at: Instant
    edge_deployment: KnownName | None
    modules: dict[KnownName, DesiredModule]
