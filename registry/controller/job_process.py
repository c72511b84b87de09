"""One process of a job: supervised, its output followed while it runs, its end turned into :class:`Ended`."""

from __future__ import annotations

import contextlib
import signal
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hedgerow.contracts.build import ProgressLine
from hedgerow.contracts.work import Problem
from hedgerow.process import AlreadyRunning, Exited, Running, Supervised
from registry.controller.effects import Ended, RunProcess
from registry.controller.event_loop import EventLoop, Timer
from registry.controller.log_follower import LogFollower
from registry.controller.teller import Teller

# The log is a file, which nothing can wait on: it is looked at while its process runs.
LOOK_S = 0.2
STOP_GRACE_S = 5.0
_TAIL_LINES = 12


class JobProcess:
    """Made for one run of one process in ``folder``."""

    def __init__(self, folder: Path, effect: RunProcess, teller: Teller, loop: EventLoop) -> None:
        self._effect, self._teller, self._loop = effect, teller, loop
        self._process = Supervised(folder)
        self._log = LogFollower(self._process.log_path)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._answer: dict[str, Any] | None = None
        self._problem: Problem | None = None
        self._timer: Timer | None = None
        self._started_at = datetime.fromtimestamp(0, UTC)

    def start(self, *, on_news: Callable[[], None], on_end: Callable[[Ended], None]) -> None:
        """Raises ProcessStartFailed, SupervisionFailed, AlreadyRunning."""
        self._process.forget()
        spec = msgspec.structs.replace(self._effect.spec, exit_with_starter=True)
        self._started_at = self._process.start(spec).started_at
        self._on_news, self._on_end = on_news, on_end
        self._teller.show(self._effect.span[0], self._effect.step)
        on_news()
        exit_fd = self._process.exit_fd()
        if exit_fd is None:
            self._loop.after(0.0, self._ended)
        else:
            self._loop.watch_end(exit_fd, self._ended)
        self._timer = self._loop.after(LOOK_S, self._look)

    def stop(self) -> None:
        """Ask it to end, and make it after a while; ``on_end`` is called as ever."""
        self._process.signal(signal.SIGTERM)
        self._loop.after(STOP_GRACE_S, self.kill)

    def kill(self) -> None:
        self._process.stop(0.0)

    def forget(self) -> None:
        """Remove its state folder, unless even KILL could not end it."""
        with contextlib.suppress(AlreadyRunning):
            self._process.forget()

    def _look(self) -> None:
        self._take(self._log.lines())
        self._on_news()
        self._timer = self._loop.after(LOOK_S, self._look)

    def _ended(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seen = self._process.observe()
        if isinstance(seen, Running):
            # Its shim was killed this very moment; the process follows it (PDEATHSIG).
            seen = self._process.stop(0.0)
        self._take(self._log.lines(ended=True))
        self._log.close()
        self._process.forget()
        lost = Exited(None, None, self._started_at, None, lost=True, reason="nobody saw its end")
        ended = seen if isinstance(seen, Exited) else lost
        # What it said last stays: the step's own name would look as if it had begun again.
        self._teller.show(self._effect.span[1] if ended.exit_code == 0 else 0.0, "")
        self._on_end(Ended(ended, self._answer, self._problem, tuple(self._tail)))

    def _take(self, lines: list[str]) -> None:
        for line in lines:
            known = _progress_line(line) if self._effect.reads == "progress" else None
            if known is None:
                self._tail.append(line)
                self._teller.add_line(line)
            else:
                self._take_progress(known)

    def _take_progress(self, line: ProgressLine) -> None:
        first, last = self._effect.span
        if line.progress is not None:
            self._teller.show(first + (last - first) * line.progress, line.step)
        if line.log:
            self._teller.add_line(line.log)
        self._answer = line.result if line.result is not None else self._answer
        self._problem = line.problem or self._problem


def _progress_line(text: str) -> ProgressLine | None:
    """What a process of ours says about itself; anything else it writes is a line of its log."""
    if not text.startswith("{"):
        return None
    try:
        line = msgspec.json.decode(text, type=ProgressLine)
    except msgspec.MsgspecError:
        return None
    return None if line == ProgressLine() else line
