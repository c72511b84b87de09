"""The story of what the agent collects from modules by itself: printed lines and metrics pages, best effort both.

One thread reads the logs of all modules that want it, and remembers how far; each metrics page has a thread of its own, so that
a module that answers slowly delays nobody. A device whose modules want neither has no thread of these.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile.situation import EngineKind
from edge_agent.state_store import StateStore
from edge_agent.telemetry import scraper
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.message import ModuleMessage
from edge_agent.telemetry.stdout_lines import LinesOf, Place, StdoutLines
from hedgerow.clock import Clock, unix_ms
from hedgerow.contracts.edge import DesiredState
from hedgerow.errors import HedgerowError

LOOK_S = 1.0
# Docker is asked over a connection of its own each time.
LOOK_DOCKER_S = 5.0
KEEP_S = 5.0
PLACES_FILE = "stdout.json"
SCRAPES_TOTAL = "hedgerow_agent_scrapes_total"
# By kind and name of a module that runs: its address, None while it is not known.
FindAddress = Callable[[EngineKind, str], str | None]
log = logging.getLogger(__name__)


class _Places(msgspec.Struct, frozen=True):
    """``stdout.json``."""

    places: dict[str, Place] = {}


@dataclass(frozen=True)
class Page:
    """A metrics page to be read every ``period_s``."""

    module: str
    kind: EngineKind
    path: str
    period_s: float


class Sources:
    """``follow`` is told each desired state that comes into force, before its modules are started."""

    def __init__(
        self,
        lines_of: LinesOf,
        find_address: FindAddress,
        reception: Reception,
        store: StateStore,
        clock: Clock,
        metrics: Metrics,
        *,
        max_message_bytes: int,
    ) -> None:
        self._find_address = find_address
        self._reception = reception
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._max_message_bytes = max_message_bytes
        kept = store.load(PLACES_FILE, _Places) or _Places()
        self._lines = StdoutLines(lines_of, reception, metrics, kept.places, max_message_bytes=max_message_bytes)
        self._kept: Mapping[str, Place] = kept.places
        self._printing: Mapping[str, EngineKind] = {}
        self._pages: dict[Page, threading.Event] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def follow(self, state: DesiredState) -> None:
        """Collect what the modules of ``state`` want collected, from now on."""
        specs = {name: module.spec for name, module in state.modules.items()}
        with self._lock:
            self._printing = {name: spec.kind for name, spec in specs.items() if spec.telemetry.stdout}
            self._lines.follow(self._printing, self._clock.now().timestamp())
            if self._printing and self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._read_lines, name="stdout-lines", daemon=True)
                self._thread.start()
        self._scrape(
            {
                Page(name, spec.kind, spec.telemetry.scrape_path, spec.telemetry.scrape_period_s)
                for name, spec in specs.items()
                if spec.telemetry.scrape_path is not None and spec.status == "running"
            }
        )

    def close(self) -> None:
        """End the threads and remember how far the logs were read."""
        self._closing.set()
        self._scrape(set())
        if self._thread is not None:
            self._thread.join()
        self._keep()

    def _read_lines(self) -> None:
        last_docker_s = last_kept_s = self._clock.monotonic_s()
        while not self._closing.is_set():
            now_s = self._clock.monotonic_s()
            docker = now_s - last_docker_s >= LOOK_DOCKER_S
            last_docker_s = now_s if docker else last_docker_s
            more = False
            try:
                for module, kind in self._printing.items():
                    if kind == "process" or docker:
                        more = self._lines.read(module, unix_ms(self._clock.now())) or more
            except Exception:
                # The only reader of all logs must outlive a surprise in one.
                log.exception("the output of a module could not be read; it is tried again")
            if now_s - last_kept_s >= KEEP_S:
                last_kept_s = now_s
                self._keep()
            self._closing.wait(0.0 if more else LOOK_S)

    def _keep(self) -> None:
        places = self._lines.places
        if places == self._kept:
            return
        try:
            self._store.save(PLACES_FILE, _Places(dict(places)))
            self._kept = dict(places)
        except OSError as problem:
            log.warning("how far the output was read cannot be remembered: %s", problem)

    def _scrape(self, wanted: set[Page]) -> None:
        for page in [page for page in self._pages if page not in wanted]:
            self._pages.pop(page).set()
        for page in wanted - self._pages.keys():
            stopped = self._pages[page] = threading.Event()
            threading.Thread(target=self._read_page, args=(page, stopped), name=f"scrape-{page.module}", daemon=True).start()

    def _read_page(self, page: Page, stopped: threading.Event) -> None:
        # Not all modules, and not all devices, at the same moment.
        wait_s = random.uniform(0, min(page.period_s, 10.0))  # noqa: S311 - spreads load, guards nothing
        while not stopped.wait(wait_s):
            wait_s = page.period_s
            try:
                self._metrics.count(SCRAPES_TOTAL, id=page.module, outcome=self._scrape_once(page))
            except Exception:
                log.exception("the metrics of module %s could not be read; it is tried again", page.module)

    def _scrape_once(self, page: Page) -> str:
        address = self._find_address(page.kind, page.module)
        if address is None:
            return "away"
        now = self._clock.now()
        try:
            found = scraper.scrape(address, page.path, now, limit=min(scraper.MESSAGE_BYTES_MAX, self._max_message_bytes))
        except scraper.ScrapeFailed as problem:
            log.debug("the metrics of module %s: %s", page.module, problem)
            return "failed"
        try:
            for body in found.bodies:
                message = ModuleMessage(module=page.module, body=body, time_ms=unix_ms(now), output=scraper.OUTPUT)
                self._reception.take(message)
        except HedgerowError as problem:
            log.debug("the metrics of module %s cannot be stored: %s", page.module, problem)
            return "not-stored"
        return "cut" if found.left_out else "ok"
