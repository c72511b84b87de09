"""Twins at the local hub: what modules report is acknowledged when it is on the disk, what is desired of them is pushed.

``twin/desired`` carries all properties, at the subscription and at each change; ``twin/desired/patch`` only changes, as merge
patches to what was in force at the subscription. Both name ``$version``. Used in the server's thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import Future

from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.mqtt import topics
from edge_agent.telemetry.mqtt.clients import Client, Surroundings
from edge_agent.telemetry.mqtt.codec import Publish
from edge_agent.telemetry.mqtt.server import MqttServer
from edge_agent.telemetry.mqtt.session import Message
from edge_agent.telemetry.mqtt.storing import Storing
from edge_agent.twins.held import Held
from hedgerow.contracts.merge_patch import patch_between

# What a report costs in memory beside its bytes, while it waits.
REPORT_BYTES = 1000


class TwinSide:
    """A part of the local hub."""

    def __init__(self, server: MqttServer, storing: Storing, metrics: Metrics, around: Surroundings) -> None:
        self._server = server
        self._storing = storing
        self._metrics = metrics
        self._around = around

    def report(self, client: Client, message: Message, *, whole: bool) -> None:
        """A module reports properties; its ticket is done when they are kept. Raises TwinRefused, TwinUnwritable."""
        size = len(message.payload) + REPORT_BYTES
        kept = self._around.twins.report(client.me.module, message.payload, whole=whole)
        self._server.count_pending(client.connection, size)
        kept.add_done_callback(lambda done: self._server.post(lambda: self._kept(client, message.ticket, size, done)))

    def subscribed(self, client: Client, filters: Sequence[str]) -> None:
        """New filters: whoever asks for all properties gets them at once, whoever asks for patches gets the following ones."""
        wanted = dict.fromkeys(filters, 1)
        if topics.subscribed(wanted, topics.TWIN_DESIRED) is not None:
            client.twin, client.twin_asked_s = None, time.monotonic()
        if topics.subscribed(wanted, topics.TWIN_PATCH) is not None:
            client.patched = None
        self.push(client)

    def push(self, client: Client) -> None:
        """What this client wants to know and was not told yet."""
        text = json.dumps(self._around.twin(client.me.module), separators=(",", ":"))
        client.twin_due = self._push_whole(client, text) or self._push_patch(client, text)

    def _push_whole(self, client: Client, text: str) -> bool:
        """True when there is no room now."""
        qos = topics.subscribed(client.patterns, topics.TWIN_DESIRED)
        if qos is None or text == client.twin:
            return False
        if self._is_full(client, Publish(topics.TWIN_DESIRED, text.encode(), qos, retain=client.twin is None)):
            return True
        client.twin = text
        self._metrics.count("edgehub_gettwin_total", id=client.me.module)
        if client.twin_asked_s is not None:
            took_s = time.monotonic() - client.twin_asked_s
            self._metrics.observe("edgehub_gettwin_duration_seconds", took_s, id=client.me.module)
            client.twin_asked_s = None
        return False

    def _push_patch(self, client: Client, text: str) -> bool:
        """True when there is no room now: the next patch then is of both changes."""
        qos = topics.subscribed(client.patterns, topics.TWIN_PATCH)
        before = client.patched
        if qos is not None and before not in (None, text):
            patch = json.dumps(patch_between(json.loads(before or "{}"), json.loads(text)), separators=(",", ":"))
            if self._is_full(client, Publish(topics.TWIN_PATCH, patch.encode(), qos)):
                return True
        client.patched = None if qos is None else text
        return False

    def _is_full(self, client: Client, packet: Publish) -> bool:
        return client.connection.session.deliver(packet, None) == "full"

    def _kept(self, client: Client, ticket: int, size: int, done: Future[Held]) -> None:
        self._server.count_pending(client.connection, -size)
        problem = done.exception()
        if problem is None:
            client.connection.session.done([ticket])
        else:
            self._storing.not_stored(client, ticket, problem)
        self._server.flush(client.connection)
