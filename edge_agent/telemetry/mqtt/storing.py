"""Brings what clients publish into the buffer, and says when it is acknowledged: after the commit, or never.

INVARIANTS. A client has one commit under way; what comes meanwhile waits and goes into the next one together, so the order of a
client is the order in the buffer. A portion that is refused as a whole is tried in halves, down to the one message that is at
fault or has no room. A message that cannot be stored now ends the connection a moment later, with nothing after it taken.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future

from edge_agent.errors import MessageTooLarge, TwinRefused
from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.entries import Receipt
from edge_agent.telemetry.mqtt import session as states
from edge_agent.telemetry.mqtt.clients import PORTION_MAX, Batch, Client
from edge_agent.telemetry.mqtt.server import MqttServer
from edge_agent.telemetry.reception import Reception
from hedgerow.clock import Clock
from hedgerow.errors import HedgerowError, UserError

# How long a client whose message cannot be taken waits for its end: it would only come again at once.
HOLD_S = 1.0
# What a message costs in memory beside its bytes, while it waits.
ITEM_BYTES = 500
# Of the reason codes that a PUBACK may have (5.0 section 3.4.2.1).
_NOT_TAKEN, _TOPIC, _PAYLOAD = 0x83, 0x90, 0x99
_CODES: tuple[tuple[type[HedgerowError], int], ...] = ((MessageTooLarge, _NOT_TAKEN), (TwinRefused, _PAYLOAD))
log = logging.getLogger(__name__)


class Storing:
    """Used in the server's thread."""

    def __init__(self, reception: Reception, server: MqttServer, clock: Clock, metrics: Metrics) -> None:
        self._reception = reception
        self._server = server
        self._clock = clock
        self._metrics = metrics

    def store(self, client: Client, batch: Batch) -> None:
        """Messages have come; their tickets are done when they are stored."""
        self._server.count_pending(client.connection, _size(batch))
        client.waiting += batch
        self._store_next(client)

    def _store_next(self, client: Client) -> None:
        """All that waits goes into one commit, all or none; one commit of a client after the other, so that its order stays."""
        if client.storing or not client.waiting:
            return
        batch, client.waiting = client.waiting[: client.portion], client.waiting[client.portion :]
        client.storing = True
        stored = self._reception.submit_many([message for _, message in batch])
        stored.add_done_callback(lambda done: self._server.post(lambda: self._stored(client, batch, done)))

    def _stored(self, client: Client, batch: Batch, done: Future[list[Receipt]]) -> None:
        client.storing = False
        problem = done.exception()
        if problem is not None and len(batch) > 1:
            # One of them may be at fault, or there may be room for some of them only.
            client.waiting = batch + client.waiting
            client.portion = len(batch) // 2
        else:
            self._server.count_pending(client.connection, -_size(batch))
            client.portion = min(client.portion * 2, PORTION_MAX)
            if problem is None:
                client.connection.session.done([ticket for ticket, _ in batch])
            else:
                self.not_stored(client, batch[0][0], problem)
        self._store_next(client)
        self._server.flush(client.connection)

    def not_stored(self, client: Client, ticket: int, problem: BaseException) -> None:
        """A message is not on the disk: refused for good, or left with its client, whose connection ends."""
        if isinstance(problem, UserError):
            self.refuse(client, ticket, problem)
        else:
            key = problem.key if isinstance(problem, HedgerowError) else "internal"
            self._metrics.count("hedgerow_agent_intake_refused_total", key=key)
            if ticket:
                client.connection.hold(self._clock.monotonic_s() + HOLD_S, states.QUOTA, str(problem))
        if client.connection.held is not None:
            # What came after it must not overtake it.
            self._server.count_pending(client.connection, -_size(client.waiting))
            client.waiting = []

    def refuse(self, client: Client, ticket: int, problem: HedgerowError) -> None:
        """A message that can never be taken. MQTT 5 can say so; in 3.1.1 only the end of the connection is no acknowledgement."""
        self._metrics.count("hedgerow_agent_intake_refused_total", key=problem.key)
        # A client that never learns must not fill the log.
        level = logging.DEBUG if problem.key in client.warned else logging.WARNING
        client.warned.add(problem.key)
        log.log(level, "a message of module %s was refused: %s", client.me.module, problem)
        code = problem.fields.get("code") or next((code for kind, code in _CODES if isinstance(problem, kind)), _TOPIC)
        assert isinstance(code, int)  # noqa: S101 - our own errors give ints
        if not ticket:
            return
        if client.connection.session.can_refuse:
            client.connection.session.done([ticket], code)
        else:
            client.connection.hold(self._clock.monotonic_s() + HOLD_S, code, str(problem))


def _size(batch: Batch) -> int:
    return sum(len(message.body) + ITEM_BYTES for _, message in batch)
