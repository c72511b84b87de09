"""Says in words how a deployment is, and whether an activity that waits for it has its answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from hedgerow.contracts.service import Deployment, DeploymentState, ReplicaState, ReplicaStatus
from hedgerow.contracts.work import Problem
from registry.controller.balancer.port import Routed
from registry.controller.services.situation import Replica, Situation, fingerprint, refusals
from registry.store.services import DeployTask, Progress

# Ends in a row without ever having been ready, after which people are told that it will not work like that.
HOPELESS_AFTER = 2
_GIVE_UP_FACTOR = 1.5
_REASON_CHARACTERS = 1500


@dataclass(frozen=True)
class Outcome:
    """The end of a ``service.deploy`` activity."""

    state: Literal["succeeded", "failed"]
    problem: Problem | None = None


def judge(deployment: Deployment, situation: Situation, routed: Routed) -> Progress:
    """State, reason and replicas of a deployment, as people shall see them."""
    replicas = situation.replicas_of(deployment)
    state, reason = _state(deployment, replicas, situation, routed)
    shown = sorted(replicas, key=lambda replica: (replica.record.slot, replica.record.name))
    return Progress(state, reason[:_REASON_CHARACTERS], tuple(_status(replica) for replica in shown))


def outcome(
    task: DeployTask,
    deployment: Deployment | None,
    progress: Progress | None,
    *,
    waiting_since: datetime,
    situation: Situation,
    routed: Routed,
) -> Outcome | None:
    """None while there is hope. ``progress`` is what :func:`judge` said of ``deployment``."""
    if deployment is None or progress is None or deployment.state == "deleting":
        return _failed("deployment_deleted", "The deployment was deleted before it was ready", "Deploy it again.")
    if deployment.revision > task.revision:
        return _failed("superseded", "A later deployment took its place before it was ready", "Follow that one.")
    if progress.state == "ready":
        return Outcome("succeeded")
    hopeless = progress.state in ("failed", "degraded") and _is_hopeless(deployment, situation, routed)
    at_once = max(1, situation.starting_at_once)
    rounds = 1 + deployment.settings.replicas // at_once
    patience = timedelta(seconds=situation.ready_timeout_s * rounds * _GIVE_UP_FACTOR)
    if not hopeless and situation.now - waiting_since < patience:
        return None
    tail = next((replica.tail for replica in situation.replicas_of(deployment) if replica.tail), "")
    why = progress.reason or f"it was not ready within {patience.total_seconds():.0f} s"
    return _failed(
        "deployment_failed",
        f"{deployment.endpoint}/{deployment.name} is {progress.state}: {why}",
        "Correct the cause and deploy again; what was ready before goes on serving, and the controller goes on trying.",
        tail,
    )


def _is_hopeless(deployment: Deployment, situation: Situation, routed: Routed) -> bool:
    if (deployment.endpoint, deployment.name) in refusals(situation):
        return True
    image = situation.images.get(deployment.image.digest)
    if image is not None and image.problem:
        return True
    current = _current(deployment, situation.replicas_of(deployment))
    if current and all(replica.life == "ready" for replica in current):
        return routed.lasting  # only the balancer is in the way
    return any(_has_no_hope(replica) for replica in current)


def _has_no_hope(replica: Replica) -> bool:
    record = replica.record
    failures = record.failures + (replica.life == "ended")
    return replica.life != "ready" and not record.was_ready and (record.gave_up or failures >= HOPELESS_AFTER)


def _state(
    deployment: Deployment, replicas: tuple[Replica, ...], situation: Situation, routed: Routed
) -> tuple[DeploymentState, str]:
    if deployment.state == "deleting":
        return "deleting", f"{len(replicas)} replicas are being stopped" if replicas else ""
    serving = any(replica.serves for replica in replicas)
    if refusal := refusals(situation).get((deployment.endpoint, deployment.name)):
        return "degraded" if serving else "failed", refusal
    wanted = deployment.settings.replicas
    current = _current(deployment, replicas)
    ready = [replica for replica in current if replica.serves]
    if len(ready) >= wanted:
        return _routing_state(deployment, routed) if wanted else ("ready", "it has no replicas, as was asked for")
    image = situation.images.get(deployment.image.digest)
    if image is not None and image.problem:
        return "degraded" if serving else "failed", image.problem
    troubled = next((replica for replica in current if _trouble(replica)), None)
    if troubled is None:
        return "starting", _waiting(deployment, len(ready), situation)
    reason = f"{len(ready)} of {wanted} replicas are ready; {troubled.record.name}: {_trouble(troubled)}"
    if troubled.tail:
        reason += f"; its log ends: {troubled.tail}"
    on_the_mend = troubled.record.was_ready and troubled.record.failures < HOPELESS_AFTER
    return "degraded" if serving or on_the_mend else "failed", reason


def _routing_state(deployment: Deployment, routed: Routed) -> tuple[DeploymentState, str]:
    if routed.problem:
        return "degraded", routed.problem
    if routed.settled or deployment.state == "ready":
        return "ready", routed.note
    return "starting", "the balancer is being told"


def _waiting(deployment: Deployment, ready: int, situation: Situation) -> str:
    image = situation.images.get(deployment.image.digest)
    if image is None or image.state != "here":
        return "its image is being unpacked"
    return f"{ready} of {deployment.settings.replicas} replicas are ready"


def _trouble(replica: Replica) -> str:
    """What went wrong with it, while it is not ready again."""
    if replica.life == "ready":
        return ""
    if replica.life == "ended":
        return replica.record.blame or replica.end_reason
    return replica.record.last_failure


def _current(deployment: Deployment, replicas: tuple[Replica, ...]) -> list[Replica]:
    mine = fingerprint(deployment)
    return [replica for replica in replicas if replica.record.fingerprint == mine and replica.record.phase == "run"]


def _status(replica: Replica) -> ReplicaStatus:
    return ReplicaStatus(
        name=replica.record.name,
        state=_replica_state(replica),
        address=None if replica.port is None else f"http://127.0.0.1:{replica.port}",
        pid=replica.pid,
        restarts=replica.record.restarts,
        reason=_trouble(replica)[:300],
    )


def _replica_state(replica: Replica) -> ReplicaState:
    if replica.life == "ended":
        return "backoff" if replica.record.phase == "run" else "stopped"
    if replica.record.phase != "run":
        return "draining"
    return "ready" if replica.life == "ready" else "starting"


def _failed(code: str, message: str, remedy: str, tail: str = "") -> Outcome:
    details = {"log": tail} if tail else {}
    return Outcome("failed", Problem(code=code, message=message, remedy=remedy, details=details))
