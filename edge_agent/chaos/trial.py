"""What an experiment saw and whether the promise was kept, as data; and the words for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from edge_agent.chaos.orders import Facts
from hedgerow.clock import Clock


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the promise."""

    name: str
    ok: bool
    detail: str


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``hedgerow agent chaos``. ``events`` are (seconds since the begin, what happened)."""

    experiment: str
    seconds: float
    events: list[tuple[float, str]]
    checks: list[Check]
    queued_before: int
    queued_most: int
    queued_after: int
    dropped: int

    @property
    def kept(self) -> bool:
        return all(check.ok for check in self.checks)


@dataclass
class Protocol:
    """Written while an experiment runs; ``say`` shows each event at once."""

    experiment: str
    clock: Clock
    say: Callable[[str], None]
    before: Facts

    def __post_init__(self) -> None:
        self._began_s = self.clock.monotonic_s()
        self._events: list[tuple[float, str]] = []
        self._checks: list[Check] = []
        self._most = self.before.queued

    def saw(self, facts: Facts) -> None:
        self._most = max(self._most, facts.queued)

    @property
    def queued_most(self) -> int:
        return self._most

    def event(self, text: str) -> None:
        at_s = round(self.clock.monotonic_s() - self._began_s, 2)
        self._events.append((at_s, text))
        self.say(f"{at_s:8.2f} s  {text}")

    def check(self, name: str, ok: bool, detail: str) -> None:
        self._checks.append(Check(name=name, ok=ok, detail=detail))

    def end(self, after: Facts | None) -> Trial:
        """``after`` None: the agent did not answer any more."""
        last = after or self.before
        return Trial(
            experiment=self.experiment,
            seconds=round(self.clock.monotonic_s() - self._began_s, 2),
            events=self._events,
            checks=self._checks,
            queued_before=self.before.queued,
            queued_most=self._most,
            queued_after=last.queued,
            dropped=last.dropped - self.before.dropped,
        )


def shown(trial: Trial) -> str:
    """For people, below the events."""
    lines = [f"{'kept  ' if check.ok else 'BROKEN'} {check.name:<24} {check.detail}" for check in trial.checks]
    lines.append(
        f"queue: {trial.queued_before} before, {trial.queued_most} at most, {trial.queued_after} after; {trial.dropped} dropped"
    )
    return "\n".join(lines)
