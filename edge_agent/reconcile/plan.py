"""Takes what is wanted and what is seen; returns the next steps. Knows no Docker, no MQTT, no clock, no disk.

Nothing is carried from one round to the next: each plan is made from a fresh look. No steps means that the goal is
reached; a module that has to wait for something gets a ``Wait`` with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from edge_agent.reconcile.module_state import must_stop_again
from edge_agent.reconcile.restart_policy import heals, verdict
from edge_agent.reconcile.situation import Exited, Running, Seen, Situation, Wanted
from edge_agent.reconcile.steps import Prove, Pull, Remove, Start, Step, Stop, Wait
from hedgerow.contracts.shadow import belongs_to_shadow

# A module that is not ready by then no longer holds back those that start after it.
READY_PATIENCE_S = 60.0
STOP_GRACE_S = 10.0


def plan(situation: Situation) -> list[Step]:
    """The next steps, in startup order; the same for any order of the inputs. At most one step for each module."""
    if situation.wanted is None:
        return []
    # A name may be a stray in two engines; they go one after the other.
    strays = {stray.name: stray for stray in sorted(situation.strays, key=lambda stray: (stray.name, stray.kind))}
    steps = [_clear_stray(stray, situation) for stray in strays.values()]
    for wanted in startup_order(situation.wanted):
        step = _module_step(wanted, situation)
        if step is not None:
            steps.append(step)
    return steps


def startup_order(wanted: Mapping[str, Wanted]) -> list[Wanted]:
    """By startup order, then by name."""
    return sorted(wanted.values(), key=lambda module: (module.spec.startup_order, module.name))


def _clear_stray(stray: Seen, situation: Situation) -> Step:
    if stray.name in situation.busy:
        return Wait(stray.name, "an action is under way")
    successor = (situation.wanted or {}).get(stray.name)
    match stray:
        case Running():
            if successor is not None and successor.spec.status == "running" and successor.spec.kind not in situation.blind:
                first = _before_switch(successor, situation)
                if first is not None:
                    return first
            return Stop(stray.name, stray.kind, stray.run, STOP_GRACE_S, "removed", "it is not in the desired state")
        case Exited():
            return Remove(stray.name, stray.kind, successor is None, "it is not in the desired state")
        case _:
            assert_never(stray)


def _module_step(wanted: Wanted, situation: Situation) -> Step | None:
    if wanted.spec.kind in situation.blind:
        return Wait(wanted.name, situation.blind[wanted.spec.kind])
    if any(stray.name == wanted.name for stray in situation.strays):
        return None  # Its predecessor of another kind has to go first; that step stands in the plan already.
    if wanted.name in situation.busy:
        return Wait(wanted.name, "an action is under way")
    match situation.seen.get(wanted.name):
        case None:
            return _absent(wanted, situation)
        case Running() as running:
            return _running(wanted, running, situation)
        case Exited() as ended:
            return _ended(wanted, ended, situation)


def _absent(wanted: Wanted, situation: Situation) -> Step | None:
    if wanted.spec.status == "stopped":
        return None
    before = situation.before.get(wanted.name)
    first = _before_switch(wanted, situation) if before is not None else None
    if isinstance(first, Pull | Prove):
        return first
    past = situation.past(wanted.name)
    if not _due(wanted, situation):
        return Wait(wanted.name, f"it could not be started ({past.problem}); tried again after a delay", past.retry_at_s)
    reason = f"tried again after: {past.problem}" if past.failures else "it is wanted running"
    return _begin(before if first is not None and before is not None else wanted, situation, reason, first=not past.failures)


def _running(wanted: Wanted, running: Running, situation: Situation) -> Step | None:
    past = situation.past(wanted.name)
    grace_s = wanted.spec.stop_grace_s
    if wanted.spec.status == "stopped":
        return Stop(wanted.name, running.kind, running.run, grace_s, "stopped", "it is wanted stopped")
    if must_stop_again(past, running):
        cause = past.ordered_stop or "unhealthy"
        return Stop(wanted.name, running.kind, running.run, grace_s, cause, f"its stop was under way: {past.problem or cause}")
    if wanted.fingerprint == running.fingerprint:
        return _heal(wanted, running, situation)
    first = _before_switch(wanted, situation)
    if first is None:
        return Stop(wanted.name, running.kind, running.run, grace_s, "replaced", "the desired state has another version of it")
    before = situation.before.get(wanted.name)
    if isinstance(first, Wait) and before is not None and before.fingerprint == running.fingerprint:
        return _heal(before, running, situation) or first
    return first


def _heal(wanted: Wanted, running: Running, situation: Situation) -> Step | None:
    """What a run of the right version needs: nothing, mostly."""
    grace_s = wanted.spec.stop_grace_s
    if wanted.name in situation.restart:
        return Stop(wanted.name, running.kind, running.run, grace_s, "restarted", situation.restart[wanted.name])
    if running.health != "unhealthy" or not heals(wanted.spec.restart_policy):
        return None
    if _due(wanted, situation):
        return Stop(wanted.name, running.kind, running.run, grace_s, "unhealthy", f"it is unhealthy: {running.detail}")
    past = situation.past(wanted.name)
    return Wait(wanted.name, f"it is unhealthy ({running.detail}); restarted after a delay", past.retry_at_s)


def _ended(wanted: Wanted, ended: Exited, situation: Situation) -> Step | None:
    if wanted.spec.status == "stopped":
        return None
    if wanted.fingerprint == ended.fingerprint:
        return _restart(wanted, ended, situation)
    before = situation.before.get(wanted.name)
    if before is not None and before.fingerprint == ended.fingerprint:
        # What is still on its way over a slow network must not keep the version down that is here.
        first = _before_switch(wanted, situation)
        if first is not None:
            return first if isinstance(first, Pull | Prove) else _restart(before, ended, situation) or first
    return Remove(wanted.name, ended.kind, False, "the desired state has another version of it")


def _restart(wanted: Wanted, ended: Exited, situation: Situation) -> Step | None:
    past = situation.past(wanted.name)
    answer = verdict(wanted.spec.restart_policy, ended, past)
    if not answer.restart:
        return None
    if not _due(wanted, situation):
        return Wait(wanted.name, f"{answer.reason}; failure {past.failures} in a row", past.retry_at_s)
    return _begin(wanted, situation, answer.reason, first=past.failures == 0)


def _begin(wanted: Wanted, situation: Situation, reason: str, *, first: bool) -> Step:
    """Start it, or what has to come before. Only a ``first`` start waits for its turn: a crash is answered at once."""
    fetch = _missing_image(wanted, situation)
    if fetch is not None:
        return fetch
    holder = _who_comes_first(wanted, situation) if first else None
    if holder is not None:
        return Wait(wanted.name, f"it starts after {holder.name}, which is not ready yet", _patience_ends(holder, situation))
    return Start(wanted.name, wanted, reason)


def _before_switch(wanted: Wanted, situation: Situation) -> Step | None:
    """What has to be done before a version that works is stopped for ``wanted``: all comes over the network, and is proven."""
    return _missing_image(wanted, situation) or _any_missing_image(wanted, situation) or _missing_proof(wanted, situation)


def _missing_image(wanted: Wanted, situation: Situation) -> Step | None:
    if wanted.image is None:
        return None
    fetch = wanted.spec.pull_policy != "never"
    state = situation.images.get(wanted.image.digest)
    if state is None or (fetch and state.look_only and not state.ready):
        reason = "the desired state needs this image"
        return Pull(wanted.name, wanted.spec.kind, wanted.image, reason, fetch=fetch)
    return None if state.ready else Wait(wanted.name, f"image {wanted.image.name}:{wanted.image.version}: {state.detail}")


def _missing_proof(wanted: Wanted, situation: Situation) -> Step | None:
    if wanted.image is None or wanted.name not in situation.unproven:
        return None
    state = situation.proofs.get(wanted.image.digest)
    if state is None:
        return Prove(wanted.name, wanted.image, "it is proven before the version that runs is stopped")
    return None if state.passed else Wait(wanted.name, state.detail)


def _any_missing_image(wanted: Wanted, situation: Situation) -> Step | None:
    for other in startup_order(situation.wanted or {}):
        if _has_to_come(other, situation) and _missing_image(other, situation) is not None:
            return Wait(wanted.name, f"its previous version runs until the image of {other.name} is here as well")
    return None


def _has_to_come(other: Wanted, situation: Situation) -> bool:
    """True for a module whose image is, or will be, pulled before it can start; only such a one may be waited for."""
    if belongs_to_shadow(other.name):
        return False
    if other.spec.status == "stopped" or other.spec.kind in situation.blind or other.spec.pull_policy == "never":
        return False
    seen = situation.seen.get(other.name)
    return seen is None or seen.fingerprint != other.fingerprint


def _due(wanted: Wanted, situation: Situation) -> bool:
    past = situation.past(wanted.name)
    return past.boot_id != situation.boot_id or situation.now_s >= past.retry_at_s


def _who_comes_first(wanted: Wanted, situation: Situation) -> Wanted | None:
    for other in startup_order(situation.wanted or {}):
        if other.spec.startup_order >= wanted.spec.startup_order:
            return None
        if _holds_back(other, situation):
            return other
    return None


def _holds_back(other: Wanted, situation: Situation) -> bool:
    """True while a module that comes earlier is on its way to its first readiness.

    One that has failed, cannot be pulled, or may not run at all never holds the others: a broken first module would keep
    a whole device down.
    """
    if other.spec.status == "stopped" or other.spec.kind in situation.blind:
        return False
    past = situation.past(other.name)
    if past.failures:
        return False
    match situation.seen.get(other.name):
        case Running() as running:
            return running.health == "starting" and situation.now_s < past.since_s + READY_PATIENCE_S
        case Exited() as ended:
            return verdict(other.spec.restart_policy, ended, past).restart
        case None:
            image = situation.images.get(other.image.digest) if other.image else None
            return image is None or not image.failures


def _patience_ends(holder: Wanted, situation: Situation) -> float | None:
    seen = situation.seen.get(holder.name)
    return situation.past(holder.name).since_s + READY_PATIENCE_S if isinstance(seen, Running) else None
