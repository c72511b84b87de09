"""Which device belongs to which group of a rollout. Pure, and the same whoever asks: ``edge plan`` says it beforehand."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hedgerow.contracts.rollout import RolloutGroup, RolloutGroupStatus, RolloutPolicy
from registry.hub.target import Everything, matches, parse_target, uses_reported

REST = "rest"
# Shares are written as decimals, which a float only comes close to.
_CLOSE = 1e-9


@dataclass(frozen=True)
class Matched:
    """A device that a rollout is for. ``early``: it has something else than the others, left by a rollout that was replaced."""

    uuid: str
    name: str
    tags: Mapping[str, str]
    reported: Mapping[str, str] = field(default_factory=dict)
    early: bool = False


@dataclass(frozen=True)
class Shares:
    """``groups`` with their sizes, all waiting; ``group_of`` counts them from 0, by device uuid."""

    groups: Sequence[RolloutGroupStatus]
    group_of: Mapping[str, int]


def share_out(of: str, policy: RolloutPolicy, devices: Iterable[Matched]) -> Shares:
    """Groups for rollout ``of`` (its id). Raises TargetInvalid (stored policies were checked when they came).

    Within a group's target, devices come in the order of a hash of rollout and device, so that it is not always the same ones
    that go first; but those that are ``early`` go before: nobody is made to try two new revisions in a row for nothing.
    """
    left = sorted(devices, key=lambda device: (not device.early, _lot(of, device.uuid)))
    groups: list[RolloutGroupStatus] = []
    group_of: dict[str, int] = {}
    for number, group in enumerate(policy.groups):
        taken = _taken(group, left)
        group_of |= {device.uuid: number for device in taken}
        chosen = {device.uuid for device in taken}
        left = [device for device in left if device.uuid not in chosen]
        groups.append(RolloutGroupStatus(name=group.name or f"group {number + 1}", state="waiting", devices=len(taken)))
    if left:
        group_of |= {device.uuid: len(groups) for device in left}
        groups.append(RolloutGroupStatus(name=REST, state="waiting", devices=len(left)))
    return Shares(groups, group_of)


def rules_of(policy: RolloutPolicy, number: int) -> RolloutGroup:
    """The thresholds of group ``number``. The one of the devices that were left has those of the last that was written."""
    return policy.groups[min(number, len(policy.groups) - 1)]


def asks_for_reports(policy: RolloutPolicy) -> bool:
    """Whether a group is of devices that report something."""
    return any(group.target and uses_reported(parse_target(group.target)) for group in policy.groups)


def _taken(group: RolloutGroup, left: Sequence[Matched]) -> Sequence[Matched]:
    condition = parse_target(group.target) if group.target else Everything()
    meant = [device for device in left if matches(condition, device.name, device.tags, device.reported)]
    if group.devices is not None:
        return meant[: group.devices]
    if group.percent is not None:
        return meant[: max(1, math.floor(len(meant) * group.percent / 100 + _CLOSE))]
    return meant


def _lot(of: str, uuid: str) -> bytes:
    return hashlib.sha256(f"{of} {uuid}".encode()).digest()
