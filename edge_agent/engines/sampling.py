"""Reads the metrics of a version on trial: its answers, errors among them, and how long they took, since its run began.

The names are the runtime's (``hedgerow_requests_total``, ``hedgerow_request_seconds``); a module that tells others, or none,
is not judged by them. One thread for each run that has bounds; it ends with the trial.
"""

from __future__ import annotations

import http.client
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from edge_agent.engines.asking import FindAddress
from edge_agent.reconcile.situation import EngineKind
from edge_agent.reconcile.trial import Signals

PERIODS_IN_A_TRIAL = 6
PERIOD_MIN_S = 0.5
PERIOD_MAX_S = 10.0
NOTHING_READ_PERIOD_S = 1.0
TIMEOUT_S = 5.0
PAGE_BYTES_MAX = 2 << 20
OK = 200
P95 = 0.95
_REQUESTS = "hedgerow_requests_total"
_BUCKET = "hedgerow_request_seconds_bucket"
_LINE = re.compile(r"^(hedgerow_requests_total|hedgerow_request_seconds_bucket)\{([^}\n]*)\} ([0-9.eE+-]+)")
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampled:
    """A run to be read: ``path`` of its metrics page, and how long its trial takes when it goes well."""

    kind: EngineKind
    name: str
    run: str
    path: str
    trial_s: float


@dataclass(frozen=True)
class Page:
    """What one reading of a metrics page says: answers by status, and the histogram's cumulative buckets by upper edge (s)."""

    answers: Mapping[str, float] = field(default_factory=dict)
    buckets: Mapping[float, float] = field(default_factory=dict)


def read_page(text: str) -> Page:
    """The two families of a Prometheus page, all routes together."""
    answers: dict[str, float] = {}
    buckets: dict[float, float] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        labels = dict(_LABEL.findall(found[2]))
        try:
            value = float(found[3])
            if found[1] == _REQUESTS:
                status = labels.get("status", "")
                answers[status] = answers.get(status, 0.0) + value
            else:
                edge = float(labels.get("le", "nan"))
                buckets[edge] = buckets.get(edge, 0.0) + value
        except ValueError:
            continue
    return Page(answers, buckets)


def signals_of(page: Page) -> Signals:
    """What a run has done so far."""
    errors = sum(value for status, value in page.answers.items() if status.startswith("5"))
    return Signals(round(sum(page.answers.values())), round(errors), _quantile(page.buckets, P95))


def _quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """The upper edge of the bucket that holds the quantile: no less than the truth, by a bucket's width at most."""
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    return min((edge for edge, count in buckets.items() if count >= share * total), default=None)


class Sampler:
    """``find_address`` gives the address of a module that runs; ``on_change`` is called after each reading."""

    def __init__(self, find_address: FindAddress, on_change: Callable[[], None]) -> None:
        self._find_address = find_address
        self._on_change = on_change
        self._readings: dict[Sampled, _Reading] = {}

    def watch(self, targets: Iterable[Sampled]) -> None:
        """Read exactly these runs from now on. Called by the supervisor only."""
        wanted = set(targets)
        for target in [target for target in self._readings if target not in wanted]:
            self._readings.pop(target).stop()
        for target in wanted - self._readings.keys():
            self._readings[target] = _Reading(target, self._find_address, self._on_change)

    def signals(self, target: Sampled) -> Signals | None:
        """What is known of a run, None until it could be read."""
        reading = self._readings.get(target)
        return reading.signals if reading else None


class _Reading:
    def __init__(self, target: Sampled, find_address: FindAddress, on_change: Callable[[], None]) -> None:
        self.signals: Signals | None = None
        self._target = target
        self._find_address = find_address
        self._on_change = on_change
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name=f"sample-{target.name}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        period_s = min(PERIOD_MAX_S, max(PERIOD_MIN_S, self._target.trial_s / PERIODS_IN_A_TRIAL))
        while not self._stopped.is_set():
            page = self._read()
            if page is not None:
                self.signals = signals_of(page)
                self._on_change()
            # A run that has just begun does not listen yet.
            self._stopped.wait(period_s if page is not None else min(period_s, NOTHING_READ_PERIOD_S))

    def _read(self) -> Page | None:
        try:
            address = self._find_address(self._target.kind, self._target.name)
            return read_page(_get(address, self._target.path)) if address else None
        except (OSError, http.client.HTTPException) as problem:
            log.debug("the metrics of %s could not be read: %s", self._target.name, problem)
        except Exception:
            log.exception("reading the metrics of %s failed unexpectedly", self._target.name)
        return None


def _get(address: str, path: str) -> str:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(PAGE_BYTES_MAX)
        if answer.status != OK:
            raise http.client.HTTPException(f"GET {path} answered {answer.status}")
        return body.decode(errors="replace")
    finally:
        connection.close()
