"""Does what the plan says about replicas and images. The decision is written down before it is acted upon."""

from __future__ import annotations

import logging
import os
import random
import secrets
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import assert_never

import msgspec

from hedgerow.contracts.names import Reference
from hedgerow.contracts.service import ImagePin
from hedgerow.errors import HedgerowError
from registry.controller.sandbox import Sandbox
from registry.controller.services.image_folders import ImageFolders
from registry.controller.services.replica_folders import ReplicaFolders
from registry.controller.services.situation import ReplicaRecord
from registry.controller.services.steps import (
    Drain,
    DropImage,
    Forget,
    GiveUp,
    Keeping,
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
from registry.controller.services.told import tell
from registry.errors import LeaseLost
from registry.store import images, services
from registry.store.database import Database
from registry.store.leases import Lease

log = logging.getLogger(__name__)
_LOG_BYTES = 4_000_000


@dataclass(frozen=True)
class Hands:
    """One failed step does not keep the others from being done; it comes back in the next plan.

    ``queue_slack_ms``: behind a balancer that lets no more requests in than there is room for, a replica is patient with one
    that comes before the place of the last one is quite free.
    """

    replicas: ReplicaFolders
    images: ImageFolders
    sandbox: Sandbox
    database: Database
    lease: Callable[[], Lease]
    queue_slack_ms: int

    def do(self, steps: Iterable[Step], now: datetime) -> bool:
        """True when all of them were done. Raises LeaseLost."""
        done = True
        for step in steps:
            try:
                self._do(step, now)
            except LeaseLost:
                raise
            except (HedgerowError, OSError) as problem:
                done = False
                log.warning("%s failed: %s", type(step).__name__, problem)
        return done

    def _do(self, step: Step, now: datetime) -> None:
        match step:
            case StartReplica() | StartAgain() | NoteReady() | GiveUp():
                self._keep(step, now)
            case Drain() | Stop() | Kill() | Forget():
                self._part(step, now)
            case UnpackImage() | DropImage() | RemoveDeployment() | Wait():
                self._tidy(step, now)
            case _:
                assert_never(step)

    def _keep(self, step: Keeping, now: datetime) -> None:
        match step:
            case StartReplica():
                self._start_new(step, now)
            case StartAgain():
                self._start_again(step, now)
            case NoteReady(replica):
                self._change(replica, ready_at=now, was_ready=True, blame="")
            case GiveUp(replica, reason):
                self._change(replica, blame=reason, gave_up=True)
                log.warning("Replica %s is ended: %s", replica, reason)
                self.replicas.process(replica).stop(0.0)
            case _:
                assert_never(step)

    def _part(self, step: Parting, now: datetime) -> None:
        match step:
            case Drain(replica):
                self._change(replica, phase="drain", phase_since=now)
            case Stop(replica):
                self._change(replica, phase="stop", phase_since=now)
                self.replicas.process(replica).signal(signal.SIGTERM)
            case Kill(replica):
                self.replicas.process(replica).stop(0.0)
            case Forget(replica):
                self.replicas.forget(replica)
            case _:
                assert_never(step)

    def _tidy(self, step: Tidying, now: datetime) -> None:
        match step:
            case UnpackImage(digest):
                self.images.unpack(digest)
            case DropImage(digest):
                self.images.drop(digest)
            case RemoveDeployment(deployment):
                with self.database.write() as connection:
                    if services.remove(connection, self.lease(), deployment):
                        tell(connection, deployment, "removed", now)
            case Wait():
                pass
            case _:
                assert_never(step)

    def _start_new(self, step: StartReplica, now: datetime) -> None:
        deployment, replica_id = step.deployment, secrets.token_hex(6)
        record = ReplicaRecord(
            id=replica_id,
            name=f"{deployment.name}-{replica_id[:4]}",
            endpoint=deployment.endpoint,
            deployment=deployment.name,
            image=deployment.image,
            settings=deployment.settings,
            fingerprint=step.fingerprint,
            slot=step.slot,
            jitter=random.random(),  # noqa: S311 - spreads restarts, hides nothing
            phase_since=now,
        )
        log.info("Replica %s of %s/%s is started", record.name, record.endpoint, record.deployment)
        self.replicas.write(record)
        self._start(record)

    def _start_again(self, step: StartAgain, now: datetime) -> None:
        record = self._change(
            step.replica,
            restarts=self.replicas.record(step.replica).restarts + 1,
            failures=step.failures,
            last_failure=step.reason,
            ready_at=None,
            blame="",
            phase_since=now,
        )
        log.warning("Replica %s of %s/%s is started again: %s", record.name, record.endpoint, record.deployment, step.reason)
        self._start(record)

    def _start(self, record: ReplicaRecord) -> None:
        try:
            self._start_process(record)
        except HedgerowError as problem:
            # Shown as the reason, as if it had started and ended.
            self._change(record.id, blame=problem.sentence())
            raise

    def _start_process(self, record: ReplicaRecord) -> None:
        """A scoring server on a port that the kernel picks; it writes its address into the ready file."""
        self.sandbox.check()
        scratch = self.replicas.scratch(record.id)
        self.sandbox.give(scratch)
        settings = record.settings
        options = {
            "--image": str(self.images.path(record.image.digest)),
            "--host": "127.0.0.1",
            "--port": "0",
            "--ready-file": str(self.replicas.ready_file(record.id)),
            "--max-concurrent": str(settings.max_concurrent_requests),
            "--queue-wait-ms": str(settings.max_queue_wait_ms + self.queue_slack_ms),
            "--timeout-ms": str(settings.scoring_timeout_ms),
        }
        if known := self._batchable(record.image):
            options["--batchable"] = ",".join(known)
        argv = [sys.executable, "-P", "-m", "runtime", *(word for pair in options.items() for word in pair)]
        spec = self.sandbox.spec(argv, scratch, {**settings.variables, **_environment(scratch)})
        self.replicas.process(record.id).start(msgspec.structs.replace(spec, log_bytes_max=_LOG_BYTES))

    def _batchable(self, image: ImagePin) -> list[str]:
        """What was measured when the image was built lies beside it and not in it: it is handed over here."""
        try:
            with self.database.read() as connection:
                found = images.get(connection, Reference(image.name, image.version)).verification
        except HedgerowError as problem:
            log.info("Image %s:%d: nothing is known of its test: %s", image.name, image.version, problem)
            return []
        return found.batchable if found is not None else []

    def _change(self, replica_id: str, **fields: object) -> ReplicaRecord:
        record = msgspec.structs.replace(self.replicas.record(replica_id), **fields)
        self.replicas.write(record)
        return record


def _environment(scratch: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
    return {"PATH": path, "HOME": str(scratch), "TMPDIR": str(scratch)}
