"""Rollouts: a new revision of an edge deployment reaches its devices in groups, each only after the one before went well.

Terms and defaults follow Eclipse hawkBit's (docs, "Rollout Management") and AWS IoT Jobs' abort criteria; unlike theirs a device
that never answers counts against its group when the group's time is up.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.names import KnownName

Share = Annotated[float, msgspec.Meta(gt=0, le=100)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=31_536_000)]
GroupName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
OnError = Literal["pause", "reverse"]
# ``waiting``: for the group before. ``soaking``: enough devices are well, the group's time to prove itself runs.
GroupState = Literal["waiting", "running", "soaking", "succeeded", "failed"]
RolloutState = Literal["running", "paused", "reversing", "reversed", "succeeded", "superseded"]
DeviceOutcome = Literal["waiting", "released", "succeeded", "failed", "timed-out"]


class RolloutGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which devices, and when the group is good enough for the next one, or so bad that the rollout ends.

    Of the devices that no earlier group has: those of ``target`` (a condition as an edge deployment's; "" for all), of these
    ``percent`` or ``devices`` of them (not both; neither: all). What is left after the last group makes one more.
    The group has succeeded when ``success_percent`` of it runs the new revision well and stayed so for ``soak_s``; it has failed
    when ``error_percent`` or more of it failed (rolled back, refused, not ready) or ``timeout_s`` is over before it succeeded.
    """

    name: GroupName | None = None
    target: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    percent: Share | None = None
    devices: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    success_percent: Share = 100.0
    error_percent: Share = 10.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] = 3600.0
    soak_s: Seconds = 0.0


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a new revision of an edge deployment is rolled out; without one it goes to every device at once.

    A group that fails makes the rollout stop (``pause``: somebody decides) or ``reverse``: devices that have the new revision
    get the one before it. Devices that come to match meanwhile belong to the last group.
    """

    groups: Annotated[list[RolloutGroup], msgspec.Meta(min_length=1, max_length=100)]
    on_error: OnError = "pause"


class RolloutGroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A group in numbers of devices; ``released`` have been told and not answered for good yet.

    ``well_since``: so long enough devices have been well without a break (state ``soaking``).
    """

    name: str
    state: GroupState
    devices: int = 0
    released: int = 0
    succeeded: int = 0
    failed: int = 0
    began_at: Instant | None = None
    ended_at: Instant | None = None
    reason: str = ""
    well_since: Instant | None = None


class Rollout(Document, frozen=True, kw_only=True):
    """A rollout and how far it is. ``previous_revision`` None: devices had nothing of this deployment before."""

    id: str
    edge_deployment: KnownName
    revision: int
    previous_revision: int | None = None
    policy: RolloutPolicy
    state: RolloutState
    reason: str = ""
    groups: list[RolloutGroupStatus] = []
    created_at: Instant
    ended_at: Instant | None = None


class RolloutDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device of a rollout: ``group`` counts from 0, ``reason`` says why it failed."""

    device: KnownName
    group: int
    state: DeviceOutcome
    reason: str = ""
    released_at: Instant | None = None
    ended_at: Instant | None = None


class SteerRollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /edge-deployments/NAME/rollout``. ``resume`` goes on even after a failed group, ``skip`` without waiting."""

    action: Literal["pause", "resume", "skip", "reverse"]
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""
