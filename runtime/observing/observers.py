"""Everything that looks at answered requests in one worker: access log, traces, collected data, tap. Put together and ended here.

Each is a witness of front/door.py; where nobody asked for any, the door has none and requests pay nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from hedgerow.clock import Clock
from runtime.exchange import Exchange, Response
from runtime.front.door import Witness, no_witness
from runtime.observing.access_log import AccessLog
from runtime.observing.collected_files import CollectLimits, collected_files
from runtime.observing.collecting import BodyReader, Collecting, Origin
from runtime.observing.metrics import Board
from runtime.observing.otlp import OtlpReceiver, traces_url
from runtime.observing.tap import Tap
from runtime.observing.tracing import Tracer
from runtime.settings import RuntimeSettings

_log = logging.getLogger("hedgerow.runtime.observing")


def check_observers(settings: RuntimeSettings, version: str) -> None:
    """What would not work, said before anything is started. Raises InvalidSetting, TracingNotInstalled or CollectionUnusable."""
    if settings.otlp_endpoint is not None:
        OtlpReceiver(traces_url(settings.otlp_endpoint), "", version, lambda _exported, _dropped: None)
    if settings.collect:
        CollectLimits.of(settings)


class Observers:
    """One worker's. ``service`` is what it is called in traces and records."""

    def __init__(self, settings: RuntimeSettings, board: Board, clock: Clock, *, service: str, version: str) -> None:
        self._board = board
        self.tracer = self._make_tracer(settings, clock, service, version)
        log = None
        if settings.access_log != "off":
            log = AccessLog(settings.access_log, clock, lambda: board.add("hedgerow_access_log_dropped_total"))
        self._collecting = collecting = self._make_collecting(settings, clock, service)
        tap = Tap(settings.tap_dir) if settings.tap_dir is not None else None
        self._all: list[AccessLog | Tracer | Collecting | Tap] = [
            one for one in (log, self.tracer, collecting, tap) if one is not None
        ]

    @property
    def witness(self) -> Witness:
        """What the door tells of each answer."""
        return together([one.sent for one in self._all])

    def read_bodies(self, route: str, reader: BodyReader) -> None:
        """What makes values of the bodies of a route whose requests are no JSON."""
        if self._collecting is not None:
            self._collecting.readers[route] = reader

    def start(self) -> None:
        for one in self._all:
            one.start()

    def stop(self) -> None:
        """Tell what is left."""
        for one in self._all:
            one.stop()

    def _make_tracer(self, settings: RuntimeSettings, clock: Clock, service: str, version: str) -> Tracer | None:
        if settings.otlp_endpoint is None:
            return None
        board = self._board

        def told(exported: int, dropped: int) -> None:
            board.add("hedgerow_spans_exported_total", exported)
            board.add("hedgerow_spans_dropped_total", dropped)

        receiver = OtlpReceiver(traces_url(settings.otlp_endpoint), service, version, told)
        return Tracer(receiver, clock, lambda: told(0, 1), sample=settings.trace_sample)

    def _make_collecting(self, settings: RuntimeSettings, clock: Clock, service: str) -> Collecting | None:
        if not settings.collect:
            return None
        board = self._board

        def count(dropped_for: str, records: int) -> None:
            if dropped_for:
                board.add("hedgerow_collected_dropped_total", records, (("reason", dropped_for),))
            else:
                board.add("hedgerow_collected_records_total", records)

        limits = CollectLimits.of(settings)
        files = collected_files(limits, "requests", clock)
        origin = Origin.here(settings.workspace_name or "", service)
        return Collecting(files, origin, clock, count, sample=settings.collect_sample, file_bytes=limits.file_bytes)


def together(witnesses: Sequence[Callable[[Exchange, Response], None]]) -> Witness:
    """One witness that tells them all. Never raises: requests that shared a run are answered one after another."""
    if not witnesses:
        return no_witness
    told = tuple(witnesses)

    def tell(exchange: Exchange, response: Response) -> None:
        for witness in told:
            try:
                witness(exchange, response)
            except Exception:  # noqa: BLE001 - whatever it is, it is no reason to leave a request unanswered
                _log.exception("an answer could not be told about; please report it")

    return tell
