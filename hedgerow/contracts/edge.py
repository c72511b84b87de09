"""EdgeDeployment (the operator's manifest) and DesiredState (its composition for one device, signed by the workspace)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hedgerow.contracts.device import TrustedKey
from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.names import Digest, KnownName
from hedgerow.contracts.rollout import RolloutPolicy
from hedgerow.contracts.service import ImagePin

RestartPolicy = Literal["never", "on-failure", "on-unhealthy", "always"]
DesiredStatus = Literal["running", "stopped"]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
# What the database keeps as a 32-bit integer.
Priority = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

# Same default as IoT Edge: last of all.
LAST_STARTUP_ORDER = 4_294_967_295


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the agent asks a module whether it is well (the kinds of Kubernetes, and a heartbeat).

    ``http``: GET ``path`` on the module's port must answer 200. ``tcp``: its port must take a connection. ``exec``: ``command``
    must end with 0, in the module's container or folder. ``heartbeat``: the module must say so itself, once in ``period_s``.
    ``failure_threshold`` bad answers in a row make it unhealthy; until its first good one it has ``start_patience_s``.
    """

    kind: Literal["http", "tcp", "exec", "heartbeat"] = "http"
    path: Annotated[str, msgspec.Meta(pattern=r"^/[!-~]*$(?!\n)", max_length=1024)] = "/v2/health/ready"
    command: list[str] = []
    period_s: Seconds = 5.0
    timeout_s: Seconds = 2.0
    failure_threshold: Annotated[int, msgspec.Meta(ge=1)] = 3
    start_patience_s: Seconds = 120.0


class UpdatePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a new version of a module is kept for good, and when the device takes the previous one back by itself.

    A new version is on trial until it was well for ``commit_after_s``. More than ``max_failures`` ends or failed probes
    meanwhile, no readiness within ``ready_within_s``, or a rate or latency above the bounds (as the module's ``/metrics``
    tell them) end the trial: the previous version runs again, and the hub learns why.
    """

    rollback: bool = True
    commit_after_s: Seconds = 60.0
    ready_within_s: Seconds = 120.0
    max_failures: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    max_error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_latency_p95_s: Seconds | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Upper bounds of a module; None means the host's. ``processes`` counts threads too, as the kernel does."""

    memory_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None
    cpus: Annotated[float, msgspec.Meta(gt=0)] | None = None
    open_files: Annotated[int, msgspec.Meta(ge=16)] | None = None
    processes: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None


class TelemetrySources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the agent collects from a module beside what the module hands over itself. Both are best effort.

    ``stdout``: its output lines that are JSON objects. ``scrape_path``: a Prometheus page on its port, read every
    ``scrape_period_s``.
    """

    stdout: bool = False
    scrape_path: Annotated[str, msgspec.Meta(pattern=r"^/[!-~]*$(?!\n)", max_length=1024)] | None = None
    scrape_period_s: Seconds = 60.0


class Shadow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new model that runs beside a module on the same inputs; its answers go nowhere, their differences are reported.

    ``image`` is a reference as a module's. ``fraction`` of the module's scoring requests is tried on it. Numbers are the same
    when ``abs(a - b) <= atol + rtol * abs(b)``, everything else when it is equal.
    """

    image: str
    fraction: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    rtol: Annotated[float, msgspec.Meta(ge=0)] = 1e-3
    atol: Annotated[float, msgspec.Meta(ge=0)] = 1e-4


class ModuleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A module as the operator writes it. Either ``image`` (a reference) or ``command`` (argv of a process).

    ``display_name`` is what it is called elsewhere, where our names' grammar does not hold (IoT Edge's ``TempSensor``).
    ``pull_policy`` "never" runs only an image that is on the device already.
    """

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
    display_name: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    pull_policy: Literal["on-create", "never"] = "on-create"
    update: UpdatePolicy = UpdatePolicy()
    telemetry: TelemetrySources = TelemetrySources()
    shadow: Shadow | None = None

    def shown_as(self, name: str) -> str:
        """What people know the module called ``name`` as."""
        return self.display_name or name

    def images(self) -> dict[str, str]:
        """References of all images that it needs, by what stands behind its name for them: "", and " (shadow)"."""
        found = {"": self.image, " (shadow)": self.shadow.image if self.shadow else None}
        return {use: image for use, image in found.items() if image is not None}


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which messages go where, in IoT Edge's grammar (``routes/route.py``): ``FROM /messages/* WHERE … INTO $upstream``.

    ``priority`` 0 goes first, 9 after it, None last of all. ``time_to_live_s`` 0: the deployment's.
    """

    route: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    time_to_live_s: Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)] = 0


