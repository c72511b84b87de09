"""Asks modules whether they are well: one thread for each probed run, so that a hanging module delays nobody's probe.

A probe begins with each run: ``starting`` until the first good answer (or until the module had its time), then ``ready``,
then ``unhealthy`` after ``failure_threshold`` bad answers in a row, and ``ready`` again after one good answer.
"""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_agent.reconcile.situation import Health, Running, Wanted
from hedgerow.contracts.edge import Probe

READY_PATH = "/v2/health/ready"
DEFAULT_PROBE = Probe(path=READY_PATH)
# A module that starts is asked more often, so that those that wait for it start soon; and it may take its time.
STARTING_PERIOD_S = 0.1
STARTING_PATIENCE_S = 120.0
OK = 200
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """What to ask: one run of a module. ``find_address`` is asked again each time until it knows."""

    name: str
    run: str
    probe: Probe


@dataclass(frozen=True)
class Finding:
    """What the last probes of a run say."""

    health: Health
    detail: str


def target_of(wanted: Wanted, running: Running) -> Target | None:
    """How to probe a run: its spec's probe, the runtime's readiness for an ONNX image, None when it cannot be asked."""
    is_runtime = wanted.spec.kind == "process" and wanted.image is not None
    probe = wanted.spec.probe or (DEFAULT_PROBE if is_runtime else None)
    return None if probe is None or wanted.fingerprint != running.fingerprint else Target(wanted.name, running.run, probe)


def ask(address: str, path: str, timeout_s: float) -> str:
    """GET ``path``; "" when the answer is 200, else what is wrong with it in a few words."""
    host = urlsplit(address).netloc
    connection = http.client.HTTPConnection(host, timeout=timeout_s)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except TimeoutError:
        return f"GET {path} got no answer within {timeout_s:g} s"
    except (OSError, http.client.HTTPException) as problem:
        return f"GET {path} failed: {problem or type(problem).__name__}"
    finally:
        connection.close()
    return "" if status == OK else f"GET {path} answered {status}"


class Prober:
    """``find_address`` gives the address of a module that runs (None: not known yet); ``on_change`` hears of new findings."""

    def __init__(self, find_address: Callable[[str], str | None], on_change: Callable[[], None]) -> None:
        self._find_address = find_address
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
                self._patients[key] = _Patient(target, self._find_address, self._on_change)

    def finding(self, name: str, run: str) -> Finding | None:
        """What is known of a run, None when it is not probed."""
        patient = self._patients.get((name, run))
        return patient.finding if patient else None

    def close(self) -> None:
        """Stop probing."""
        self.watch([])


class _Patient:
    def __init__(self, target: Target, find_address: Callable[[str], str | None], on_change: Callable[[], None]) -> None:
        self.target = target
        self.finding = Finding("starting", "it was not ready yet")
        self._find_address = find_address
        self._on_change = on_change
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name=f"probe-{target.name}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        probe = self.target.probe
        waited_s, failures = 0.0, 0
        while not self._stopped.is_set():
            problem = self._ask()
            failures = failures + 1 if problem else 0
            finding = judge(self.finding, problem, failures, probe, waited_s)
            changed = finding.health != self.finding.health
            self.finding = finding
            if changed and not self._stopped.is_set():
                self._on_change()
            pause_s = STARTING_PERIOD_S if finding.health == "starting" else probe.period_s
            waited_s += pause_s
            self._stopped.wait(pause_s)

    def _ask(self) -> str:
        try:
            address = self._find_address(self.target.name)
            return ask(address, self.target.probe.path, self.target.probe.timeout_s) if address else "it does not listen yet"
        except Exception as problem:
            log.exception("probing %s failed unexpectedly", self.target.name)
            return f"it could not be probed: {problem}"


def judge(before: Finding, problem: str, failures: int, probe: Probe, waited_s: float) -> Finding:
    """The finding after one more answer (``problem`` is "" for a good one; ``failures`` bad ones in a row). Pure."""
    if not problem:
        return Finding("ready", "")
    if before.health == "starting":
        return Finding("unhealthy" if waited_s >= STARTING_PATIENCE_S else "starting", problem)
    if failures >= probe.failure_threshold:
        return Finding("unhealthy", f"{problem} ({failures} times in a row)")
    return Finding(before.health, before.detail if before.health == "unhealthy" else "")
