"""What a round means to people: the status of each module and of the desired state as a whole. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from edge_agent.link.reported import APPLIED, BEING_APPLIED, FAILED
from edge_agent.reconcile.module_state import state_of
from edge_agent.reconcile.situation import Exited, Running, Situation, Wanted
from edge_agent.reconcile.steps import Step
from edge_agent.reconcile.trial import has_way_back
from edge_agent.reconcile.versions import Versions
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.shadow import belongs_to_shadow, comparer_of, shadow_of
from hedgerow.contracts.status import DesiredOutcome, ModuleStatus, ShadowStatus

_TROUBLED = ("backoff", "unhealthy", "failed")
_ON_THE_WAY = ("pending", "starting")


def module_statuses(situation: Situation, steps: list[Step]) -> dict[str, ModuleStatus]:
    """Status of every wanted module; its shadow is told with it."""
    wanted = situation.wanted or {}
    return {name: _status(one, situation, steps) for name, one in wanted.items() if not belongs_to_shadow(name)}


def desired_outcome(
    state: DesiredState | None, situation: Situation, modules: Mapping[str, ModuleStatus], steps: list[Step]
) -> DesiredOutcome:
    """200 when all is as wanted, 500 when something does not succeed (it is tried on) or was taken back, 202 in between.

    Shadows are tried out: how they do is no part of it.
    """
    steps = [step for step in steps if not belongs_to_shadow(step.module)]
    if state is None:
        return DesiredOutcome(version=0, code=BEING_APPLIED, message="no desired state was received yet")
    found = [judged for name in sorted(modules) if (judged := _judge(name, modules[name], situation)) is not None]
    if found:
        # The worst first; among equals by name.
        _, code, message = min(found, key=lambda judged: judged[0])
        return DesiredOutcome(version=state.version, code=code, message=message)
    if steps:
        return DesiredOutcome(version=state.version, code=BEING_APPLIED, message=f"{steps[0].module}: {steps[0].reason}")
    return DesiredOutcome(version=state.version, code=APPLIED, message="applied")


def _judge(name: str, module: ModuleStatus, situation: Situation) -> tuple[int, int, str] | None:
    """What one module means to the whole: order of weight, code and message; None when it is as wanted."""
    if module.rolled_back_from is not None:
        return 0, FAILED, f"{name}: rolled back: {module.rollback_reason}"
    if module.state in _TROUBLED or _pull_fails((situation.wanted or {})[name], situation):
        return 1, FAILED, f"{name} is {module.state}: {module.reason}"
    if module.state in _ON_THE_WAY:
        return 2, BEING_APPLIED, f"{name} is {module.state}: {module.reason}"
    if module.trial:
        return 3, BEING_APPLIED, f"{name}: its new version is on trial"
    return None


def _status(wanted: Wanted, situation: Situation, steps: list[Step]) -> ModuleStatus:
    state, reason = state_of(wanted, situation, steps)
    seen, past = situation.seen.get(wanted.name), situation.past(wanted.name)
    current = seen is not None and seen.fingerprint == wanted.fingerprint
    ended = seen if isinstance(seen, Exited) else None
    running = seen if isinstance(seen, Running) else None
    versions = situation.versions.get(wanted.name) or Versions()
    refused = versions.refused if versions.good is not None else None
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
        trial=current and has_way_back(wanted, versions),
        rolled_back_from=refused.version if refused else None,
        rollback_reason=refused.reason if refused else None,
        shadow=_shadow_status(wanted.name, situation, steps),
    )


def _shadow_status(name: str, situation: Situation, steps: list[Step]) -> ShadowStatus | None:
    """Without its counts: the comparer has them, and they change all the time (``engines/shadow_counts.py``)."""
    wanted = situation.wanted or {}
    shadow, comparer = wanted.get(shadow_of(name)), wanted.get(comparer_of(name))
    if shadow is None or shadow.image is None or comparer is None:
        return None
    state, reason = state_of(shadow, situation, steps)
    comparing, problem = state_of(comparer, situation, steps)
    if state == "running" and comparing in _TROUBLED:
        reason = f"it runs, but is not compared: the comparer is {comparing}: {problem}"
    return ShadowStatus(image_digest=shadow.image.digest, state=state, reason=reason)


def _pull_fails(wanted: Wanted, situation: Situation) -> bool:
    image = situation.images.get(wanted.image.digest) if wanted.image else None
    return image is not None and image.failures > 0
