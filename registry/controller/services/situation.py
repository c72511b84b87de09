"""Everything a plan is made from, as values: what is wanted, what is seen, what happened before, what time it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from hedgerow.contracts.document import Instant, digest_of, encode
from hedgerow.contracts.service import Deployment, DeploymentSettings, ImagePin

# What becomes of a replica. After a crash of the controller each is gone on with as if nothing had happened:
#   run    it shall run: started again when it ended
#   drain  the balancer sends nothing new; what is inside is finished
#   stop   it was asked to end, and is made to after a while
Phase = Literal["run", "drain", "stop"]
Life = Literal["starting", "ready", "ended"]


class ReplicaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``replica.json``: what was decided about one replica. Written before it is acted upon.

    ``failures`` counts ends in a row; a while of good work forgets them. ``jitter`` (0 to 1) spreads restarts. ``gave_up``: it
    was ended because it did not get ready in time; ``blame`` says so when its end is seen.
    """

    id: str
    name: str
    endpoint: str
    deployment: str
    image: ImagePin
    settings: DeploymentSettings
    fingerprint: str
    slot: int
    jitter: float
    phase: Phase = "run"
    phase_since: Instant
    restarts: int = 0
    failures: int = 0
    ready_at: Instant | None = None
    was_ready: bool = False
    gave_up: bool = False
    blame: str = ""
    last_failure: str = ""


@dataclass(frozen=True)
class Replica:
    """One replica as it is now. ``since`` is its start, or its end once it ended; ``tail`` the end of its log, if it fails."""

    record: ReplicaRecord
    life: Life
    since: datetime
    pid: int | None = None
    port: int | None = None
    end_reason: str = ""
    tail: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.record.endpoint, self.record.deployment

    @property
    def serves(self) -> bool:
        return self.life == "ready" and self.record.phase == "run"


@dataclass(frozen=True)
class UnpackedImage:
    """Where an image is on its way to this machine's disk. ``problem`` is why the last try failed, ``since`` when."""

    state: Literal["missing", "unpacking", "here"]
    problem: str = ""
    since: datetime | None = None


@dataclass(frozen=True)
class Situation:
    """The input of every decision.

    ``single_replica``: why an endpoint can have only one replica ("" when it need not). ``routing_is_stale``: the balancer does
    not know yet all of what is seen here.
    """

    deployments: tuple[Deployment, ...]
    replicas: tuple[Replica, ...]
    images: Mapping[str, UnpackedImage]
    single_replica: str
    routing_is_stale: bool
    starting_at_once: int
    ready_timeout_s: float
    now: datetime

    def replicas_of(self, deployment: Deployment) -> tuple[Replica, ...]:
        key = (deployment.endpoint, deployment.name)
        return tuple(replica for replica in self.replicas if replica.key == key)


def fingerprint(deployment: Deployment) -> str:
    """Digest of all that a replica's process is started with: replicas with another one must be replaced."""
    process = msgspec.structs.replace(deployment.settings, replicas=0)
    return digest_of(deployment.image.digest.encode() + encode(process))


def refusals(situation: Situation) -> dict[tuple[str, str], str]:
    """Deployments that cannot run because there is no balancer, with the reason. The oldest one of an endpoint may."""
    found: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    if not situation.single_replica:
        return found
    for deployment in sorted(situation.deployments, key=lambda one: (one.created_at, one.name)):
        if deployment.state == "deleting":
            continue
        if deployment.settings.replicas > 1 or deployment.endpoint in taken:
            asked = f"{deployment.settings.replicas} replicas" if deployment.settings.replicas > 1 else "a second deployment"
            found[deployment.endpoint, deployment.name] = f"{asked} of an endpoint cannot be run: {situation.single_replica}"
        # Also one that is refused: an older deployment keeps serving until it can be changed.
        taken.add(deployment.endpoint)
    return found
