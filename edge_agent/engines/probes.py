"""Asks modules whether they are well: one thread for each probed run, so that a hanging module delays nobody's probe.

A probe begins with each run: ``starting`` until the first good answer (or until the module had its time), then ``ready``,
then ``unhealthy`` after ``failure_threshold`` bad answers in a row, and ``ready`` again after one good answer. How each kind of
probe is asked stands in ``asking.py``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge_agent.reconcile.situation import Health, Running, Wanted
from hedgerow.clock import Clock
from hedgerow.contracts.edge import Probe

DEFAULT_PROBE = Probe()
# A module that starts is asked more often, so that those that wait for it start soon; and it may take its time.
STARTING_PERIOD_S = 0.1
# A command costs a process each time.
STARTING_PERIOD_OF_COMMANDS_S = 0.5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """What to ask: one run of a module, of the version ``wanted``."""

    wanted: Wanted
    run: str
    probe: Probe

    @property
    def name(self) -> str:
        return self.wanted.name


@dataclass(frozen=True)
class Finding:
    """What the last probes of a run say."""

    health: Health
    detail: str


# Asks once; the target and the monotonic time at which its run began to be asked give "" or what is wrong, in a few words.
Ask = Callable[[Target, float], str]


def target_of(wanted: Wanted, running: Running) -> Target | None:
    """How to probe a run: its spec's probe, the runtime's readiness for an ONNX image, None when it cannot be asked."""
    is_runtime = wanted.spec.kind == "process" and wanted.image is not None
    probe = wanted.spec.probe or (DEFAULT_PROBE if is_runtime else None)
    return None if probe is None or wanted.fingerprint != running.fingerprint else Target(wanted, running.run, probe)


class Prober:
    """``ask`` may block for a probe's time-out; ``on_change`` hears of new findings."""

    def __init__(self, ask: Ask, clock: Clock, on_change: Callable[[], None]) -> None:
        self._ask = ask
        self._clock = clock
        self._on_change = on_change
        self._patients: dict[tuple[str, str], _Patient] = {}

    def watch(self, targets: Iterable[Target]) -> None:
        """Probe exactly these runs from now on. Called by the supervisor only."""
        wanted = {(target.name, target.run): target for target in targets}
        for key, patient in list(self._patients.items()):
            if key not in wanted or patient.target.probe != wanted[key].probe:
                del self._patients[key]
                patient.stop()
        for key, target in wanted.items():
            if key not in self._patients:
                self._patients[key] = _Patient(target, self._ask, self._clock, self._on_change)

    def finding(self, name: str, run: str) -> Finding | None:
        """What is known of a run, None when it is not probed."""
        patient = self._patients.get((name, run))
        return patient.finding if patient else None

    def close(self) -> None:
        """Stop probing."""
        self.watch([])


class _Patient:
    def __init__(self, target: Target, ask: Ask, clock: Clock, on_change: Callable[[], None]) -> None:
        self.target = target
        self.finding = Finding("starting", "it was not ready yet")
        self._ask_once = ask
        self._clock = clock
        self._on_change = on_change
        self._began_s = clock.monotonic_s()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name=f"probe-{target.name}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        """One thread from the run's beginning to its end: a question that takes long delays the next, and none piles up."""
        probe = self.target.probe
        often_s = STARTING_PERIOD_OF_COMMANDS_S if probe.kind == "exec" else STARTING_PERIOD_S
        failures = 0
        while not self._stopped.is_set():
            problem = self._ask()
            failures = failures + 1 if problem else 0
            finding = judge(self.finding, problem, failures, probe, self._clock.monotonic_s() - self._began_s)
            changed = finding.health != self.finding.health
            self.finding = finding
            if changed and not self._stopped.is_set():
                self._on_change()
            self._stopped.wait(min(often_s, probe.period_s) if finding.health == "starting" else probe.period_s)

    def _ask(self) -> str:
        try:
            return self._ask_once(self.target, self._began_s)
        except Exception as problem:
            log.exception("probing %s failed unexpectedly", self.target.name)
            return f"it could not be probed: {problem}"


def judge(before: Finding, problem: str, failures: int, probe: Probe, waited_s: float) -> Finding:
    """The finding after one more answer (``problem`` is "" for a good one; ``failures`` bad ones in a row). Pure.

    ``waited_s`` is how long the run has been asked.
    """
    if not problem:
        return Finding("ready", "")
    if before.health == "starting":
        return Finding("unhealthy" if waited_s >= probe.start_patience_s else "starting", problem)
    if failures >= probe.failure_threshold:
        return Finding("unhealthy", f"{problem} ({failures} times in a row)")
    return Finding(before.health, before.detail if before.health == "unhealthy" else "")
