"""Takes what is wanted and what is seen; returns the next steps. Knows no processes, no files, no HAProxy, no clock.

For each deployment: replicas of the wanted fingerprint ("current") are brought to the wanted number and kept alive; those
of another fingerprint ("old") leave only as current ones get ready, so a new image that never gets ready harms nobody. A
replica that ended is started again at once, then after growing delays, for ever. Planning at the goal gives only waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from hedgerow.backoff import Backoff
from hedgerow.contracts.service import Deployment
from registry.controller.services.situation import Replica, ReplicaRecord, Situation, UnpackedImage, fingerprint, refusals
from registry.controller.services.steps import (
    Drain,
    DropImage,
    Forget,
    GiveUp,
    Kill,
    NoteReady,
    RemoveDeployment,
    StartAgain,
    StartReplica,
    Step,
    Stop,
    UnpackImage,
    Wait,
)

RESTARTS = Backoff(first_s=1.0, cap_s=60.0)
# Longer than a request needs from the balancer to a replica's ear.
DRAIN_S = 1.0
# A replica finishes what is inside; after the scoring timeout nobody waits for an answer any more.
STOP_GRACE_S = 5.0
HEALTHY_AFTER_S = 60.0
UNPACK_AGAIN_S = 30.0
_ABSENT = UnpackedImage("missing")


class _Room:
    """How many replicas may still be started now: a machine that boots them all at once gets none ready in time."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self) -> bool:
        self._left -= 1
        return self._left >= 0


def plan(situation: Situation) -> list[Step]:
    """The steps to take now.

    While the balancer lags behind, nobody leaves: those who take over are not known to it yet, those who drained still are.
    """
    starting = sum(replica.life == "starting" for replica in situation.replicas)
    room = _Room(situation.starting_at_once - starting)
    refused = refusals(situation)
    steps: list[Step] = []
    for deployment in situation.deployments:
        is_refused = (deployment.endpoint, deployment.name) in refused
        steps += _plan_deployment(deployment, situation, room, is_refused=is_refused)
    known = {(deployment.endpoint, deployment.name) for deployment in situation.deployments}
    orphans = [replica for replica in situation.replicas if replica.key not in known]
    steps += _leave(orphans) + _leaving(orphans, situation.now) + _unused_images(situation)
    return [step for step in steps if not (situation.routing_is_stale and isinstance(step, Drain | Stop))]


def _plan_deployment(deployment: Deployment, situation: Situation, room: _Room, *, is_refused: bool) -> list[Step]:
    everything = situation.replicas_of(deployment)
    if deployment.state == "deleting":
        if not everything:
            return [RemoveDeployment(deployment)]
        return _leave(everything) + _leaving(everything, situation.now)
    mine = fingerprint(deployment)
    staying = [replica for replica in everything if replica.record.phase == "run"]
    current = sorted((replica for replica in staying if replica.record.fingerprint == mine), key=_usefulness)
    old = [replica for replica in staying if replica.record.fingerprint != mine]
    wanted = deployment.settings.replicas
    kept = current[: 1 if is_refused else wanted]
    steps = _leaving(everything, situation.now) + _leave(current[len(kept) :])
    for replica in kept:
        steps += _keep_alive(replica, situation, room)
    if not is_refused:
        steps += _start_missing(deployment, mine, wanted - len(kept), situation, room)
    ready = sum(replica.life == "ready" for replica in kept)
    return steps + _replace(old, wanted if not is_refused else wanted + len(old), ready, situation, room)


def _keep_alive(replica: Replica, situation: Situation, room: _Room) -> list[Step]:
    record, now = replica.record, situation.now
    if replica.life == "ready":
        return [] if record.ready_at else [NoteReady(record.id)]
    if replica.life == "starting":
        late_at = replica.since + timedelta(seconds=situation.ready_timeout_s)
        if now < late_at:
            return [Wait(late_at, f"{record.name} is starting")]
        return [GiveUp(record.id, f"it did not answer within {situation.ready_timeout_s:g} s")]
    failures = failures_in_a_row(record, replica.since)
    due = replica.since + timedelta(seconds=RESTARTS.delay_s(failures, lambda: record.jitter))
    if now < due:
        return [Wait(due, f"{record.name} is started again after a pause")]
    if _image(situation, record.image.digest).state != "here":
        return _fetch(record.image.digest, situation)
    return [StartAgain(record.id, failures + 1, record.blame or replica.end_reason)] if room.take() else []


