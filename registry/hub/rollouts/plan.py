"""What becomes of a rollout: its groups in numbers and the time in, its next state out. Pure.

    waiting ──▶ running ──▶ soaking ──▶ succeeded ──▶ the next group
                   │           │
                   └───────────┴──▶ failed ──▶ the rollout pauses, or is reversed

A group is decided as early as it can be: when enough devices are well, when too many failed, and when so many failed that the
others are not enough any more. Its time-out runs until enough of it are well; then only its soak time does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from hedgerow.contracts.rollout import Rollout, RolloutGroup, RolloutGroupStatus
from registry.hub.errors import RolloutOver
from registry.hub.rollouts.sharing import rules_of

Action = Literal["pause", "resume", "skip", "reverse"]
_ENDED = frozenset({"succeeded", "failed"})
_UNDECIDED = frozenset({"running", "soaking"})
_CLOSE = 1e-9
_STEERABLE: Mapping[Action, frozenset[str]] = {
    "pause": frozenset({"running"}),
    "resume": frozenset({"paused"}),
    "skip": frozenset({"running", "paused"}),
    "reverse": frozenset({"running", "paused", "succeeded"}),
}


@dataclass(frozen=True)
class Happening:
    """Something that a rollout did, as an event tells it: ``edge-rollout.KIND``."""

    kind: str
    reason: str
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """``reason`` says what decided."""

    what: Literal["undecided", "well", "failed"]
    reason: str = ""


def advance(rollout: Rollout, now: datetime) -> tuple[Rollout, Sequence[Happening]]:
    """``rollout`` (with today's numbers in its groups) as far as it goes now, and what it did for that.

    A group whose state is not ``waiting`` any more is to be told. Nothing happens while the rollout does not run, and before
    its devices were shared out.
    """
    happened: list[Happening] = []
    while rollout.state == "running" and rollout.groups:
        step = _step(rollout, now)
        if step is None:
            break
        rollout, what = step
        happened += what
    return rollout, happened


def judge(group: RolloutGroupStatus, rules: RolloutGroup, now: datetime) -> Verdict:
    """Of a group that was released. Failures weigh more than successes when both thresholds are met."""
    number = group.devices
    if number == 0:
        return Verdict("well", "no device is in it")
    if group.failed and group.failed * 100 >= rules.error_percent * number - _CLOSE:
        return Verdict("failed", f"{group.failed} of {number} devices failed, {rules.error_percent:g} % end it")
    needed = max(1, math.ceil(number * rules.success_percent / 100 - _CLOSE))
    if group.succeeded >= needed:
        return Verdict("well", f"{group.succeeded} of {number} devices run it well")
    if number - group.failed < needed:
        return Verdict("failed", f"{group.failed} of {number} devices failed, so {rules.success_percent:g} % cannot be reached")
    if group.began_at is not None and now >= group.began_at + timedelta(seconds=rules.timeout_s):
        reason = f"after {rules.timeout_s:g} s only {group.succeeded} of {number} devices run it well, {needed} are needed"
        return Verdict("failed", reason)
    return Verdict("undecided")


def steer(rollout: Rollout, action: Action, why: str, now: datetime) -> tuple[Rollout, Happening]:
    """``rollout`` as somebody wants it, ``why`` in words. Raises RolloutOver where ``action`` has no meaning any more."""
    if rollout.state not in _STEERABLE[action]:
        raise RolloutOver(name=rollout.edge_deployment, revision=rollout.revision, state=rollout.state, action=action)
    match action:
        case "pause":
            return _with(rollout, state="paused", reason=why), Happening("paused", why)
        case "resume":
            # The time that it lay still is nobody's fault.
            return _with(_anew(rollout, now), state="running", reason=""), Happening("resumed", why)
        case "skip":
            return _with(_skipped(rollout, why, now), state="running", reason=""), Happening("group-skipped", why)
        case "reverse":
            return _with(rollout, state="reversing", reason=why, ended_at=now), Happening("reversing", why)


def next_look(rollout: Rollout) -> datetime | None:
    """When time alone changes something; None when only devices do."""
    if rollout.state != "running":
        return None
    number = _current(rollout)
    group = None if number is None else rollout.groups[number]
    if number is None or group is None:
        return None
    rules = rules_of(rollout.policy, number)
    if group.well_since is not None:
        return group.well_since + timedelta(seconds=rules.soak_s)
    return None if group.began_at is None else group.began_at + timedelta(seconds=rules.timeout_s)


def was_released(rollout: Rollout, number: int) -> bool:
    """Whether the devices of group ``number`` have the new revision, or should have."""
    return number < len(rollout.groups) and rollout.groups[number].state != "waiting"


def is_out_of_time(rollout: Rollout, number: int, now: datetime) -> bool:
    """Whether group ``number`` had all the time that it may take."""
    began = rollout.groups[number].began_at
    return began is not None and now >= began + timedelta(seconds=rules_of(rollout.policy, number).timeout_s)


def longest_wait(rollout: Rollout) -> timedelta:
    """How long a device that was released may need to answer."""
    return timedelta(seconds=max(rules.timeout_s for rules in rollout.policy.groups))


def _step(rollout: Rollout, now: datetime) -> tuple[Rollout, list[Happening]] | None:
    number = _current(rollout)
    if number is None:
        return _with(rollout, state="succeeded", ended_at=now, reason=""), [Happening("succeeded", _summary(rollout))]
    group, rules = rollout.groups[number], rules_of(rollout.policy, number)
    if group.state == "waiting":
        # Nobody of it has answered yet.
        begun = _with(group, state="running", began_at=now, released=group.devices, succeeded=0, failed=0)
        told = {"group": group.name, "devices": str(group.devices)}
        return _put(rollout, number, begun), [Happening("group-released", f"{group.name} is told", told)]
    verdict = judge(group, rules, now)
    if verdict.what == "failed":
        return _failed(rollout, number, verdict, now)
    if verdict.what == "undecided":
        if group.state == "soaking":
            # Some of it fell ill again.
            return _put(rollout, number, _with(group, state="running", well_since=None)), []
        return None
    since = group.well_since or now
    if now >= since + timedelta(seconds=rules.soak_s):
        done = _with(group, state="succeeded", ended_at=now, reason=verdict.reason, well_since=since)
        happening = Happening("group-succeeded", verdict.reason, {"group": group.name, "devices": str(group.devices)})
        return _put(rollout, number, done), [happening]
    if group.state == "running":
        return _put(rollout, number, _with(group, state="soaking", well_since=since)), []
    return None


def _failed(rollout: Rollout, number: int, verdict: Verdict, now: datetime) -> tuple[Rollout, list[Happening]]:
    group = rollout.groups[number]
    failed = _with(group, state="failed", ended_at=now, reason=verdict.reason, well_since=None)
    reason = f"{group.name} failed: {verdict.reason}"
    told = {"group": group.name, "devices": str(group.devices)}
    if rollout.policy.on_error == "reverse":
        after, kind = _with(_put(rollout, number, failed), state="reversing", reason=reason, ended_at=now), "reversing"
    else:
        after, kind = _with(_put(rollout, number, failed), state="paused", reason=reason), "paused"
    return after, [Happening("group-failed", verdict.reason, told), Happening(kind, reason)]


def _current(rollout: Rollout) -> int | None:
    """The group that the rollout is about now: the first that is not over."""
    return next((number for number, group in enumerate(rollout.groups) if group.state not in _ENDED), None)


def _anew(rollout: Rollout, now: datetime) -> Rollout:
    """Its group begins to be judged now."""
    number = _current(rollout)
    if number is None or rollout.groups[number].state not in _UNDECIDED:
        return rollout
    return _put(rollout, number, _with(rollout.groups[number], state="running", began_at=now, well_since=None))


def _skipped(rollout: Rollout, why: str, now: datetime) -> Rollout:
    """Without the group that it waits for; one that failed is over anyway."""
    number = _current(rollout)
    if number is None or rollout.groups[number].state not in _UNDECIDED:
        return rollout
    return _put(rollout, number, _with(rollout.groups[number], state="succeeded", ended_at=now, reason=f"not waited for: {why}"))


def _summary(rollout: Rollout) -> str:
    failed = [group.name for group in rollout.groups if group.state == "failed"]
    return f"every group was told; let pass although it failed: {', '.join(failed)}" if failed else "every group runs it well"


def _put(rollout: Rollout, number: int, group: RolloutGroupStatus) -> Rollout:
    return _with(rollout, groups=[*rollout.groups[:number], group, *rollout.groups[number + 1 :]])


_with = msgspec.structs.replace
