"""What the planner may ask for: frozen data, one union. ``reconcile/hands.py`` carries it out."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.reconcile.situation import EngineKind, StopCause, Wanted
from hedgerow.contracts.service import ImagePin


@dataclass(frozen=True)
class Pull:
    """Get an image onto the device, in the background. Without ``fetch`` only look whether it is there."""

    module: str
    kind: EngineKind
    image: ImagePin
    reason: str
    fetch: bool = True


@dataclass(frozen=True)
class Prove:
    """Repeat the proof that an image carries, in the background."""

    module: str
    image: ImagePin
    reason: str


@dataclass(frozen=True)
class Start:
    """Start a module that does not run."""

    module: str
    wanted: Wanted
    reason: str


@dataclass(frozen=True)
class Stop:
    """End a run: TERM, ``grace_s`` seconds, KILL."""

    module: str
    kind: EngineKind
    run: str
    grace_s: float
    cause: StopCause
    reason: str


@dataclass(frozen=True)
class Remove:
    """Clean away what an ended run left behind; ``purge`` also the files of a module that is no longer wanted at all."""

    module: str
    kind: EngineKind
    purge: bool
    reason: str


@dataclass(frozen=True)
class Wait:
    """Nothing to do for a module yet: ``reason`` says why, ``until_s`` (monotonic) when to look again at the latest."""

    module: str
    reason: str
    until_s: float | None = None


Step = Pull | Prove | Start | Stop | Remove | Wait
