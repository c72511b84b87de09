"""One thread between the link, the protocol and the buffer: everything that arrives or becomes due passes its queue.

Down: welcome and acks are unsealed and given to ``uplink``, desired states to ``on_desired``. Up: what ``uplink`` wants to send
is sealed and published. A message with a wrong seal is counted and dropped: anyone at the broker can write to our topics.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.link.link import Link
from edge_agent.link.standing import standing
from edge_agent.link.twins import TwinSync
from edge_agent.link.uplink import Outgoing, Uplink
from edge_agent.link.upstream_counts import UpstreamCounts
from edge_agent.observing.metrics import Metrics
from hedgerow.clock import Clock, unix_ms
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.names import DeviceTopics
from hedgerow.contracts.seal import seal, unseal
from hedgerow.contracts.status import LinkStatus
from hedgerow.contracts.telemetry import Hello, TelemetryAck, Welcome
from hedgerow.contracts.twins import TwinAck
from hedgerow.errors import HedgerowError

# When the link takes no more, it is offered again after this time (it calls nobody when it has room).
CONGESTED_RETRY_S = 0.05
TROUBLE_RETRY_S = 1.0
# What arrived and waits to be looked at, at most; a message costs more than its bytes.
ARRIVED_BYTES_MAX = 8_000_000
ARRIVED_OVERHEAD_BYTES = 500
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Connected:
    pass


@dataclass(frozen=True)
class _Disconnected:
    reason: str


@dataclass(frozen=True)
class _Arrived:
    topic: str
    payload: bytes


@dataclass(frozen=True)
class _NewData:
    pass


_Event = _Connected | _Disconnected | _Arrived | _NewData


class Courier:
    """``on_desired`` gets signed envelopes with the hub's incarnation; ``on_method`` with session and incarnation, and raises
    HedgerowError for what it refuses; ``on_link`` hears of connections and sessions;
    ``desired_version`` gives the version accepted; ``twins`` what modules report, None: nothing of it is sent."""

    def __init__(
        self,
        config: DeviceConfig,
        link: Link,
        uplink: Uplink,
        clock: Clock,
        metrics: Metrics,
        *,
        on_desired: Callable[[bytes, str], None],
        on_link: Callable[[], None],
        desired_version: Callable[[], int],
        on_method: Callable[[bytes, str | None, str | None], None] | None = None,
        key: Callable[[], bytes] | None = None,
        twins: TwinSync | None = None,
    ) -> None:
        self._config = config
        self._key = key or config.key_bytes
        self._topics = DeviceTopics(config.topic_prefix, config.device_uuid)
        self._link = link
        self._uplink = uplink
        self._clock = clock
        self._metrics = metrics
        self._tally = UpstreamCounts(metrics)
        self._on_desired = on_desired
        self._on_method = on_method
        self._twins = twins
        self._on_link = on_link
        self._desired_version = desired_version
        self._events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._arriving = threading.Lock()
        self._arrived_bytes = 0
        self._data_announced = threading.Event()
        self._early_desired: bytes | None = None
        self._retry_s: float | None = None
        self._trouble = ""
        self._link_problem = ""
        self.connected = False
        self.rounds = 0
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Connect and begin."""
        self._thread.start()
        self._link.open(self, self._wanted_topics())

    def close(self) -> None:
        """Disconnect; what was not acknowledged stays in the buffer."""
        self._link.close()
        self._events.put(None)
        self._thread.join()

    @property
    def session(self) -> str | None:
        """The session that the hub gave, None while there is none."""
        return self._uplink.session

    @property
    def refused(self) -> str:
        """Why the hub refuses a session, "" when it does not."""
        return self._uplink.refused

    @property
    def revoked(self) -> bool:
        """Whether the hub said that this device was revoked."""
        return self._uplink.revoked

    @property
    def standing(self) -> LinkStatus:
        """How this device stands with its hub."""
        return standing(
            in_session=self.session is not None,
            revoked=self.revoked,
            refused=self.refused,
            connected=self.connected,
            problem=self._link_problem,
        )

    def new_data(self) -> None:
        """There are new messages in the buffer. Called from any thread, often."""
        if not self._data_announced.is_set():
            self._data_announced.set()
            self._events.put(_NewData())

    def publish_answer(self, payload: bytes) -> bool:
        """Send a part of a method's answer; False when it could not be handed over."""
        return self._link.publish(self._topics.answers, self._sealed("answers", payload))

    def publish_status(self, payload: bytes) -> bool:
        """Send a StatusReport; False when it could not be handed over."""
        return self._link.publish(self._topics.status, self._sealed("status", payload))

    def on_connected(self) -> None:
        self._events.put(_Connected())

    def on_disconnected(self, reason: str) -> None:
        self._events.put(_Disconnected(reason))

    def on_message(self, topic: str, payload: bytes) -> None:
        size = len(payload) + ARRIVED_OVERHEAD_BYTES
        with self._arriving:
            fits = self._arrived_bytes + size <= ARRIVED_BYTES_MAX
            self._arrived_bytes += size if fits else 0
        if fits:
            self._events.put(_Arrived(topic, payload))
        else:
            # Whoever floods our topics does not get our memory; the hub says again what was not heard.
            self._metrics.count("hedgerow_agent_messages_refused_total", key="flooded")

    def _run(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=self._patience_s())
            except queue.Empty:
                event = _NewData()
            if event is None:
                return
            try:
                self._take(event)
                self._send_what_is_due()
                self._trouble = ""
            except HedgerowError as problem:
                # The buffer's disk, most of all; the link and the modules go on, and the next event tries again.
                self._wait_for_better(str(problem))
            except Exception:
                log.exception("%s tripped the courier", type(event).__name__)
                self._retry_s = TROUBLE_RETRY_S
            self.rounds += 1

    def _wait_for_better(self, trouble: str) -> None:
        """Try again soon; say it once, not with every try."""
        if trouble != self._trouble:
            log.warning("telemetry waits: %s", trouble)
        self._trouble, self._retry_s = trouble, TROUBLE_RETRY_S

    def _patience_s(self) -> float | None:
        if self._retry_s is not None:
            return self._retry_s
        twins = self._twins if self._uplink.phase == "open" else None
        wakes_s = (self._uplink.next_wake_s(), None if twins is None else twins.next_wake_s())
        wake_s = min((wake_s for wake_s in wakes_s if wake_s is not None), default=None)
        return None if wake_s is None else max(0.0, wake_s - self._clock.monotonic_s())

    def _take(self, event: _Event) -> None:
        now_s = self._clock.monotonic_s()
        match event:
            case _Connected():
                log.info("connected to the broker")
                self.connected, self._link_problem = True, ""
                self._uplink.connected(now_s)
                self._link_changed(now_s)
            case _Disconnected():
                self.connected, self._link_problem = False, event.reason
                self._uplink.disconnected()
                if self._twins is not None:
                    self._twins.closed()
                self._link_changed(now_s)
            case _Arrived():
                with self._arriving:
                    self._arrived_bytes -= len(event.payload) + ARRIVED_OVERHEAD_BYTES
                self._arrived(event.topic, event.payload, now_s)
            case _NewData():
                self._data_announced.clear()

    def _arrived(self, topic: str, payload: bytes, now_s: float) -> None:
        try:
            if topic == self._topics.desired:
                self._desired(payload)
            elif topic == self._topics.welcome:
                welcome = decode(self._unsealed("welcome", payload), Welcome)
                self._uplink.welcomed(welcome, now_s)
                self._open_twins(welcome)
                self._after_welcome()
            elif topic == self._topics.acks:
                ack = decode(self._unsealed("acks", payload), TelemetryAck)
                self._uplink.acknowledged(ack, now_s)
                self._metrics.count("hedgerow_agent_acks_total")
                self._tally.acknowledged(ack, now_s)
            elif topic == self._topics.twin_acks and self._twins is not None:
                self._twins.acknowledged(decode(self._unsealed("twin-acks", payload), TwinAck), now_s)
            elif topic == self._topics.methods and self._on_method is not None:
                self._on_method(payload, self._uplink.session, self._uplink.incarnation)
        except HedgerowError as problem:
            self._metrics.count("hedgerow_agent_messages_refused_total", key=problem.key)
            log.warning("a message on %s was dropped: %s", topic, problem)

    def _desired(self, envelope: bytes) -> None:
        if not envelope:
            return  # a retained one was taken away: this device is no longer the workspace's, and the hub says no more
        if self._uplink.phase == "open" and self._uplink.incarnation is not None:
            self._on_desired(envelope, self._uplink.incarnation)
        else:
            # Signed, but of which incarnation the hub is only the welcome tells; the newest one waits for it.
            self._early_desired = envelope

    def _open_twins(self, welcome: Welcome) -> None:
        """Hubs of before do not take twins: nothing is said to them, and everything to the one that comes after."""
        session, incarnation = self._uplink.session, self._uplink.incarnation
        if self._twins is None or welcome.session != session or welcome.incarnation != incarnation:
            return
        if session is not None and incarnation is not None and welcome.reads_twins:
            self._twins.opened(session, incarnation)
        else:
            self._twins.closed()

    def _after_welcome(self) -> None:
        if self._uplink.phase == "open" and self._early_desired is not None:
            envelope, self._early_desired = self._early_desired, None
            self._desired(envelope)
        self._link_changed(self._clock.monotonic_s())

    def _link_changed(self, now_s: float) -> None:
        self._tally.session(has_one=self._uplink.session is not None, now_s=now_s)
        self._on_link()

    def _send_what_is_due(self) -> None:
        self._retry_s = None
        time_ms = unix_ms(self._clock.now())
        outgoing = self._uplink.outgoing(self._clock.monotonic_s(), time_ms=time_ms, desired_version=self._desired_version())
        for place, item in enumerate(outgoing):
            if not self._send(item):
                self._give_back(outgoing[place:])
                return
        self._send_twins()

    def _send_twins(self) -> None:
        """After telemetry, which they must not keep waiting."""
        if self._twins is None or self._uplink.phase != "open":
            return
        reports = self._twins.outgoing(self._clock.monotonic_s())
        for place, report in enumerate(reports):
            if not self._link.publish(self._topics.twins, self._sealed("twins", encode(report))):
                self._retry_s = CONGESTED_RETRY_S if self.connected else None
                for unsent in reports[place:]:
                    self._twins.unsent(unsent)
                return

    def _send(self, item: Outgoing) -> bool:
        if isinstance(item, Hello):
            return self._link.publish(self._topics.hello, self._sealed("hello", encode(item)))
        self._metrics.count("hedgerow_agent_batches_sent_total")
        self._tally.sent(item, self._clock.monotonic_s())
        return self._link.publish(self._topics.telemetry, self._sealed("telemetry", encode(item)))

    def _give_back(self, items: list[Outgoing]) -> None:
        self._retry_s = CONGESTED_RETRY_S if self.connected else None
        for item in reversed(items):
            if not isinstance(item, Hello):
                self._uplink.unsent(item)

    def _wanted_topics(self) -> list[str]:
        topics = [self._topics.welcome, self._topics.acks, self._topics.desired]
        topics += [] if self._twins is None else [self._topics.twin_acks]
        return topics if self._on_method is None else [*topics, self._topics.methods]

    def _sealed(self, leaf: str, payload: bytes) -> bytes:
        return seal(self._key(), self._config.device_uuid, leaf, payload)

    def _unsealed(self, leaf: str, message: bytes) -> bytes:
        return unseal(self._key(), self._config.device_uuid, leaf, message)
