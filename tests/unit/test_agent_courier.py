"""What arrives faster than it can be looked at takes no more than its share of memory."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.link.courier import ARRIVED_BYTES_MAX, Courier
from edge_agent.link.link import LinkListener
from edge_agent.observing.metrics import Metrics
from hedgerow.clock import SystemClock
from hedgerow.contracts.names import DeviceTopics
from tests.agent_builders import Workspace
from tests.uplink_line import Line
from tests.waiting import wait_for


class ClosedLink:
    """A link that takes nothing; what arrives is handed to the courier by the test."""

    def open(self, listener: LinkListener, topics: Sequence[str]) -> None:
        pass

    def publish(self, topic: str, payload: bytes) -> bool:
        return False

    def close(self) -> None:
        pass


def refused(metrics: Metrics, key: str) -> float:
    name = "hedgerow_agent_messages_refused_total"
    return sum(sample.value for sample in metrics.samples() if sample.name == name and sample.labels["key"] == key)


def test_a_flood_on_our_topics_is_dropped_and_counted_and_passes() -> None:
    workspace, metrics, line = Workspace(), Metrics(), Line()
    courier = Courier(
        workspace.config,
        ClosedLink(),
        line.uplink,
        SystemClock(),
        metrics,
        on_desired=lambda _envelope, _incarnation: None,
        on_link=lambda: None,
        desired_version=lambda: 0,
    )
    topic = DeviceTopics(workspace.config.topic_prefix, workspace.uuid).acks
    payload = b"x" * 100_000
    room = ARRIVED_BYTES_MAX // len(payload) - 1
    for _ in range(room + 50):
        courier.on_message(topic, payload)
    dropped = refused(metrics, "flooded")
    assert 40 <= dropped <= 60
    courier.start()
    wait_for(lambda: refused(metrics, "seal_refused") == room + 50 - dropped, what="the flood being looked at")
    courier.on_message(topic, payload)
    wait_for(lambda: refused(metrics, "seal_refused") == room + 51 - dropped, what="the next message")
    assert refused(metrics, "flooded") == dropped
    courier.close()
    line.backlog.db.close()
