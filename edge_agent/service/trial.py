"""A release on trial: the agent that runs it says when it is well, or gives up so that the launcher goes back.

Well means: the supervisor and the courier go round, and there is a session with the hub; where there was none before the
upgrade either (a device that is offline), having gone round for ``OFFLINE_S`` is enough. Where there was one before, a release
that gets none within that time is not kept: it would be one that nobody can reach any more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent.service import launch
from edge_agent.service.watchdog import Loop
from hedgerow.clock import Clock

# Of these loops every one has to go round so often in a row of looks, so that a crash right after the first one shows.
WELL_LOOKS = 5
OFFLINE_S = 600.0
log = logging.getLogger(__name__)


class ReleaseTrial:
    """``has_session`` tells of the hub's; ``on_end`` hears words for the outcome, and whether the release is kept. ``leave`` has
    to end this process, so that the launcher goes back.
    """

    def __init__(
        self,
        releases: Path,
        loops: Sequence[Loop],
        clock: Clock,
        *,
        has_session: Callable[[], bool],
        on_end: Callable[[str, bool], None],
        leave: Callable[[], None],
        look_s: float = 2.0,
        offline_s: float = OFFLINE_S,
    ) -> None:
        self._releases = releases
        self._loops = loops
        self._clock = clock
        self._has_session = has_session
        self._on_end = on_end
        self._leave = leave
        self._look_s = look_s
        self._offline_s = offline_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="release-trial", daemon=True)

    def start(self) -> None:
        """Begin to watch, when this release is on trial at all; tell what became of another that was."""
        outcome = launch.read(self._releases / launch.OUTCOME)
        if outcome and not outcome.get("told"):
            self._on_end(str(outcome.get("reason")), bool(outcome.get("kept")))
            self._told(outcome)
        if self._trial():
            self._thread.start()

    def close(self) -> None:
        """End; a trial that is not over goes on with the next start."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _trial(self) -> dict[str, object]:
        trial = launch.read(self._releases / launch.TRIAL)
        return trial if trial.get("candidate") == launch.current(self._releases) else {}

    def _run(self) -> None:
        began_s, well = self._clock.monotonic_s(), 0
        before = {loop.name: loop.rounds() for loop in self._loops}
        while not self._stopped.is_set():
            for loop in self._loops:
                loop.wake()
            if self._stopped.wait(self._look_s):
                return
            now = {loop.name: loop.rounds() for loop in self._loops}
            went = all(now[name] > before[name] for name in now)
            before, well = now, well + 1 if went else 0
            try:
                if self._is_over(well, self._clock.monotonic_s() - began_s):
                    return
            except OSError as problem:
                log.warning("the outcome of the trial cannot be written, tried again: %s", problem)

    def _is_over(self, well: int, up_s: float) -> bool:
        trial = self._trial()
        if not trial:
            return True
        late = up_s >= self._offline_s
        if well >= WELL_LOOKS and (self._has_session() or (late and not trial.get("had_session"))):
            self._commit(trial)
            return True
        if late and trial.get("had_session"):
            self._give_up(trial)
            return True
        return False

    def _commit(self, trial: dict[str, object]) -> None:
        words = f"release {trial['candidate']} is kept: it is healthy"
        outcome = {"candidate": trial["candidate"], "previous": trial["previous"], "kept": True, "reason": words}
        launch.write(self._releases / launch.OUTCOME, outcome)
        (self._releases / launch.TRIAL).unlink(missing_ok=True)
        self._on_end(words, True)
        self._told(outcome)

    def _told(self, outcome: dict[str, object]) -> None:
        try:
            launch.write(self._releases / launch.OUTCOME, {**outcome, "told": True})
        except OSError as problem:
            log.debug("it will be told again: %s", problem)

    def _give_up(self, trial: dict[str, object]) -> None:
        problem = f"it got no session with the hub within {self._offline_s:.0f} s, the release before had one"
        launch.write(self._releases / launch.TRIAL, {**trial, "starts": launch.STARTS_MAX, "problem": problem})
        log.warning("release %s is given up: %s", trial["candidate"], problem)
        self._leave()
