"""StatusReport: what a device says of itself. The way back from the agent; data, never a call."""

from __future__ import annotations

from typing import Literal

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.names import Digest, KnownName

ModuleState = Literal["pending", "starting", "running", "unhealthy", "backoff", "stopped", "failed", "exited"]


class ShadowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a module's shadow does: requests tried on both, those with other answers, and those that only the shadow failed.

    ``worst_difference`` is the largest ``abs(a - b)`` of two numbers so far; latencies are medians over the newest requests.
    """

    image_digest: Digest
    state: ModuleState
    reason: str = ""
    compared: int = 0
    different: int = 0
    failed: int = 0
    dropped: int = 0
    worst_difference: float | None = None
    latency_p50_s: float | None = None
    shadow_latency_p50_s: float | None = None


class ModuleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One module as the agent last saw it; ``reason`` says why it is in that state and what comes next.

    ``trial``: it is a new version that the device may still take back. ``rolled_back_from`` is the version (image digest, or
    fingerprint) that the desired state asks for and that the device has taken back, or refused, for ``rollback_reason``.
    """

    state: ModuleState
    reason: str
    image_digest: Digest | None = None
    pid: int | None = None
    address: str | None = None
    restart_count: int = 0
    exit_code: int | None = None
    started_at: Instant | None = None
    exited_at: Instant | None = None
    trial: bool = False
    rolled_back_from: str | None = None
    rollback_reason: str | None = None
    shadow: ShadowStatus | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Something the agent decided, with its reason; kept on the device and sent along."""

    at: Instant
    module: KnownName | None
    action: str
    reason: str


class DesiredOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the newest desired state: 200 applied, 202 being applied, 4xx refused, 500 failed (IoT Edge codes)."""

    version: int
    code: int
    message: str


class BufferStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The telemetry buffer in numbers."""

    epoch: str
    queued_messages: int
    queued_bytes: int
    dropped_messages: int


class AgentReleaseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the release of the agent that the desired state asks for.

    ``current``: it runs, for good. ``trial``: it runs, and the one before may come back. ``waiting``: it will be tried (again).
    ``refused``: it was tried and is not tried again until another one is wanted. ``unmanaged``: nothing on this device can put
    another release in place.
    """

    wanted: str
    state: Literal["current", "trial", "installing", "waiting", "refused", "unmanaged"]
    reason: str = ""


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a device stands with its hub: ``state`` session, connected, refused, revoked or offline; ``reason`` for people."""

    state: str
    reason: str = ""


class StatusReport(Document, frozen=True, kw_only=True):
    """Whole state of a device; a later ``sequence`` replaces an earlier one of the same ``session``.

    ``limits_by``: what bounds process modules, ``cgroup`` (memory, CPU and processes of a module's whole tree) or ``rlimit``
    (memory and files of each process by itself; CPU and number of processes not). "" from agents that did not say.
    ``trusted_keys`` are the ids of the workspace's keys that the device believes now; [] from agents that did not say.
    ``link`` is for whoever reads the report on the device; what the hub gets is always of a session.
    """

    device_uuid: str
    session: str
    sequence: int
    reported_at: Instant
    agent_version: str
    boot_id: str
    desired: DesiredOutcome
    modules: dict[KnownName, ModuleStatus]
    decisions: list[Decision] = []
    buffer: BufferStatus | None = None
    limits_by: str = ""
    agent_release: AgentReleaseStatus | None = None
    trusted_keys: list[str] = []
    link: LinkStatus | None = None
