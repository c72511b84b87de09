"""The story of comparing: what a module was asked and answered comes from its taps; its shadow is asked the same, one request
after the other; what both said is compared and counted.

The module notices nothing of it. What comes faster than the shadow answers is dropped at the tap, and counted. A shadow that is
away (it crashes, it is pulled, it is busy) costs the comparison, nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from hedgerow.clock import Clock
from hedgerow.errors import HedgerowError
from runtime.front.compression import encoding_of, unpacked
from runtime.shadow.asking import Shadow, ShadowAway, ShadowBroke, Told
from runtime.shadow.comparing import HEADER_LENGTH, Answer, Comparison, Tolerance, compare
from runtime.shadow.ledger import Ledger
from runtime.shadow.taps import Tapped, Taps

_LOOK_S = 1.0
_UNPACKED_BYTES_MAX = 64 * 1024 * 1024
_log = logging.getLogger("hedgerow.runtime.shadow")


class Comparer:
    """One module and its shadow. ``stopping`` says when to end; it is asked at least once a second while nothing happens."""

    def __init__(
        self, taps: Taps, shadow: Shadow, ledger: Ledger, tolerance: Tolerance, clock: Clock, stopping: Callable[[], bool]
    ) -> None:
        self._taps, self._shadow, self._ledger = taps, shadow, ledger
        self._tolerance, self._clock, self._stopping = tolerance, clock, stopping
        self._away = ""

    def run(self) -> None:
        """Until told to stop; what was counted is on the disk then."""
        looked_s: float | None = None
        while not self._stopping():
            now_s = self._clock.monotonic_s()
            if looked_s is None or now_s >= looked_s + _LOOK_S:
                looked_s = now_s
                self._taps.look()
            for tapped in self._taps.read(_LOOK_S):
                self._take(tapped)
            self._note()
            self._ledger.keep(self._clock.monotonic_s())
        self._ledger.keep(self._clock.monotonic_s(), at_once=True)
        self._taps.close()
        self._shadow.close()

    def _take(self, tapped: Tapped) -> None:
        try:
            self._compare(tapped, self._clock.now())
        except (ShadowAway, MemoryError) as problem:
            self._ledger.dropped(1)
            self._away = str(problem) or "an answer is too large for this process"
        except HedgerowError as problem:
            _log.warning("an answer of the module cannot be compared: %s", problem)
            self._ledger.dropped(1)
        else:
            self._away = ""

    def _compare(self, tapped: Tapped, at: datetime) -> None:
        answer = _answer_of(tapped)
        try:
            told = self._shadow.ask(tapped.head, tapped.body)
        except ShadowBroke as problem:
            self._ledger.compared(tapped, None, 0.0, Comparison(str(problem)), at, failed=True)
            return
        failed = _failure(answer, told)
        found = Comparison(failed) if failed else compare(answer, told.answer, tapped.head.route, self._tolerance)
        self._ledger.compared(tapped, told.answer, told.seconds, found, at, failed=bool(failed))

    def _note(self) -> None:
        dropped, self._taps.dropped = self._taps.dropped, 0
        if dropped:
            self._ledger.dropped(dropped)
        waiting = "" if self._taps.listening else "the module has no tap yet: it is starting, or an older agent has started it"
        self._ledger.trouble(waiting or self._away)


def _answer_of(tapped: Tapped) -> Answer:
    """The module's answer as it was before it was packed for its caller. Raises HedgerowError."""
    headers = tapped.head.answer_headers
    encoding = encoding_of(headers.get("content-encoding", ""))
    body = tapped.answer if encoding is None else unpacked(tapped.answer, encoding, _UNPACKED_BYTES_MAX)
    length = headers.get(HEADER_LENGTH, "")
    return Answer(tapped.head.status, body, int(length) if length.isdecimal() and len(length) < 16 else None)


def _failure(answer: Answer, told: Told) -> str:
    """Why the shadow failed where the module did not, "" when it answered."""
    status = told.answer.status
    if status >= 500 or (answer.status < 400 <= status):
        said = told.answer.body[:100].decode("utf-8", "replace")
        return f"it answered with status {status}: {said}"
    return ""
