"""The release of the agent that the desired state asks for: fetched, built and put on trial beside everything else.

A thread of its own looks; what takes long (an installer at work) is a child process, the same ``hedgerow agent upgrade`` that a
person would run. It ends with telling this agent to start again as the new release, whose trial and way back are those of
``launch.py`` and ``trial.py``. Modules notice nothing. What fails for want of a network is tried again later; what was tried
and is not well is refused, reported, and not tried again until another release is wanted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.bell import Bell
from edge_agent.decisions import DecisionLog
from edge_agent.errors import WheelNotFetched
from edge_agent.registry_http import DeviceRegistry
from edge_agent.service import launch
from edge_agent.service.release_standing import begin, name_of, refuse, standing_of
from edge_agent.service.upgrade import COMPLETE, INSTALLED
from edge_agent.service.wheel import fetch_wheel
from edge_agent.settings import AgentSettings
from hedgerow.backoff import Backoff
from hedgerow.clock import Clock
from hedgerow.contracts.edge import AgentRelease, DesiredState
from hedgerow.contracts.status import AgentReleaseStatus

RETRY = Backoff(first_s=30.0, factor=3.0, cap_s=3600.0, immediate_s=5.0)
IDLE_S = 3600.0
TRIAL_LOOK_S = 2.0
WHEELS = "wheels"
_CLOSE_S = 5.0
_REASON_CHARS = 500
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReleasePlace:
    """Where things are. ``releases`` None: this agent was not started by the launcher, so no other release can be put in place.

    ``index_url`` and ``find_links`` are where the packages that a release needs come from (``upgrade.Wish``).
    """

    config: Path
    state_dir: Path
    releases: Path | None
    version: str
    index_url: str | None = None
    find_links: Path | None = None


class DesiredRelease:
    """``state`` is the desired state in force; ``on_news`` hears that ``status`` has changed."""

    def __init__(
        self,
        place: ReleasePlace,
        registry: DeviceRegistry,
        state: Callable[[], DesiredState | None],
        decisions: DecisionLog,
        clock: Clock,
        on_news: Callable[[], None],
    ) -> None:
        self._place = place
        self._registry = registry
        self._state = state
        self._decisions = decisions
        self._clock = clock
        self._on_news = on_news
        self._bell = Bell()
        self._stopped = threading.Event()
        self._tried: AgentRelease | None = None
        self._failures = 0
        self._again_at_s = 0.0
        self._problem = ""
        self._offline = False
        self.status: AgentReleaseStatus | None = None
        self._thread = threading.Thread(target=self._run, name="desired-release", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def hurry(self) -> None:
        """Another desired state may be in force."""
        self._bell.ring()

    def network_back(self) -> None:
        """What could not be fetched is tried now."""
        if self._offline:
            self._again_at_s = 0.0
            self._bell.ring()

    def close(self) -> None:
        """End; an installer at work is ended, and begins anew with the next start."""
        self._stopped.set()
        self._bell.ring()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                wait_s = self._look()
            except Exception as problem:
                log.exception("a look at the wanted release failed; the next one follows")
                wait_s = self._fail(f"{type(problem).__name__}: {problem}")
            self._bell.wait(wait_s)

    def _look(self) -> float:
        """Returns the seconds until the next look."""
        state = self._state()
        wanted = state.agent if state else None
        if wanted is None:
            self._show(None)
            return IDLE_S
        if wanted != self._tried:
            self._tried, self._failures, self._again_at_s, self._problem = wanted, 0, 0.0, ""
        found = standing_of(wanted, self._place.releases, self._place.version)
        match found.standing:
            case "current" | "refused" | "unmanaged" as ended:
                self._show(AgentReleaseStatus(wanted=name_of(wanted), state=ended, reason=found.reason))
                return IDLE_S
            case "trial":
                self._show(AgentReleaseStatus(wanted=name_of(wanted), state="trial", reason=found.reason))
                return TRIAL_LOOK_S
            case "busy":
                self._show(AgentReleaseStatus(wanted=name_of(wanted), state="waiting", reason=found.reason))
                return TRIAL_LOOK_S
            case "due":
                return self._bring_about(wanted, self._place.releases)

    def _bring_about(self, wanted: AgentRelease, releases: Path | None) -> float:
        left_s = self._again_at_s - self._clock.monotonic_s()
        if releases is None or left_s > 0:
            self._show(AgentReleaseStatus(wanted=name_of(wanted), state="waiting", reason=self._problem))
            return left_s
        if not self._failures:
            self._decisions.record(None, "release-wanted", f"release {name_of(wanted)} of the agent is being put in place")
        self._show(AgentReleaseStatus(wanted=name_of(wanted), state="installing"))
        try:
            begin(wanted, releases)
            self._offline = False
            said = self._install(wanted, releases)
        except WheelNotFetched as problem:
            said, self._offline = str(problem), True
        except OSError as problem:
            said = str(problem)
        if self._stopped.is_set():
            return IDLE_S
        if not said:
            self._failures = 0
            return TRIAL_LOOK_S
        folder = releases / name_of(wanted)
        if (folder / INSTALLED).exists() and not (folder / COMPLETE).exists():
            # Not the network's fault: it is all there, and does not answer.
            refuse(wanted, releases, said)
            return 0.0
        return self._fail(said)

    def _install(self, wanted: AgentRelease, releases: Path) -> str:
        """Have the release built and switched to; "" when this agent is about to start again, else what went wrong."""
        options = ["--version", wanted.version]
        if wanted.wheel is not None:
            # An installer believes the name of a wheel only when what is inside says the same.
            wheel = releases / WHEELS / f"hedgerow-{wanted.version}-py3-none-any.whl"
            fetch_wheel(self._registry, wanted.wheel, wheel, lambda: not self._stopped.is_set())
            options = ["--wheel", str(wheel), "--sha256", wanted.wheel.removeprefix("sha256:")]
        options += ["--index-url", self._place.index_url] if self._place.index_url else []
        options += ["--find-links", str(self._place.find_links)] if self._place.find_links else []
        place = ["--config", str(self._place.config), "--state-dir", str(self._place.state_dir), "--releases", str(releases)]
        argv = [sys.executable, "-P", "-m", "edge_agent", "upgrade", *place, *options]
        code, output = self._child(argv, releases)
        return "" if code == 0 else (output.strip().splitlines() or [f"the upgrade ended with {code}"])[-1][:_REASON_CHARS]

    def _child(self, argv: list[str], folder: Path) -> tuple[int, str]:
        """Run to its end, or to ours. Nice to the modules, and in a group of its own, so that an installer's children end too."""
        nice = shutil.which("nice")
        with subprocess.Popen(
            [nice, "-n", "10", *argv] if nice else argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as child:
            while True:
                try:
                    output, _ = child.communicate(timeout=0.5)
                    return child.returncode, output
                except subprocess.TimeoutExpired:
                    if self._stopped.is_set():
                        with contextlib.suppress(ProcessLookupError):
                            os.killpg(child.pid, signal.SIGKILL)

    def _fail(self, problem: str) -> float:
        """It is tried again later; the first time, and when something else is wrong, that is a decision."""
        if problem != self._problem:
            self._decisions.record(None, "release-waits", problem)
        self._problem = problem
        delay_s = RETRY.delay_s(self._failures, random.random)
        self._failures += 1
        self._again_at_s = self._clock.monotonic_s() + delay_s
        name = name_of(self._tried) if self._tried else ""
        self._show(AgentReleaseStatus(wanted=name, state="waiting", reason=problem))
        return delay_s

    def _show(self, status: AgentReleaseStatus | None) -> None:
        if status == self.status:
            return
        self.status = status
        if status is not None and status.state in ("refused", "unmanaged"):
            self._decisions.record(None, f"release-{status.state}", f"release {status.wanted}: {status.reason}")
        self._on_news()


def release_place(settings: AgentSettings, state_dir: Path, version: str) -> ReleasePlace:
    """Of this process, which is ``version`` and has its state in ``state_dir``."""
    by_launcher = b"--releases" in Path("/proc/self/cmdline").read_bytes().split(b"\0")
    releases = settings.releases.absolute() if settings.releases is not None and by_launcher else None
    return ReleasePlace(
        config=settings.config.absolute(),
        state_dir=state_dir.absolute(),
        releases=releases if releases is not None and launch.current(releases) else None,
        version=version,
        index_url=settings.release_index_url,
        find_links=settings.release_find_links,
    )
