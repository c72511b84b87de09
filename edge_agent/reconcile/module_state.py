"""The life-cycle of a module as people see it, and what to do about it after a crash of the agent.

Theory of operation. The state is never stored: each round derives it from what was seen and what the plan says, so it
cannot drift from the truth. ``TRANSITIONS`` lists which state can follow which under one desired state when one thing happened
between two looks (a property test walks the planner through random worlds and finds no other). More can happen: an end and
a new start show as ``running`` to ``running`` with another run.

Stored is only ``History``, written before acting. ``AFTER_CRASH`` says what each order found there means when an agent
starts: the planner does the rest from a fresh look, there is nothing to undo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from edge_agent.reconcile.situation import Exited, History, Running, Situation, StopCause, Wanted
from edge_agent.reconcile.steps import Step, Wait
from edge_agent.reconcile.trial import has_way_back
from edge_agent.reconcile.versions import Refused, Versions
from hedgerow.contracts.status import ModuleState

TRANSITIONS: Mapping[ModuleState, frozenset[ModuleState]] = {
    # Also the state of everything that cannot be seen now, so all states lead here and from here to all.
    "pending": frozenset({"starting", "running", "unhealthy", "backoff", "stopped", "failed", "exited"}),
    "starting": frozenset({"pending", "running", "unhealthy", "backoff", "stopped", "failed", "exited"}),
    "running": frozenset({"pending", "unhealthy", "backoff", "stopped", "failed", "exited"}),
    "unhealthy": frozenset({"pending", "running", "backoff", "stopped", "failed", "exited"}),
    # Not `unhealthy`: a module that is started again is `starting` or `running` first.
    "backoff": frozenset({"pending", "starting", "running"}),
    # Only a new desired state moves what its policy, or its wanted status, left down.
    "stopped": frozenset({"pending"}),
    "failed": frozenset({"pending"}),
    "exited": frozenset({"pending"}),
}

AfterCrash = Literal["look", "stop-again"]
AFTER_CRASH: Mapping[StopCause | None, AfterCrash] = {
    # Nothing was ordered, or a start: the engine knows whether it took place, and the planner starts what is missing.
    None: "look",
    # The order stood for a reason that a fresh look cannot see again (probes begin anew): carry it to its end.
    "unhealthy": "stop-again",
    # Nobody asks a second time.
    "restarted": "stop-again",
    # The desired state is on the disk and says the same once more.
    "replaced": "look",
    "removed": "look",
    "stopped": "look",
}


def must_stop_again(past: History, running: Running) -> bool:
    """True when a stop of this very run was ordered and has to be carried to its end."""
    return past.ordered_run == running.run and AFTER_CRASH[past.ordered_stop] == "stop-again"


def state_of(wanted: Wanted, situation: Situation, steps: list[Step]) -> tuple[ModuleState, str]:
    """State and reason of one wanted module, given the plan made for this situation."""
    step = next((step for step in steps if step.module == wanted.name), None)
    blind = situation.blind.get(wanted.spec.kind)
    if blind is not None:
        return "pending", blind
    match situation.seen.get(wanted.name):
        case Running() as running:
            return _of_running(wanted, running, situation, step)
        case Exited() as ended:
            return _of_ended(wanted, ended, situation, step)
        case _:
            return _of_absent(wanted, situation, step)


def _of_running(wanted: Wanted, running: Running, situation: Situation, step: Step | None) -> tuple[ModuleState, str]:
    state: ModuleState = "running" if running.health == "ready" else running.health
    if step is not None:
        return state, step.reason
    if wanted.fingerprint != running.fingerprint:
        return state, "the previous version still runs"
    refused = _refused(wanted, situation)
    if refused is not None:
        return state, f"the version before runs, for the new one was taken back: {refused.reason}"
    if state == "running" and not running.detail and has_way_back(wanted, situation.versions.get(wanted.name) or Versions()):
        return state, f"it is on trial; kept once it has been well for {wanted.spec.update.commit_after_s:g} s"
    return state, running.detail or ("it runs" if state == "running" else "it is not ready yet")


def _refused(wanted: Wanted, situation: Situation) -> Refused | None:
    versions = situation.versions.get(wanted.name)
    return versions.refused if versions is not None and versions.good is not None else None


def _of_ended(wanted: Wanted, ended: Exited, situation: Situation, step: Step | None) -> tuple[ModuleState, str]:
    if wanted.spec.status == "stopped":
        return "stopped", "it is wanted stopped"
    if step is None:
        # The policy leaves it as it is.
        return ("exited" if ended.exit_code == 0 else "failed"), f"{ended.reason}; policy {wanted.spec.restart_policy}"
    waiting = isinstance(step, Wait) and situation.past(wanted.name).failures > 0
    return ("backoff" if waiting else "pending"), step.reason


def _of_absent(wanted: Wanted, situation: Situation, step: Step | None) -> tuple[ModuleState, str]:
    if wanted.spec.status == "stopped":
        return "stopped", "it is wanted stopped"
    waiting = isinstance(step, Wait) and situation.past(wanted.name).failures > 0
    return ("backoff" if waiting else "pending"), step.reason if step else "it is being started"
