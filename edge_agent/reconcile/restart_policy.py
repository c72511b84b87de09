"""When a module that ended is started again. Pure: takes what was seen and what is remembered, returns values.

Theory of operation. A *failure* is the end of a run that policy answers with a restart, a run that became unhealthy, or
a start that did not succeed; each is counted once per run (``History.counted_run``). The first is answered at once, the
following ones after a growing delay of at most a minute; the count is never a reason to give up. It returns to zero
after ten minutes of health, and whenever a cause may have gone: with a new desired state, a new boot, the network coming
back, or a word of the operator. A shorter good time takes a part of the count away, so that a module that ends every few
minutes is not treated like one that never comes up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from edge_agent.reconcile.situation import Exited, History, Running, Seen
from hedgerow.backoff import Backoff
from hedgerow.contracts.edge import RestartPolicy

# With its jitter of a fifth, the longest delay is 60 s.
BACKOFF = Backoff(first_s=1.0, factor=2.0, cap_s=50.0, jitter=0.2, immediate_s=0.0)
HEALTHY_RESET_S = 600.0
# So much of a run without failure takes one failure off the count.
FORGIVEN_EVERY_S = 120.0


@dataclass(frozen=True)
class Moment:
    """The circumstances of one look: monotonic seconds, the boot they belong to, the desired version, and chance."""

    now_s: float
    boot_id: str
    desired_version: int
    random: Callable[[], float]


@dataclass(frozen=True)
class Verdict:
    """Whether policy wants an ended module to run again, and why."""

    restart: bool
    reason: str


def verdict(policy: RestartPolicy, ended: Exited, past: History) -> Verdict:
    """What policy says about an ended run. A run that the agent stopped itself is judged by why it was stopped."""
    ours = past.ordered_stop if past.ordered_run == ended.run else None
    match ours:
        case "stopped" | "removed" | "replaced" | "restarted":
            return Verdict(restart=True, reason=f"it is wanted again after it was {ours}")
        case "unhealthy":
            return Verdict(restart=heals(policy), reason=f"it was unhealthy ({past.problem}); policy {policy}")
        case None:
            pass
    # An end that nobody saw (power cut, killed shim) may have been a failure: better to run than to be wrong.
    failed = ended.exit_code != 0
    restart = policy == "always" or (failed and policy in ("on-failure", "on-unhealthy"))
    return Verdict(restart=restart, reason=f"{ended.reason}; policy {policy}")


def heals(policy: RestartPolicy) -> bool:
    """True when policy answers a failed probe with a restart."""
    return policy in ("on-unhealthy", "always")


def learn(past: History, seen: Seen | None, policy: RestartPolicy, moment: Moment) -> History:
    """The history after one look at a module. Equal to ``past`` when nothing happened."""
    if (past.boot_id, past.desired_version) != (moment.boot_id, moment.desired_version):
        past = _new_cause(past, seen, moment)
    match seen:
        case Running():
            return _learn_running(past, seen, policy, moment)
        case Exited() if seen.run != past.counted_run and verdict(policy, seen, past).restart:
            return _count(past, seen.run, seen.reason, moment, expected=_was_wished(past, seen))
        case _:
            return past


def start_failed(past: History, problem: str, moment: Moment) -> History:
    """The history after a start that raised."""
    return _count(past, past.counted_run, problem, moment)


def ordered(past: History, cause: str, run: str) -> History:
    """The history to be stored before a stop is carried out."""
    return msgspec.structs.replace(past, ordered_stop=cause, ordered_run=run)


def forgotten(past: History) -> History:
    """The history after a cause of failures may have gone: what waits is tried now, and later delays begin anew."""
    return msgspec.structs.replace(past, failures=0, retry_at_s=0.0)


def wanted_again(past: History, seen: Seen | None) -> History:
    """The history when somebody wants a restart: what has ended starts now, whatever its policy says about its end."""
    past = forgotten(past)
    if isinstance(seen, Exited):
        past = msgspec.structs.replace(ordered(past, "restarted", seen.run), counted_run=seen.run)
    return past


def _new_cause(past: History, seen: Seen | None, moment: Moment) -> History:
    """A reboot or a new desired state: start afresh. A reboot also ends the meaning of stored monotonic times."""
    rebooted = past.boot_id != moment.boot_id
    # What the reboot ended was no failure of the module.
    counted = seen.run if rebooted and isinstance(seen, Exited) else past.counted_run
    return msgspec.structs.replace(
        past,
        boot_id=moment.boot_id,
        desired_version=moment.desired_version,
        failures=0,
        retry_at_s=0.0,
        since_s=moment.now_s,
        counted_run=counted,
    )


def _learn_running(past: History, seen: Running, policy: RestartPolicy, moment: Moment) -> History:
    if seen.run != past.run:
        past = msgspec.structs.replace(past, run=seen.run, since_s=moment.now_s)
    if seen.health == "unhealthy":
        if heals(policy) and past.counted_run != seen.run:
            past = _count(past, seen.run, seen.detail, moment)
        return past
    if past.counted_run == seen.run and past.ordered_run != seen.run:
        # It recovered before it was stopped: its end will be a failure of its own.
        past = msgspec.structs.replace(past, counted_run="", since_s=moment.now_s)
    if seen.health == "ready" and past.failures and moment.now_s - past.since_s >= HEALTHY_RESET_S:
        past = msgspec.structs.replace(past, failures=0)
    return past


def _was_wished(past: History, ended: Exited) -> bool:
    return past.ordered_run == ended.run and past.ordered_stop in ("stopped", "removed", "replaced", "restarted")


def _count(past: History, run: str, problem: str, moment: Moment, *, expected: bool = False) -> History:
    if expected:
        return msgspec.structs.replace(past, counted_run=run, retry_at_s=moment.now_s)
    failures = max(0, past.failures - _forgiven(past, moment)) if past.run == run else past.failures
    return msgspec.structs.replace(
        past,
        counted_run=run,
        problem=problem,
        failures=failures + 1,
        restarts=past.restarts + 1,
        retry_at_s=moment.now_s + BACKOFF.delay_s(failures, moment.random),
    )


def _forgiven(past: History, moment: Moment) -> int:
    ran_s = moment.now_s - past.since_s
    return past.failures if ran_s >= HEALTHY_RESET_S else int(ran_s // FORGIVEN_EVERY_S)
