"""One telemetry batch against the watermark of its stream: what to store, what to refuse. Pure.

The watermark is the highest stored sequence and the chain value there. A batch that reaches it must continue exactly
this chain, wherever its own boundaries are. A batch that ends below it was stored before, if its content is the same:
only the stored messages can tell, so the caller compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hedgerow.contracts.telemetry import TelemetryBatch, TelemetryGap, TelemetryMessage, chain_over
from registry.store.telemetry import Mark

RefusedBecause = Literal["chain-mismatch", "sequence-hole"]
_MAX_SEQUENCE = 2**63 - 1


@dataclass(frozen=True)
class Continues:
    """Store ``messages`` or ``gap`` (neither when all of it is stored already); the watermark is ``mark`` then."""

    mark: Mark
    messages: Sequence[TelemetryMessage] = ()
    gap: TelemetryGap | None = None


@dataclass(frozen=True)
class Below:
    """Everything in the batch is older than the watermark: compare with what is stored for ``first`` … ``last``."""

    first: int
    last: int


@dataclass(frozen=True)
class Refuse:
    """Nothing of the batch is stored."""

    because: RefusedBecause
    reason: str


Judgement = Continues | Below | Refuse


def judge(batch: TelemetryBatch, mark: Mark) -> Judgement:
    """What the hub does with ``batch`` when its stream stands at ``mark``."""
    problem = _malformed(batch)
    if problem:
        return Refuse("chain-mismatch", problem)
    first, last = batch.first_sequence, last_sequence(batch)
    if first > mark.watermark + 1:
        return Refuse("sequence-hole", f"it begins at {first}, the hub has everything up to {mark.watermark} only")
    if last < mark.watermark:
        return Below(first, last)
    return _across_gap(batch.gap, batch, mark) if batch.gap else _along_messages(batch, mark)


def last_sequence(batch: TelemetryBatch) -> int:
    """The last sequence that a well-formed batch covers."""
    return batch.gap.last_sequence if batch.gap else batch.messages[-1].sequence


def _malformed(batch: TelemetryBatch) -> str:
    if (batch.gap is None) == (not batch.messages):
        return "it has neither messages nor a gap, or both"
    if batch.gap is not None:
        if not batch.first_sequence == batch.gap.first_sequence <= batch.gap.last_sequence <= _MAX_SEQUENCE:
            return "its gap does not begin where the batch begins, or ends before it begins"
        return ""
    expected = range(batch.first_sequence, batch.first_sequence + len(batch.messages))
    if expected.stop > _MAX_SEQUENCE or any(
        message.sequence != number for message, number in zip(batch.messages, expected, strict=True)
    ):
        return "its messages are not numbered consecutively"
    return ""


def _along_messages(batch: TelemetryBatch, mark: Mark) -> Judgement:
    known = mark.watermark - batch.first_sequence + 1
    chain = chain_over(batch.previous_chain, batch.messages[:known])
    if chain != mark.chain:
        return Refuse("chain-mismatch", f"its chain differs from the stored one at sequence {mark.watermark}")
    new = batch.messages[known:]
    chain = chain_over(chain, new)
    if chain != batch.chain:
        return Refuse("chain-mismatch", "its chain value does not fit its own messages")
    return Continues(Mark(last_sequence(batch), chain), new)


def _across_gap(gap: TelemetryGap, batch: TelemetryBatch, mark: Mark) -> Judgement:
    if gap.first_sequence == mark.watermark + 1 and batch.previous_chain != mark.chain:
        return Refuse("chain-mismatch", f"its chain differs from the stored one at sequence {mark.watermark}")
    if gap.last_sequence == mark.watermark:
        if batch.chain != mark.chain:
            return Refuse("chain-mismatch", f"its chain differs from the stored one at sequence {mark.watermark}")
        return Continues(mark)
    # What is stored of the gap's beginning is not lost.
    lost = TelemetryGap(first_sequence=mark.watermark + 1, last_sequence=gap.last_sequence, reason=gap.reason)
    return Continues(Mark(gap.last_sequence, batch.chain), gap=lost)