OverflowPolicy = Literal["drop-oldest", "drop-newest", "downsample"]


class StreamPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one telemetry stream is kept on the device; None: as the device's settings say.

    ``overflow`` is what happens above ``quota_bytes``: ``drop-oldest``, ``drop-newest`` (the module is told), or ``downsample``
    (every second of the older messages goes). ``priority`` as in a route; ``time_to_live_s`` None: no limit.
    """

    quota_bytes: Annotated[int, msgspec.Meta(ge=4096, le=2**50)] | None = None
    overflow: OverflowPolicy | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    time_to_live_s: Annotated[int, msgspec.Meta(ge=1, le=4_294_967_295)] | None = None


class TelemetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Telemetry of a device: how long messages are worth sending (None: for ever), and streams with rules of their own."""

    time_to_live_s: Annotated[int, msgspec.Meta(ge=1, le=4_294_967_295)] | None = None
    streams: dict[KnownName, StreamPolicy] = {}


class AgentRelease(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The release of the agent that devices should run: ``version`` from a package index, checked by ``sha256`` of its wheel.

    ``wheel``: the digest of a wheel among this workspace's blobs, fetched from there instead of an index.
    """

    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9][0-9A-Za-z.+_-]{0,60}$(?!\n)")]
    wheel: Digest | None = None


# Route names as IoT Edge takes them.
RouteName = Annotated[str, msgspec.Meta(pattern=r"^[^.$# \n]+$(?!\n)", max_length=128)]


class EdgeDeployment(Document, frozen=True, kw_only=True):
    """A manifest with a target condition. Among those that match a device, the highest priority wins; ties: the newest.

    A ``layered`` one does not compete: it adds its modules, routes and twins to the winner, lower priorities first. ``routes``
    empty: every message goes upstream. ``twins`` are the desired properties of modules; those of a layer are merged in, but
    for ``replaced_twins``, which take the place of what was there.
    """

    name: KnownName
    target: str
    priority: Priority = 0
    modules: dict[KnownName, ModuleSpec]
    revision: int = 1
    created_at: Instant | None = None
    layered: bool = False
    labels: dict[str, str] = {}
    routes: dict[RouteName, Route] = {}
    telemetry: TelemetryPolicy = TelemetryPolicy()
    twins: dict[KnownName, dict[str, object]] = {}
    replaced_twins: list[KnownName] = []
    rollout: RolloutPolicy | None = None
    agent: AgentRelease | None = None


class DesiredModule(msgspec.Struct, frozen=True, kw_only=True):
    """A module as a device receives it: the image is a digest, nothing is left to resolve."""

    spec: ModuleSpec
    image: ImagePin | None = None
    shadow_image: ImagePin | None = None


class DesiredState(Document, frozen=True, kw_only=True):
    """All that one device should run. Bound to device and incarnation; the device keeps the highest ``version`` it took.

    ``twin_versions`` count the changes of each module's desired properties. ``key_generation`` above the device's own: it should
    fetch its new key (0: nothing said). ``trusted_keys``: from now on these sign (empty: as before), told under a key that is
    trusted already.
    """

    device_uuid: str
    version: int
    incarnation: str
    issued_at: Instant
    edge_deployment: KnownName | None
    modules: dict[KnownName, DesiredModule]
    routes: dict[RouteName, Route] = {}
    telemetry: TelemetryPolicy = TelemetryPolicy()
    twins: dict[KnownName, dict[str, object]] = {}
    twin_versions: dict[KnownName, int] = {}
    agent: AgentRelease | None = None
    key_generation: int = 0
    trusted_keys: list[TrustedKey] = []