def failures_in_a_row(record: ReplicaRecord, ended_at: datetime) -> int:
    """How often it ended before this end without having worked for a while in between."""
    worked = record.ready_at is not None and ended_at - record.ready_at >= timedelta(seconds=HEALTHY_AFTER_S)
    return 0 if worked else record.failures


def _start_missing(deployment: Deployment, mine: str, missing: int, situation: Situation, room: _Room) -> list[Step]:
    digest = deployment.image.digest
    if missing <= 0:
        return []
    if _image(situation, digest).state != "here":
        return _fetch(digest, situation)
    taken = {replica.record.slot for replica in situation.replicas_of(deployment)}
    free = (slot for slot in range(len(taken) + missing) if slot not in taken)
    return [StartReplica(deployment, mine, slot) for slot, _ in zip(free, range(missing), strict=False) if room.take()]


def _fetch(digest: str, situation: Situation) -> list[Step]:
    image = _image(situation, digest)
    if image.state == "unpacking":
        return []
    if image.problem and image.since is not None:
        again_at = image.since + timedelta(seconds=UNPACK_AGAIN_S)
        if situation.now < again_at:
            return [Wait(again_at, f"the image is tried again: {image.problem}")]
    return [UnpackImage(digest)]


def _replace(old: Sequence[Replica], wanted: int, ready: int, situation: Situation, room: _Room) -> list[Step]:
    """Let old ones go as far as enough others are ready; those that still have to serve are kept alive."""
    serving = sorted((replica for replica in old if replica.life == "ready"), key=_usefulness)
    spare = max(0, len(serving) + ready - wanted)
    steps = _leave(serving[:spare])
    for replica in serving[spare:]:
        steps += _keep_alive(replica, situation, room)
    for replica in old:
        if replica.life == "ready":
            continue
        # One that never served has nothing to offer while its successor starts.
        still_needed = replica.record.was_ready and ready + len(serving) < wanted
        steps += _keep_alive(replica, situation, room) if still_needed else _leave([replica])
    return steps


def _leave(replicas: Iterable[Replica]) -> list[Step]:
    """Begin to part with replicas that run."""
    steps: list[Step] = []
    for replica in replicas:
        if replica.record.phase != "run":
            continue
        if replica.life == "ready":
            steps.append(Drain(replica.record.id))
        else:
            steps.append(Forget(replica.record.id) if replica.life == "ended" else Stop(replica.record.id))
    return steps


def _leaving(replicas: Iterable[Replica], now: datetime) -> list[Step]:
    """Go on with those that are on their way out."""
    steps: list[Step] = []
    for replica in replicas:
        record = replica.record
        if record.phase == "run":
            continue
        if replica.life == "ended":
            steps.append(Forget(record.id))
            continue
        patience_s = DRAIN_S if record.phase == "drain" else STOP_GRACE_S + record.settings.scoring_timeout_ms / 1000
        next_at = record.phase_since + timedelta(seconds=patience_s)
        if now < next_at:
            steps.append(Wait(next_at, f"{record.name} finishes its requests"))
        else:
            steps.append(Stop(record.id) if record.phase == "drain" else Kill(record.id))
    return steps


def _unused_images(situation: Situation) -> list[Step]:
    used = {replica.record.image.digest for replica in situation.replicas}
    used |= {deployment.image.digest for deployment in situation.deployments if deployment.state != "deleting"}
    return [
        DropImage(digest) for digest, image in sorted(situation.images.items()) if digest not in used and image.state == "here"
    ]


def _image(situation: Situation, digest: str) -> UnpackedImage:
    return situation.images.get(digest, _ABSENT)


def _usefulness(replica: Replica) -> tuple[int, int]:
    """Those to keep first: ready before starting before ended, then by slot."""
    return ("ready", "starting", "ended").index(replica.life), replica.record.slot
