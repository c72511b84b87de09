"""Deployments, replicas and situations for tests of the service planner, and a small world in which plans come true."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

import msgspec

from hedgerow.contracts.service import Deployment, DeploymentSettings, DeploymentState, ImagePin
from registry.controller.services.plan import plan
from registry.controller.services.situation import Replica, ReplicaRecord, Situation, UnpackedImage, fingerprint
from registry.controller.services.steps import (
    Drain,
    DropImage,
    Forget,
    GiveUp,
    Kill,
    NoteReady,
    Parting,
    RemoveDeployment,
    StartAgain,
    StartReplica,
    Step,
    Stop,
    Tidying,
    UnpackImage,
    Wait,
)

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def pin(letter: str = "a", version: int = 1) -> ImagePin:
    return ImagePin(name="churn", version=version, digest=digest(letter), kind="onnx")


def deployment(
    name: str = "blue",
    *,
    image: ImagePin | None = None,
    endpoint: str = "churn",
    revision: int = 1,
    state: DeploymentState = "starting",
    **settings: Any,
) -> Deployment:
    return Deployment(
        endpoint=endpoint,
        name=name,
        revision=revision,
        image=image or pin(),
        settings=DeploymentSettings(**settings),
        state=state,
        created_at=NOW,
    )


def replica(of: Deployment, life: str = "ready", *, id: str = "r1", age_s: float = 0.0, **fields: Any) -> Replica:  # noqa: A002 - the record's own word
    """One of ``of`` as it is; fields of its record by keyword. ``age_s``: how long it has been so."""
    since = NOW - timedelta(seconds=age_s)
    values: dict[str, Any] = {"slot": 0, "jitter": 0.5, "phase_since": since}
    if life == "ready":
        values |= {"ready_at": since, "was_ready": True}
    record = ReplicaRecord(
        id=id,
        name=f"{of.name}-{id}",
        endpoint=of.endpoint,
        deployment=of.name,
        image=of.image,
        settings=of.settings,
        fingerprint=fingerprint(of),
        **(values | fields),
    )
    port = 40_000 + record.slot if life == "ready" else None
    reason = "exit code 3" if life == "ended" else ""
    return Replica(record, life, since, pid=1, port=port, end_reason=reason)  # type: ignore[arg-type]  # a Life by its text


def situation(
    deployments: Iterable[Deployment],
    replicas: Iterable[Replica] = (),
    *,
    images: dict[str, UnpackedImage] | None = None,
    **fields: Any,
) -> Situation:
    """With every image here, unless ``images`` says otherwise."""
    wanted, seen = tuple(deployments), tuple(replicas)
    here = {one.image.digest: UnpackedImage("here") for one in wanted}
    here |= {one.record.image.digest: UnpackedImage("here") for one in seen}
    values: dict[str, Any] = {
        "single_replica": "",
        "routing_is_stale": False,
        "starting_at_once": 8,
        "ready_timeout_s": 60.0,
        "now": NOW,
    } | fields
    return Situation(deployments=wanted, replicas=seen, images=here if images is None else images, **values)


def steps_of(found: Situation) -> list[Step]:
    """What to do now, without the waits."""
    return [step for step in plan(found) if not isinstance(step, Wait)]


@dataclass
class World:
    """Does what plans say, at once and without a mistake; a replica is ready ``boot_rounds`` turns after its start."""

    deployments: dict[str, Deployment] = field(default_factory=dict)
    replicas: dict[str, Replica] = field(default_factory=dict)
    images: dict[str, UnpackedImage] = field(default_factory=dict)
    now: datetime = NOW
    broken: frozenset[str] = frozenset()  # digests of images whose replicas end at once
    started: int = 0
    _ids: itertools.count[int] = field(default_factory=itertools.count)

    def situation(self) -> Situation:
        return situation(self.deployments.values(), self.replicas.values(), images=self.images, now=self.now)

    def turn(self, seconds: float = 1.0) -> list[Step]:
        """One round: what was started a turn ago is ready or has ended; then plan and act."""
        self.now += timedelta(seconds=seconds)
        for key, one in list(self.replicas.items()):
            if one.life == "starting":
                fails = one.record.image.digest in self.broken
                self.replicas[key] = self._ended(one, "exit code 3") if fails else self._ready(one)
        steps = plan(self.situation())
        for step in steps:
            self._do(step)
        return steps

    def settle(self, turns: int = 400) -> int:
        """Turn until nothing but waiting is left; returns the number of turns."""
        for number in range(turns):
            if not any(not isinstance(step, Wait) for step in self.turn()) and not self._in_between():
                return number
        raise AssertionError(f"no rest after {turns} turns: {self.replicas}")

    def crash(self, key: str) -> None:
        self.replicas[key] = self._ended(self.replicas[key], "killed by signal 9 (SIGKILL)")

    def serving(self, name: str) -> list[Replica]:
        return [one for one in self.replicas.values() if one.serves and one.record.deployment == name]

    def _in_between(self) -> bool:
        """One that starts, leaves, or ended and waits for its next try."""
        return any(one.life != "ready" or one.record.phase != "run" for one in self.replicas.values())

    def _ready(self, one: Replica) -> Replica:
        return replace(one, life="ready", since=self.now, port=40_000 + int(one.record.id))

    def _ended(self, one: Replica, reason: str) -> Replica:
        return replace(one, life="ended", since=self.now, port=None, end_reason=reason)

    def _change(self, key: str, **fields: Any) -> None:
        one = self.replicas[key]
        self.replicas[key] = replace(one, record=msgspec.structs.replace(one.record, **fields))

    def _do(self, step: Step) -> None:
        match step:
            case StartReplica(wanted, mine, slot):
                self.started += 1
                key = str(next(self._ids))
                new = replica(wanted, "starting", id=key, slot=slot, phase_since=self.now)
                assert new.record.fingerprint == mine
                self.replicas[key] = replace(new, since=self.now)
            case StartAgain(key, failures, reason):
                self._change(key, failures=failures, last_failure=reason, ready_at=None, blame="")
                self.replicas[key] = replace(self.replicas[key], life="starting", since=self.now, end_reason="")
            case NoteReady(key):
                self._change(key, ready_at=self.now, was_ready=True)
            case GiveUp(key, reason):
                self._change(key, blame=reason, gave_up=True)
                self.crash(key)
            case Drain() | Stop() | Kill() | Forget():
                self._part(step)
            case UnpackImage() | DropImage() | RemoveDeployment() | Wait():
                self._tidy(step)
            case _:
                assert_never(step)

    def _part(self, step: Parting) -> None:
        match step:
            case Drain(key):
                self._change(key, phase="drain", phase_since=self.now)
            case Stop(key):
                self._change(key, phase="stop", phase_since=self.now)
                self.crash(key)
            case Kill(key):
                self.crash(key)
            case Forget(key):
                del self.replicas[key]
            case _:
                assert_never(step)

    def _tidy(self, step: Tidying) -> None:
        match step:
            case UnpackImage(found):
                self.images[found] = UnpackedImage("here")
            case DropImage(found):
                del self.images[found]
            case RemoveDeployment(gone):
                del self.deployments[gone.name]
            case Wait():
                pass
            case _:
                assert_never(step)
