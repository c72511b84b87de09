"""Counts what goes up, under IoT Edge's names: messages that the hub has, how long it took, repeats, times without a session.

Called by the courier's thread only. What is remembered of batches under way is bounded.
"""

from __future__ import annotations

from collections import OrderedDict

from edge_agent.observing.metrics import Metrics
from hedgerow.contracts.telemetry import TelemetryAck, TelemetryBatch

UNDER_WAY_MAX = 256
UPSTREAM = "upstream"


class UpstreamCounts:
    """``now_s`` is monotonic everywhere."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Last sequence by (epoch, stream): when it was first sent, and how many messages it had.
        self._under_way: OrderedDict[tuple[str, str, int], tuple[float, int]] = OrderedDict()
        self._lost_at_s: float | None = None
        self._had_session = False

    def sent(self, batch: TelemetryBatch, now_s: float) -> None:
        """A batch was handed to the link."""
        key = (batch.epoch, batch.stream, batch.first_sequence + len(batch.messages))
        if key in self._under_way:
            self._metrics.count("edgehub_operation_retry_total", operation="SendBatch", id=UPSTREAM)
            return
        self._under_way[key] = (now_s, len(batch.messages))
        if len(self._under_way) > UNDER_WAY_MAX:
            self._under_way.popitem(last=False)

    def acknowledged(self, ack: TelemetryAck, now_s: float) -> None:
        """The hub has everything of a stream up to its watermark."""
        done = [key for key in self._under_way if key[:2] == (ack.epoch, ack.stream) and key[2] <= ack.watermark + 1]
        for key in done:
            sent_s, count = self._under_way.pop(key)
            self._metrics.observe("edgehub_message_send_duration_seconds", now_s - sent_s, to=UPSTREAM)
            self._metrics.count("edgehub_messages_sent_total", count, to=UPSTREAM, to_route_input=UPSTREAM)

    def session(self, *, has_one: bool, now_s: float) -> None:
        """Whether there is a session with the hub, after each change of the link."""
        if has_one and self._lost_at_s is not None:
            self._metrics.observe("edgehub_offline_duration_seconds", now_s - self._lost_at_s, id=UPSTREAM)
            self._lost_at_s = None
        elif not has_one and self._had_session:
            self._metrics.count("edgehub_offline_count_total", id=UPSTREAM)
            self._lost_at_s = now_s
        self._had_session = has_one
