"""The hub's half of the telemetry protocol in memory, as simple as can be. It knows the contracts only.

What it stores it checks (chain, sequence), so a test sees every message once, or a refusal.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Literal

import msgspec

from hedgerow.contracts.telemetry import (
    CHAIN_START,
    Hello,
    TelemetryAck,
    TelemetryBatch,
    TelemetryGap,
    TelemetryMessage,
    Watermark,
    Welcome,
    chain_over,
)

Key = tuple[str, str]
Refused = Literal["chain-mismatch", "sequence-hole"] | None


class HubModel:
    """One device's sessions and streams. ``refuse`` is the reason by which sessions are refused ("" grants them); without
    ``reads_holes`` it is a hub of 0.1.0."""

    def __init__(self) -> None:
        self.refuse = ""
        self.reads_holes = False
        self.incarnation = "inc-1"
        self.session: str | None = None
        self.hellos: list[Hello] = []
        self.batches: list[TelemetryBatch] = []
        self.stored: dict[Key, list[TelemetryMessage]] = defaultdict(list)
        self.gaps: dict[Key, list[TelemetryGap]] = defaultdict(list)
        self.marks: dict[Key, tuple[int, str]] = {}
        self.refusals: list[Refused] = []
        self._numbers = itertools.count(1)

    def hello(self, hello: Hello) -> Welcome:
        self.hellos.append(hello)
        self.session = None if self.refuse else f"session-{next(self._numbers)}"
        return Welcome(
            device_uuid=hello.device_uuid,
            nonce=hello.nonce,
            session=self.session,
            incarnation=self.incarnation,
            lease_s=60.0,
            watermarks=[
                Watermark(epoch=epoch, stream=stream, watermark=mark, chain=chain)
                for (epoch, stream), (mark, chain) in self.marks.items()
                if epoch == hello.epoch
            ],
            refused=self.refuse,
            reads_holes=self.reads_holes,
        )

    def batch(self, batch: TelemetryBatch) -> TelemetryAck | None:
        """The acknowledgement, None for a session that is over."""
        self.batches.append(batch)
        if batch.session != self.session:
            return None
        refused = self._store((batch.epoch, batch.stream), batch)
        if refused:
            self.refusals.append(refused)
        mark, chain = self.marks.get((batch.epoch, batch.stream), (0, CHAIN_START))
        return TelemetryAck(
            device_uuid=batch.device_uuid,
            session=batch.session,
            incarnation=self.incarnation,
            epoch=batch.epoch,
            stream=batch.stream,
            watermark=mark,
            chain=chain,
            refused=refused,
        )

    def restore(self, keep: int) -> None:
        """Like a restored backup: only the first ``keep`` messages of each stream, and a new incarnation."""
        self.incarnation = f"inc-{next(self._numbers)}"
        self.session = None
        for key, messages in self.stored.items():
            kept = [message for message in messages if message.sequence <= keep]
            self.stored[key] = kept
            self.gaps[key] = []
            self.marks[key] = (len(kept), chain_over(CHAIN_START, kept))

    def bodies(self, stream: str = "telemetry") -> list[str]:
        """Everything stored of a stream, in order of arrival, over all epochs."""
        return [message.body for (_, name), messages in self.stored.items() if name == stream for message in messages]

    def _store(self, key: Key, batch: TelemetryBatch) -> Refused:
        mark, chain = self.marks.get(key, (0, CHAIN_START))
        if batch.first_sequence > mark + 1:
            return "sequence-hole"
        if batch.gap is not None:
            if batch.gap.last_sequence > mark:
                self.gaps[key].append(batch.gap)
                self.marks[key] = (batch.gap.last_sequence, batch.chain)
            return None
        if batch.holes:
            assert self.reads_holes
            return self._store_with_holes(key, batch)
        known = mark - batch.first_sequence + 1
        if known > len(batch.messages):
            return None
        continues = chain_over(batch.previous_chain, batch.messages[:known]) == chain
        if not continues or chain_over(batch.previous_chain, batch.messages) != batch.chain:
            return "chain-mismatch"
        if known < len(batch.messages):
            self.stored[key] += batch.messages[known:]
            self.marks[key] = (batch.messages[-1].sequence, batch.chain)
        return None

    def _store_with_holes(self, key: Key, batch: TelemetryBatch) -> Refused:
        """Piece by piece, as if each had come alone."""
        chain, holes = batch.previous_chain, list(batch.holes)
        for message in batch.messages:
            while holes and holes[0].first_sequence < message.sequence:
                hole = holes.pop(0)
                gap = TelemetryGap(first_sequence=hole.first_sequence, last_sequence=hole.last_sequence, reason=hole.reason)
                if self._store(key, self._piece(batch, hole.first_sequence, chain, hole.chain, gap=gap)):
                    return "chain-mismatch"
                chain = hole.chain
            after = chain_over(chain, [message])
            if self._store(key, self._piece(batch, message.sequence, chain, after, messages=[message])):
                return "chain-mismatch"
            chain = after
        return None if (chain, holes) == (batch.chain, []) else "chain-mismatch"

    @staticmethod
    def _piece(batch: TelemetryBatch, first: int, before: str, after: str, **content: object) -> TelemetryBatch:
        changed = {"first_sequence": first, "previous_chain": before, "chain": after, "messages": [], "holes": []}
        return msgspec.structs.replace(batch, **(changed | content))
