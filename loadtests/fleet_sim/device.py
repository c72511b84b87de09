"""One simulated device: the whole protocol of ``hedgerow/contracts/telemetry.py`` and nothing else, without I/O.

It keeps what was not acknowledged in memory (its "disk"), sends it in batches with a window, again when no answer comes, and
from the hub's watermark when the hub refuses a hole. Its connection hands in what arrives and takes what is to be sent.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.names import DeviceTopics
from hedgerow.contracts.seal import seal, unseal
from hedgerow.contracts.status import BufferStatus, DesiredOutcome, StatusReport
from hedgerow.contracts.telemetry import (
    CHAIN_START,
    Hello,
    TelemetryAck,
    TelemetryBatch,
    TelemetryMessage,
    Welcome,
    extend_chain,
)
from loadtests.fleet_sim.tally import Tally

STREAM = "telemetry"
MODULE = "sensor"
HELLO_AGAIN_S = 5.0
SEND_AGAIN_S = 5.0
REPORT_EVERY_S = 30.0
MESSAGES_PER_BATCH = 200
WINDOW = 8
# Answers that fail twice: perhaps the hub does not know the session any more.
_REPEATS_BEFORE_HELLO = 2


@dataclass(frozen=True, slots=True)
class _Kept:
    """A message that the hub has not acknowledged; ``chain`` is the value after it."""

    message: TelemetryMessage
    chain: str
    made_s: float


class SimDevice:
    """``send`` takes a topic's leaf and a sealed payload, and is only set while there is a connection.

    ``starts`` has to grow from run to run with the same devices: then the hub gives a session to the newest at once.
    """

    def __init__(self, config: DeviceConfig, tally: Tally, body: str, starts: int) -> None:
        self.config, self._tally, self._body = config, tally, body
        self.topics = DeviceTopics(config.topic_prefix, config.device_uuid)
        self._key = config.key_bytes()
        self._instance, self._epoch = secrets.token_hex(8), secrets.token_hex(8)
        self._starts = starts
        self._kept: deque[_Kept] = deque()
        self._last, self._chain = 0, CHAIN_START
        self._acked, self._acked_chain = 0, CHAIN_START
        self._sent = 0
        self._flights: deque[int] = deque()
        self._waits_since_s, self._repeats = 0.0, 0
        self._session, self._incarnation, self._nonce = "", "", ""
        self._hello_at_s, self._report_at_s, self._reports = 0.0, 0.0, 0
        self.send: Callable[[str, bytes], None] | None = None

    @property
    def waiting(self) -> int:
        """Messages without an acknowledgement."""
        return len(self._kept)

    @property
    def made(self) -> int:
        return self._last

    @property
    def in_session(self) -> bool:
        return bool(self._session)

    def connected(self, now_s: float, report_in_s: float) -> None:
        self._session, self._hello_at_s, self._report_at_s = "", now_s, now_s + report_in_s
        self.due(now_s)

    def disconnected(self) -> None:
        self.send, self._session = None, ""

    def make(self, now_s: float, time_ms: int) -> None:
        """A module hands over a message."""
        self._last += 1
        message = TelemetryMessage(sequence=self._last, time_ms=time_ms, module=MODULE, body=self._body)
        self._chain = extend_chain(self._chain, message)
        self._kept.append(_Kept(message, self._chain, now_s))
        self._tally.made += 1
        self._fill(now_s)

    def due(self, now_s: float) -> None:
        """Look at the clock: hello, retransmission, report."""
        if self.send is None:
            return
        if not self._session:
            if now_s >= self._hello_at_s:
                self._greet(now_s)
            return
        if self._flights and now_s >= self._waits_since_s + SEND_AGAIN_S:
            self._again(now_s)
        if now_s >= self._report_at_s:
            self._report_at_s += REPORT_EVERY_S
            self._report()

    def heard(self, leaf: str, payload: bytes, now_s: float) -> None:
        """A message of the hub. Raises HedgerowError for what it did not seal."""
        if leaf == "acks":
            self._acknowledged(decode(unseal(self._key, self.config.device_uuid, leaf, payload), TelemetryAck), now_s)
        elif leaf == "welcome":
            self._welcomed(decode(unseal(self._key, self.config.device_uuid, leaf, payload), Welcome), now_s)

    def _greet(self, now_s: float) -> None:
        self._nonce, self._hello_at_s = secrets.token_hex(8), now_s + HELLO_AGAIN_S
        self._tally.hellos += 1
        hello = Hello(
            device_uuid=self.config.device_uuid,
            nonce=self._nonce,
            instance=self._instance,
            starts=self._starts,
            epoch=self._epoch,
            streams=[STREAM],
            agent_version="fleet-sim",
            time_ms=0,
        )
        self._publish("hello", encode(hello))

    def _welcomed(self, welcome: Welcome, now_s: float) -> None:
        if welcome.nonce != self._nonce or self.send is None:
            return
        if welcome.session is None:
            self._tally.refusals["session"] += 1
            return
        self._session, self._incarnation = welcome.session, welcome.incarnation
        mark = next((m for m in welcome.watermarks if (m.epoch, m.stream) == (self._epoch, STREAM)), None)
        if mark is not None:
            self._settle(mark.watermark, mark.chain, now_s)
        self._sent, self._repeats = self._acked, 0
        self._flights.clear()
        self._fill(now_s)

    def _acknowledged(self, ack: TelemetryAck, now_s: float) -> None:
        if (ack.session, ack.incarnation, ack.epoch) != (self._session, self._incarnation, self._epoch):
            return
        self._settle(ack.watermark, ack.chain, now_s)
        if ack.refused is not None:
            self._tally.refusals[ack.refused] += 1
            # Every batch behind a lost one is refused; they were all sent before this watermark was known.
            if ack.refused == "sequence-hole" and self._sent > ack.watermark and now_s > self._waits_since_s + 0.5:
                self._sent, self._waits_since_s = ack.watermark, now_s
                self._flights.clear()
        self._fill(now_s)

    def _settle(self, watermark: int, chain: str, now_s: float) -> None:
        """The hub has everything up to ``watermark``."""
        while self._kept and self._kept[0].message.sequence <= watermark:
            kept = self._kept.popleft()
            self._acked, self._acked_chain = kept.message.sequence, kept.chain
            self._tally.stored(now_s - kept.made_s)
        if watermark > self._last or (watermark == self._acked and chain != self._acked_chain):
            self._tally.contradictions += 1
        while self._flights and self._flights[0] <= watermark:
            self._flights.popleft()
            self._waits_since_s, self._repeats = now_s, 0
        self._sent = max(self._sent, self._acked)

    def _fill(self, now_s: float) -> None:
        if self.send is None or not self._session:
            return
        while self._sent < self._last and len(self._flights) < WINDOW:
            first = self._sent - self._acked
            part = [self._kept[place] for place in range(first, min(first + MESSAGES_PER_BATCH, len(self._kept)))]
            before = self._kept[first - 1].chain if first else self._acked_chain
            if not self._flights:
                self._waits_since_s = now_s
            self._sent = part[-1].message.sequence
            self._flights.append(self._sent)
            self._tally.batches += 1
            self._publish("telemetry", encode(self._batch(part, before)))

    def _batch(self, part: list[_Kept], before: str) -> TelemetryBatch:
        return TelemetryBatch(
            device_uuid=self.config.device_uuid,
            session=self._session,
            epoch=self._epoch,
            stream=STREAM,
            first_sequence=part[0].message.sequence,
            previous_chain=before,
            chain=part[-1].chain,
            messages=[kept.message for kept in part],
        )

    def _again(self, now_s: float) -> None:
        self._tally.repeats += 1
        self._repeats += 1
        self._sent = self._acked
        self._flights.clear()
        if self._repeats >= _REPEATS_BEFORE_HELLO:
            self._session = ""
            self._greet(now_s)
        else:
            self._fill(now_s)

    def _report(self) -> None:
        self._reports += 1
        self._tally.reports += 1
        report = StatusReport(
            device_uuid=self.config.device_uuid,
            session=self._session,
            sequence=self._reports,
            reported_at=datetime.now(UTC),
            agent_version="fleet-sim",
            boot_id="simulated",
            desired=DesiredOutcome(version=0, code=200, message="a simulated device runs nothing"),
            modules={},
            buffer=BufferStatus(
                epoch=self._epoch, queued_messages=self.waiting, queued_bytes=self.waiting * len(self._body), dropped_messages=0
            ),
        )
        self._publish("status", encode(report))

    def _publish(self, leaf: str, payload: bytes) -> None:
        if self.send is not None:
            self.send(leaf, seal(self._key, self.config.device_uuid, leaf, payload))
