"""Notifications of twin changes: what a module reports becomes a message for routes ``FROM /twinChangeNotifications``.

In the form that IoT Hub gives them, so that ``twin_change_includes(properties.reported.x)`` and ``$body.properties.reported.x``
find what they look for. Made only when a route wants them. They tell of what is on the disk; a notification that the buffer
cannot take, or that a power cut comes before, is not repeated: the twin itself has the newest, and the hub gets that anyway.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future

from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.entries import Receipt
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.message import TWIN_CHANGES, ModuleMessage
from hedgerow.clock import Clock, unix_ms

_SCHEMA = "twinChangeNotification"
log = logging.getLogger(__name__)


class TwinChanges:
    """``told`` is called for each change of what a module reports; it returns at once and never raises."""

    def __init__(self, reception: Reception, clock: Clock, metrics: Metrics, max_message_bytes: int) -> None:
        self._reception = reception
        self._clock = clock
        self._metrics = metrics
        self._max_message_bytes = max_message_bytes

    def told(self, module: str, patch: str, version: int) -> None:
        """``patch`` is the JSON text of a merge patch (an object), ``version`` that of the properties after it."""
        if not self._reception.router.takes_twin_changes:
            return
        message = notification(module, patch, version, unix_ms(self._clock.now()))
        if len(message.body.encode()) > self._max_message_bytes:
            self._metrics.count("hedgerow_agent_intake_refused_total", key="message_too_large")
            log.warning("a change of the twin of %s is too large to be told on", module)
            return
        self._reception.submit(message).add_done_callback(lambda stored: _look(module, stored))


def notification(module: str, patch: str, version: int, time_ms: int) -> ModuleMessage:
    """The message; the patch's own bytes are in it."""
    inside = patch.strip()[1:-1].strip()
    reported = f'{{{inside}{"," if inside else ""}"$version":{version}}}'
    return ModuleMessage(
        module=module,
        body=f'{{"version":{version},"properties":{{"reported":{reported}}}}}',
        time_ms=time_ms,
        properties={"opType": "updateTwin"},
        system={"messageSchema": _SCHEMA, "messageType": _SCHEMA},
        origin=TWIN_CHANGES,
    )


def _look(module: str, stored: Future[list[Receipt]]) -> None:
    problem = stored.exception()
    if problem is not None:
        log.warning("a change of the twin of %s is not told on: %s", module, problem)
