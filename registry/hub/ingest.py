"""Telemetry batches into the series database: all that wait, of all devices, in one transaction; then the answers.

The caller publishes the answers after the commit, and only then: what was acknowledged is stored. One answer per
stream covers all of its batches, for watermarks only grow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from hedgerow.contracts.telemetry import TelemetryBatch
from registry.hub.chain import Below, Continues, Judgement, Refuse, RefusedBecause, judge
from registry.store import telemetry
from registry.store.telemetry import Arrived, GapRow, Mark, StreamKey


@dataclass(frozen=True)
class BatchUplink:
    """A batch that came sealed by its device in its session; ``payload`` are its exact bytes."""

    batch: TelemetryBatch
    payload: bytes

    @property
    def key(self) -> StreamKey:
        return StreamKey(self.batch.device_uuid, self.batch.epoch, self.batch.stream)


@dataclass(frozen=True)
class StreamAnswer:
    """Where a stream stands after this transaction, why something of it was refused, and how many of it were reported lost."""

    key: StreamKey
    mark: Mark
    refused: RefusedBecause | None = None
    reason: str = ""
    lost: int = 0


def store_batches(connection: Connection, uplinks: Sequence[BatchUplink], now_ms: int) -> list[StreamAnswer]:
    """Store what continues its stream, quarantine what contradicts it; one answer per stream, in order of arrival."""
    writer = _Writer(connection, telemetry.marks(connection, (uplink.key for uplink in uplinks), lock=True), now_ms)
    for uplink in uplinks:
        writer.take(uplink)
    return writer.finish()


@dataclass
class _Writer:
    """One transaction. Marks are moved in memory and written at the end; messages are written as late as possible."""

    connection: Connection
    marks: dict[StreamKey, Mark]
    now_ms: int
    refused: dict[StreamKey, Refuse] = field(default_factory=dict)
    seen: dict[StreamKey, None] = field(default_factory=dict)
    moved: set[StreamKey] = field(default_factory=set)
    arrived: list[Arrived] = field(default_factory=list)
    gaps: list[GapRow] = field(default_factory=list)
    lost: Counter[StreamKey] = field(default_factory=Counter)

    def take(self, uplink: BatchUplink) -> None:
        key = uplink.key
        self.seen[key] = None
        before = self.refused.get(key)
        if before is not None and before.because == "chain-mismatch":
            return  # the device starts a new epoch; the rest of this one contradicts as well
        match self._judgement(uplink):
            case Continues(mark, messages, gaps):
                self.arrived.extend(Arrived(key, message) for message in messages)
                for gap in gaps:
                    self.lost[key] += gap.last_sequence - gap.first_sequence + 1
                    self.gaps.append(GapRow(key, gap.first_sequence, gap.last_sequence, gap.reason))
                if mark != self.marks[key]:
                    self.marks[key] = mark
                    self.moved.add(key)
            case Refuse() as refusal:
                self.refused[key] = refusal
                if refusal.because == "chain-mismatch":
                    device = key.device_uuid
                    telemetry.add_to_quarantine(self.connection, device, refusal.reason, uplink.payload, self.now_ms)
            case Below():
                pass  # stored before: the answer says so

    def finish(self) -> list[StreamAnswer]:
        self._write()
        telemetry.put_marks(self.connection, {key: self.marks[key] for key in self.moved}, self.now_ms)
        answers = []
        for key in self.seen:
            refusal = self.refused.get(key)
            because, reason = (refusal.because, refusal.reason) if refusal else (None, "")
            answers.append(StreamAnswer(key, self.marks[key], because, reason, self.lost[key]))
        return answers

    def _judgement(self, uplink: BatchUplink) -> Judgement:
        found = judge(uplink.batch, self.marks[uplink.key])
        if isinstance(found, Below) and not self._is_stored(uplink, found):
            return Refuse("chain-mismatch", f"its messages {found.first} to {found.last} differ from the stored ones")
        return found

    def _is_stored(self, uplink: BatchUplink, below: Below) -> bool:
        """Equal to what is stored, as far as that was kept; a message whose number was reported lost is not."""
        if uplink.batch.gap is not None:
            return True  # it brings nothing that could be lost
        self._write()
        kept = telemetry.contents(self.connection, uplink.key, below.first, below.last)
        for message in uplink.batch.messages:
            stored = kept.get(message.sequence)
            if stored is not None and stored != telemetry.content_of(message):
                return False
        absent = [message.sequence for message in uplink.batch.messages if message.sequence not in kept]
        if not absent or not telemetry.gap_between(self.connection, uplink.key, absent[0], absent[-1]):
            return True
        # Between them lies a hole, perhaps not where they are.
        return not any(telemetry.gap_between(self.connection, uplink.key, sequence, sequence) for sequence in absent)

    def _write(self) -> None:
        telemetry.add_messages(self.connection, self.arrived, self.now_ms)
        telemetry.add_gaps(self.connection, self.gaps, self.now_ms)
        self.arrived.clear()
        self.gaps.clear()
