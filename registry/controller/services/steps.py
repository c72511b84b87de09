"""What can be done about replicas and images, as frozen data. ``plan.py`` makes them, ``hands.py`` executes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hedgerow.contracts.service import Deployment


@dataclass(frozen=True)
class StartReplica:
    """A new one, in the given slot of its pool."""

    deployment: Deployment
    fingerprint: str
    slot: int


@dataclass(frozen=True)
class StartAgain:
    """One that ended. ``failures`` is the count from now on."""

    replica: str
    failures: int
    reason: str


@dataclass(frozen=True)
class NoteReady:
    """It answers."""

    replica: str


@dataclass(frozen=True)
class GiveUp:
    """It does not get ready: end it, so that it is started again as if it had ended by itself."""

    replica: str
    reason: str


@dataclass(frozen=True)
class Drain:
    """Send nothing new to it."""

    replica: str


@dataclass(frozen=True)
class Stop:
    """Ask it to end."""

    replica: str


@dataclass(frozen=True)
class Kill:
    """It was asked long ago."""

    replica: str


@dataclass(frozen=True)
class Forget:
    """It has ended and shall not come back: remove what is left of it."""

    replica: str


@dataclass(frozen=True)
class UnpackImage:
    """Bring an image to disk."""

    digest: str


@dataclass(frozen=True)
class DropImage:
    """Nothing runs from it any more."""

    digest: str


@dataclass(frozen=True)
class RemoveDeployment:
    """Its last replica is gone."""

    deployment: Deployment


@dataclass(frozen=True)
class Wait:
    """Nothing to do before ``until``; ``reason`` says why."""

    until: datetime
    reason: str


Keeping = StartReplica | StartAgain | NoteReady | GiveUp
Parting = Drain | Stop | Kill | Forget
Tidying = UnpackImage | DropImage | RemoveDeployment | Wait
Step = Keeping | Parting | Tidying
