"""Telemetry that a module prints: its output lines that are JSON objects, as messages of output ``stdout``. Best effort.

A line is a message once it is in the module's log; what the log drops (its size is limited) before it was read here is lost,
and after a kill of the agent the lines of the last seconds may come twice. Who needs more hands messages over by HTTP or MQTT.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from itertools import islice

import msgspec

from edge_agent.errors import BufferFull
from edge_agent.methods.log_lines import Line, Wanted
from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile.situation import EngineKind
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.message import ModuleMessage
from hedgerow.errors import HedgerowError

OUTPUT = "stdout"
LINES_MAX = 500
LINES_PER_COMMIT = 100
# A module's name and which lines are wanted of its log (methods/assembly.py).
LinesOf = Callable[[str, Wanted], Generator[Line, None, None]]
log = logging.getLogger(__name__)


class Place(msgspec.Struct, frozen=True):
    """How far a module's log was read: behind the line at ``after``; while that is "", from ``since_s`` on."""

    after: str = ""
    since_s: float | None = None


class StdoutLines:
    """Used by one thread, but for ``follow``. ``places`` are those of an earlier agent."""

    def __init__(
        self, lines_of: LinesOf, reception: Reception, metrics: Metrics, places: Mapping[str, Place], *, max_message_bytes: int
    ) -> None:
        self._lines_of = lines_of
        self._reception = reception
        self._metrics = metrics
        self._max_message_bytes = max_message_bytes
        self._lock = threading.Lock()
        self.places: Mapping[str, Place] = dict(places)

    def follow(self, modules: Mapping[str, EngineKind], now_s: float) -> None:
        """Exactly these from now on. A log that is there already begins to count with its next line."""
        new = {name: self._end_of(name, kind, now_s) for name, kind in modules.items() if name not in self.places}
        with self._lock:
            self.places = {name: self.places.get(name) or new[name] for name in modules}

    def read(self, module: str, now_ms: int) -> bool:
        """Take the lines that came since the last time; True when there may be more."""
        place = self.places.get(module)
        if place is None:
            return False
        wanted = Wanted(after=place.after, since_s=None if place.after else place.since_s, unfinished=False)
        seen = 0
        try:
            with closing(self._lines_of(module, wanted)) as lines:
                while group := list(islice(lines, LINES_PER_COMMIT)):
                    self._take_all(module, group, now_ms)
                    seen += len(group)
                    if seen >= LINES_MAX:
                        return True
        except HedgerowError as problem:
            # No log yet, an engine that does not answer, a full buffer: the lines are where they are.
            log.debug("the output of module %s waits: %s", module, problem)
        return False

    def _take_all(self, module: str, group: list[Line], now_ms: int) -> None:
        try:
            self._take(module, group, now_ms)
        except BufferFull:
            # There may be room for some of them.
            for line in group:
                self._take(module, [line], now_ms)

    def _take(self, module: str, group: list[Line], now_ms: int) -> None:
        bodies = [(line, body) for line in group if (body := _object(line.text)) is not None]
        fitting = [(line, body) for line, body in bodies if len(body) <= self._max_message_bytes]
        messages = [
            ModuleMessage(module=module, body=body, time_ms=_time_ms(line, now_ms), output=OUTPUT) for line, body in fitting
        ]
        if messages:
            self._reception.submit_many(messages).result()
        if len(fitting) < len(bodies):
            self._metrics.count("hedgerow_agent_intake_refused_total", len(bodies) - len(fitting), key="message_too_large")
        with self._lock:
            if module in self.places:
                self.places = {**self.places, module: Place(after=group[-1].position)}

    def _end_of(self, module: str, kind: EngineKind, now_s: float) -> Place:
        if kind == "docker":
            return Place(since_s=max(1.0, now_s))  # Docker takes no time before 1970
        try:
            with closing(self._lines_of(module, Wanted(tail=1, unfinished=False))) as lines:
                return Place(after=next((line.position for line in lines), ""))
        except HedgerowError:
            return Place()


def _object(text: str) -> str | None:
    """The line's JSON object, None for every other line."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    return text


def _time_ms(line: Line, now_ms: int) -> int:
    return now_ms if line.at_s is None else int(line.at_s * 1000)
