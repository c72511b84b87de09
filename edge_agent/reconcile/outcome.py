"""What a round means to people: the status of each module and of the desired state as a whole. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from edge_agent.link.reported import APPLIED, BEING_APPLIED, FAILED
from edge_agent.reconcile.module_state import state_of
from edge_agent.reconcile.situation import Exited, Running, Situation, Wanted
from edge_agent.reconcile.steps import Step
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.status import DesiredOutcome, ModuleStatus

_TROUBLED = ("backoff", "unhealthy", "failed")
_ON_THE_WAY = ("pending", "starting")


def module_statuses(situation: Situation, steps: list[Step]) -> dict[str, ModuleStatus]:
    """Status of every wanted module."""
    return {name: _status(wanted, situation, steps) for name, wanted in (situation.wanted or {}).items()}


def desired_outcome(
    state: DesiredState | None, situation: Situation, modules: Mapping[str, ModuleStatus], steps: list[Step]
) -> DesiredOutcome:
    """200 when all is as wanted, 500 when something does not succeed (it is tried on), 202 in between."""
    if state is None:
        return DesiredOutcome(version=0, code=BEING_APPLIED, message="no desired state was received yet")
    for name in sorted(modules):
        if modules[name].state in _TROUBLED or _pull_fails((situation.wanted or {})[name], situation):
            return DesiredOutcome(
                version=state.version, code=FAILED, message=f"{name} is {modules[name].state}: {modules[name].reason}"
            )
    for name in sorted(modules):
        if modules[name].state in _ON_THE_WAY:
            return DesiredOutcome(
                version=state.version, code=BEING_APPLIED, message=f"{name} is {modules[name].state}: {modules[name].reason}"
            )
    if steps:
        return DesiredOutcome(version=state.version, code=BEING_APPLIED, message=f"{steps[0].module}: {steps[0].reason}")
    return DesiredOutcome(version=state.version, code=APPLIED, message="applied")


def _status(wanted: Wanted, situation: Situation, steps: list[Step]) -> ModuleStatus:
    state, reason = state_of(wanted, situation, steps)
    seen, past = situation.seen.get(wanted.name), situation.past(wanted.name)
    current = seen is not None and seen.fingerprint == wanted.fingerprint
    ended = seen if isinstance(seen, Exited) else None
    running = seen if isinstance(seen, Running) else None
    return ModuleStatus(
        state=state,
        reason=reason,
        image_digest=wanted.image.digest if wanted.image and current else None,
        pid=running.pid if running else None,
        address=running.address if running else None,
        restart_count=past.restarts,
        exit_code=ended.exit_code if ended else None,
        started_at=seen.started_at if seen else None,
        exited_at=ended.exited_at if ended else None,
    )


def _pull_fails(wanted: Wanted, situation: Situation) -> bool:
    image = situation.images.get(wanted.image.digest) if wanted.image else None
    return image is not None and image.failures > 0
