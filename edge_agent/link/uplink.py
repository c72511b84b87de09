"""The device's half of the telemetry protocol (``contracts/telemetry.py``), without I/O.

Theory of operation.

- ``offline``: no connection. ``greeting``: a hello is out. ``open``: a welcome gave a session. ``refused``: the hub has another
  holder of the lease, or did not answer; a hello follows after a delay.
- In ``open`` a stream has two marks: what the hub has (``acked``) and what was sent (``sent``). Batches go out while the window
  has room. Nothing is remembered of a batch but where it ended: what is missing is read from the buffer again.
- An acknowledgement moves ``acked``. When none comes in time, ``sent`` goes back to ``acked`` (the whole window is sent
  again); when that does not help either, a new hello asks the hub where it stands.
- A place in a stream that the hub knows and the buffer contradicts means that somebody else wrote under our keys, or that our
  disk went back in time: a new epoch begins.
- Whose batch goes next, and how fast backfill may go, is decided by ``link/turns.py``.
- A connection that ends with batches on their way halves the batch size: some brokers cut off what is too large for them.

All methods are called by one thread (``link/courier.py``), which hands in monotonic seconds as ``now_s``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import msgspec

from edge_agent.link.turns import Candidate, RateLimit, Turns
from edge_agent.telemetry.entries import START, Mark, Portion
from hedgerow.backoff import Backoff
from hedgerow.contracts.telemetry import Hello, TelemetryAck, TelemetryBatch, TelemetryMessage, Welcome

MESSAGES_PER_BATCH = 200
WINDOW_BATCHES = 16
BATCH_BYTES_MIN = 4096
HELLO_TIMEOUT_S = 5.0
RETRANSMIT_S = 5.0
RETRANSMITS_BEFORE_HELLO = 1
# Everything that is sent in a session renews its lease; a hello now and then finds out that it was lost all the same.
RENEW_AFTER_LEASES = 5.0
RETRY = Backoff(first_s=1.0, factor=2.0, cap_s=50.0, immediate_s=0.5)
# Nobody takes a revocation back, but a hub that was restored from a backup may know nothing of it.
REVOKED_RETRY = Backoff(first_s=600.0, immediate_s=600.0, cap_s=600.0)
log = logging.getLogger(__name__)

Phase = Literal["offline", "greeting", "open", "refused"]


class Backlog(Protocol):
    """The telemetry buffer as the protocol needs it (``Outbox``)."""

    def streams(self) -> tuple[str, dict[str, Mark]]: ...
    def urgency(self, stream: str) -> int: ...
    def read_after(
        self, epoch: str, stream: str, mark: Mark, *, max_messages: int, max_bytes: int, holes: bool
    ) -> Portion | None: ...
    def settle(self, stream: str, mark: Mark) -> bool: ...
    def begin_epoch(self) -> str: ...


@dataclass(frozen=True)
class Identity:
    """What a hello says of this agent; ``instance`` is random for each start, ``starts`` counts them."""

    device_uuid: str
    instance: str
    starts: int
    agent_version: str


@dataclass(frozen=True)
class _Stream:
    """``acked`` is what the hub has, ``sent`` what was sent; up to ``backfill_until`` messages are older than the session."""

    acked: Mark
    sent: Mark
    backfill_until: int


@dataclass(frozen=True)
class _Flight:
    """A batch on its way."""

    stream: str
    last: int
    sent_at_s: float


Outgoing = Hello | TelemetryBatch


class Uplink:
    """``random`` gives [0, 1); ``nonce`` gives fresh ids; ``backfill_per_s`` limits messages older than the session (0: not)."""

    def __init__(
        self,
        identity: Identity,
        backlog: Backlog,
        *,
        batch_bytes: int,
        random: Callable[[], float],
        nonce: Callable[[], str],
        backfill_per_s: float = 0.0,
    ) -> None:
        self._identity = identity
        self._backlog = backlog
        self._random = random
        self._new_nonce = nonce
        self._batch_bytes_max = batch_bytes
        self._batch_bytes = batch_bytes
        self.phase: Phase = "offline"
        self.session: str | None = None
        self.incarnation: str | None = None
        self.refused = ""
        self.revoked = False
        self._epoch = ""
        self._nonce = ""
        self._streams: dict[str, _Stream] = {}
        self._flights: list[_Flight] = []
        self._holes: dict[str, tuple[int, float]] = {}
        self._turns = Turns()
        self._backfill = RateLimit(backfill_per_s, MESSAGES_PER_BATCH)
        self._backfill_waits = False
        self._hub_reads_holes = False
        self._retransmits = 0
        self._failures = 0
        self._hello_at_s: float | None = None

    def connected(self, now_s: float) -> None:
        """There is a connection: a hello is due at once."""
        self.phase, self._hello_at_s, self._failures = "greeting", now_s, 0

    def disconnected(self) -> None:
        """The connection has gone; the session stays ours until its lease ends, but is asked for again."""
        if self._flights:
            self._batch_bytes = max(BATCH_BYTES_MIN, self._batch_bytes // 2)
        self.phase, self._hello_at_s = "offline", None
        self._close_session()

    def welcomed(self, welcome: Welcome, now_s: float) -> None:
        """The hub's answer to the last hello; any other welcome is ignored."""
        if welcome.nonce != self._nonce or welcome.device_uuid != self._identity.device_uuid or self.phase == "offline":
            return
        if welcome.session is None:
            self.phase, self.refused = "refused", welcome.refused or "another holder of this credential has the session"
            self.revoked = welcome.revoked
            self._close_session()
            self._greet_later(now_s)
            if welcome.revoked:
                self._hello_at_s = now_s + REVOKED_RETRY.delay_s(1, self._random)
            return
        if not self._resume(welcome):
            self._start_epoch("the hub's watermark is not in this buffer", now_s)
            return
        self.phase, self.refused, self.revoked, self._failures = "open", "", False, 0
        self._hub_reads_holes = welcome.reads_holes
        self._hello_at_s = now_s + max(1.0, welcome.lease_s * RENEW_AFTER_LEASES)

    def acknowledged(self, ack: TelemetryAck, now_s: float) -> None:
        """A commit of the hub. Acks of another session, incarnation or epoch, and of unknown streams, are ignored."""
        ours = (ack.session, ack.incarnation, ack.epoch) == (self.session, self.incarnation, self._epoch)
        if self.phase != "open" or not ours or ack.device_uuid != self._identity.device_uuid or ack.stream not in self._streams:
            return
        if ack.refused == "chain-mismatch":
            self._start_epoch("the hub has other messages under these sequences", now_s)
            return
        mark, stream = Mark(ack.watermark, ack.chain), self._streams[ack.stream]
        if mark.sequence < stream.acked.sequence or self._is_old_hole(ack, now_s):
            return  # overtaken by a later one
        if mark.sequence > stream.acked.sequence:
            if not self._backlog.settle(ack.stream, mark):
                self._start_epoch("the hub acknowledged what is not in this buffer", now_s)
                return
            self._progress()
        sent = mark if ack.refused == "sequence-hole" or mark.sequence > stream.sent.sequence else stream.sent
        self._streams[ack.stream] = replace(stream, acked=mark, sent=sent)
        keep_from = mark.sequence if ack.refused is None else -1
        self._flights = [f for f in self._flights if f.stream != ack.stream or (keep_from >= 0 and f.last > keep_from)]

    def outgoing(self, now_s: float, *, time_ms: int, desired_version: int) -> list[Outgoing]:
        """What is to be sent now. ``time_ms`` is the wall clock for the hello, which also names the accepted desired version."""
        if self._hello_at_s is not None and now_s >= self._hello_at_s:
            return [self._hello(now_s, time_ms, desired_version)]
        if self.phase != "open":
            return []
        self._retransmit_if_due(now_s)
        return list(self._fill_window(now_s)) if self.phase == "open" else []

    def unsent(self, batch: TelemetryBatch) -> None:
        """``batch`` could not be handed to the connection: it is read again next time."""
        stream = self._streams.get(batch.stream)
        if stream is not None:
            self._streams[batch.stream] = replace(stream, sent=Mark(batch.first_sequence - 1, batch.previous_chain))
            self._flights = [f for f in self._flights if f.stream != batch.stream or f.last < batch.first_sequence]

    def next_wake_s(self) -> float | None:
        """When ``outgoing`` has something to do at the latest, in monotonic seconds."""
        times = [self._hello_at_s] if self._hello_at_s is not None else []
        if self._flights:
            times.append(self._flights[0].sent_at_s + RETRANSMIT_S)
        backfill_at_s = self._backfill.again_at_s() if self._backfill_waits and len(self._flights) < WINDOW_BATCHES else None
        if backfill_at_s is not None:
            times.append(backfill_at_s)
        return min(times, default=None)

    def _hello(self, now_s: float, time_ms: int, desired_version: int) -> Hello:
        self._nonce = self._new_nonce()
        self._epoch, streams = self._backlog.streams()
        if self.phase == "refused":
            self.phase = "greeting"
        # Asked again when no answer comes; a session that is open goes on meanwhile.
        self._greet_later(now_s, at_least_s=HELLO_TIMEOUT_S)
        return Hello(
            device_uuid=self._identity.device_uuid,
            nonce=self._nonce,
            instance=self._identity.instance,
            starts=self._identity.starts,
            epoch=self._epoch,
            streams=sorted(streams),
            agent_version=self._identity.agent_version,
            accepted_desired_version=desired_version,
            time_ms=time_ms,
        )

    def _greet_later(self, now_s: float, at_least_s: float = 0.0) -> None:
        self._hello_at_s = now_s + max(at_least_s, RETRY.delay_s(self._failures, self._random))
        self._failures += 1

    def _resume(self, welcome: Welcome) -> bool:
        """Take over the hub's watermarks; False when one contradicts the buffer."""
        epoch, newest = self._backlog.streams()
        if epoch != self._epoch:
            return False
        hub = {w.stream: Mark(w.watermark, w.chain) for w in welcome.watermarks if w.epoch == epoch}
        renewed = welcome.session == self.session and welcome.incarnation == self.incarnation
        for stream in hub.keys() | newest.keys():
            mark, before = hub.get(stream, START), self._streams.get(stream)
            if renewed and before is not None and mark.sequence < before.acked.sequence:
                mark = before.acked  # this welcome was overtaken by an acknowledgement; only another incarnation goes back
            if (before is None or before.acked != mark) and not self._backlog.settle(stream, mark):
                return False
            if renewed and before is not None and mark.sequence <= before.sent.sequence:
                # A renewal in the middle of things: what is on its way stays on its way.
                self._streams[stream] = replace(before, acked=max(mark, before.acked, key=lambda m: m.sequence))
            else:
                self._streams[stream] = _Stream(mark, mark, newest.get(stream, mark).sequence)
        if not renewed:
            self._flights, self._retransmits = [], 0
        self.session, self.incarnation = welcome.session, welcome.incarnation
        return True

    def _start_epoch(self, reason: str, now_s: float) -> None:
        log.warning("a new epoch begins: %s", reason)
        self._backlog.begin_epoch()
        self._close_session()
        self.phase, self._hello_at_s = "greeting", now_s

    def _close_session(self) -> None:
        self.session = None
        self._streams, self._flights, self._retransmits, self._holes = {}, [], 0, {}

    def _is_old_hole(self, ack: TelemetryAck, now_s: float) -> bool:
        """Every batch behind a lost one is refused; only the first refusal sends the window again."""
        if ack.refused != "sequence-hole":
            return False
        before = self._holes.get(ack.stream)
        old = before is not None and before[0] == ack.watermark and now_s < before[1] + RETRANSMIT_S
        if not old:
            self._holes[ack.stream] = (ack.watermark, now_s)
        return old

    def _progress(self) -> None:
        self._retransmits = 0
        self._batch_bytes = min(self._batch_bytes_max, self._batch_bytes + self._batch_bytes // 8)

    def _retransmit_if_due(self, now_s: float) -> None:
        if not self._flights or now_s < self._flights[0].sent_at_s + RETRANSMIT_S:
            return
        if self._retransmits >= RETRANSMITS_BEFORE_HELLO:
            # Perhaps the hub does not know this session any more.
            self._close_session()
            self.phase, self._hello_at_s = "greeting", now_s
            return
        self._retransmits += 1
        self._flights = []
        self._streams = {name: replace(stream, sent=stream.acked) for name, stream in self._streams.items()}

    def _fill_window(self, now_s: float) -> list[TelemetryBatch]:
        batches: list[TelemetryBatch] = []
        _, newest = self._backlog.streams()
        while len(self._flights) < WINDOW_BATCHES:
            candidates = self._candidates(newest, now_s)
            if not candidates:
                break
            chosen = self._turns.next(candidates)
            stream = self._streams[chosen.stream]
            room = self._backfill.room(now_s, MESSAGES_PER_BATCH) if chosen.backfill else MESSAGES_PER_BATCH
            portion = self._backlog.read_after(
                self._epoch,
                chosen.stream,
                stream.sent,
                max_messages=room,
                max_bytes=self._batch_bytes,
                holes=self._hub_reads_holes,
            )
            if portion is None:
                break  # another epoch has begun: the hub's answers will tell
            batches.append(self._batch(portion, stream))
            self._backfill.used(sum(message.sequence <= stream.backfill_until for message in portion.messages))
            self._streams[chosen.stream] = replace(stream, sent=portion.end)
            self._flights.append(_Flight(chosen.stream, portion.end.sequence, now_s))
        return batches

    def _candidates(self, newest: dict[str, Mark], now_s: float) -> list[Candidate]:
        """Streams that may send now."""
        backfill_room = self._backfill.room(now_s, MESSAGES_PER_BATCH) > 0
        self._backfill_waits = False
        found: list[Candidate] = []
        for name, mark in newest.items():
            stream = self._streams.setdefault(name, _Stream(START, START, 0))
            if stream.sent.sequence >= mark.sequence:
                continue
            backfill = stream.sent.sequence < stream.backfill_until
            if backfill and not backfill_room:
                self._backfill_waits = True
                continue
            in_flight = sum(flight.stream == name for flight in self._flights)
            found.append(Candidate(name, self._backlog.urgency(name), backfill, in_flight))
        return found

    def _batch(self, portion: Portion, stream: _Stream) -> TelemetryBatch:
        old = stream.backfill_until
        return TelemetryBatch(
            device_uuid=self._identity.device_uuid,
            session=self.session or "",
            epoch=self._epoch,
            stream=portion.stream,
            first_sequence=portion.begin.sequence + 1,
            previous_chain=portion.begin.chain,
            chain=portion.end.chain,
            messages=[m if m.sequence > old else _historical(m) for m in portion.messages],
            gap=portion.gap,
            holes=list(portion.holes),
        )


def _historical(message: TelemetryMessage) -> TelemetryMessage:
    return msgspec.structs.replace(message, historical=True)
