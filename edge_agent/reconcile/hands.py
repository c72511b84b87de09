"""Carries out steps: one exclusive action for each module at a time, each in a thread of its own.

INVARIANTS. A module is ``busy`` from the moment its step is taken until its engine call has returned; the planner gives a
busy module nothing but ``Wait``, so no module is ever started twice, and a stop that takes its grace delays nobody else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from edge_agent.engines.engine import Engine, Launch
from edge_agent.errors import ImageNotPulled
from edge_agent.images.puller import Puller
from edge_agent.reconcile.situation import EngineKind, Wanted
from edge_agent.reconcile.steps import Prove, Pull, Remove, Start, Step, Stop, Wait
from hedgerow.contracts.service import ImagePin
from hedgerow.errors import ForbiddenError, HedgerowError, UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a step that has ended; ``problem`` is None when it went well.

    ``own_fault``: the module as it is deployed cannot be started; otherwise a later try may work. ``took_s``: how long it took.
    """

    step: Start | Stop | Remove
    problem: str | None
    own_fault: bool = False
    took_s: float = 0.0


class Hands:
    """``environment`` gives what the agent adds to a module's variables; ``on_done`` is called after each action.

    ``prove`` begins to repeat an image's proof.
    """

    def __init__(
        self,
        engine: Callable[[EngineKind], Engine],
        puller: Puller,
        environment: Callable[[Wanted], Mapping[str, str]],
        on_done: Callable[[], None],
        prove: Callable[[ImagePin], None],
    ) -> None:
        self._engine = engine
        self._puller = puller
        self._environment = environment
        self._on_done = on_done
        self._prove = prove
        self._lock = threading.Condition()
        self._busy: set[str] = set()
        self._outcomes: list[Outcome] = []

    def take(self) -> tuple[list[Outcome], frozenset[str]]:
        """What has ended since the last call, and the modules with an action under way.

        Taken together, and before the engines are looked at: an action that ends in between shows as busy, never as if it
        had not taken place.
        """
        with self._lock:
            ended, self._outcomes = self._outcomes, []
            return ended, frozenset(self._busy)

    def wait_until_idle(self, timeout_s: float) -> None:
        """Return when no action is under way, or after ``timeout_s``."""
        with self._lock:
            self._lock.wait_for(lambda: not self._busy, timeout_s)

    def run(self, steps: Iterable[Step]) -> None:
        """Begin every step; returns at once."""
        for step in steps:
            match step:
                case Pull():
                    self._puller.want(step.kind, step.image, fetch=step.fetch)
                case Prove():
                    self._prove(step.image)
                case Start() | Stop() | Remove():
                    self._begin(step)
                case Wait():
                    pass
                case _:
                    assert_never(step)

    def _begin(self, step: Start | Stop | Remove) -> None:
        with self._lock:
            if step.module in self._busy:
                return
            self._busy.add(step.module)
        threading.Thread(target=self._carry_out, args=(step,), name=f"act-{step.module}", daemon=True).start()

    def _carry_out(self, step: Start | Stop | Remove) -> None:
        problem: str | None = None
        own_fault = False
        began_s = time.monotonic()
        try:
            self._act(step)
        except (HedgerowError, OSError) as raised:
            problem, own_fault = str(raised), isinstance(raised, UserError | ForbiddenError)
        except Exception as raised:
            log.exception("%s of %s failed unexpectedly", type(step).__name__, step.module)
            problem = f"{type(raised).__name__}: {raised}"
        with self._lock:
            self._busy.discard(step.module)
            self._outcomes.append(Outcome(step, problem, own_fault, time.monotonic() - began_s))
            self._lock.notify_all()
        self._on_done()

    def _act(self, step: Start | Stop | Remove) -> None:
        match step:
            case Start():
                self._start(step)
            case Stop():
                self._engine(step.kind).stop(step.module, step.grace_s)
            case Remove():
                self._engine(step.kind).remove(step.module, purge=step.purge)
            case _:
                assert_never(step)

    def _start(self, step: Start) -> None:
        wanted = step.wanted
        try:
            self._engine(wanted.spec.kind).start(Launch(wanted, self._environment(wanted)))
        except ImageNotPulled:
            if wanted.image is not None:
                self._puller.forget(wanted.image.digest)
            raise
