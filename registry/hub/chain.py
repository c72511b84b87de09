"""One telemetry batch against the watermark of its stream: what to store, what to refuse. Pure.

The watermark is the highest stored sequence and the chain value there. A batch that reaches it must continue exactly
this chain, wherever its own boundaries are. A batch that ends below it was stored before, if its content is the same:
only the stored messages can tell, so the caller compares them. Holes between messages are gaps that carry the chain
across themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hedgerow.contracts.telemetry import TelemetryBatch, TelemetryGap, TelemetryHole, TelemetryMessage, chain_over, extend_chain
from registry.store.telemetry import Mark

RefusedBecause = Literal["chain-mismatch", "sequence-hole"]
_MAX_SEQUENCE = 2**63 - 1


@dataclass(frozen=True)
class Continues:
    """Store ``messages`` and ``gaps`` (none when all of it is stored already); the watermark is ``mark`` then."""

    mark: Mark
    messages: Sequence[TelemetryMessage] = ()
    gaps: Sequence[TelemetryGap] = ()


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
        if not batch.first_sequence == batch.gap.first_sequence <= batch.gap.last_sequence <= _MAX_SEQUENCE or batch.holes:
            return "its gap does not begin where the batch begins, or ends before it begins"
        return ""
    if not batch.holes:
        numbers = range(batch.first_sequence, batch.first_sequence + len(batch.messages))
        fits = all(message.sequence == number for message, number in zip(batch.messages, numbers, strict=True))
        return "" if fits and numbers.stop <= _MAX_SEQUENCE else "its messages are not numbered consecutively"
    expected = batch.first_sequence
    for part in _in_order(batch):
        first, last = _span(part)
        if first != expected or last < first:
            return "its messages are not numbered consecutively"
        expected = last + 1
    if batch.holes and batch.holes[-1].last_sequence >= batch.messages[-1].sequence:
        return "it ends with a hole"
    return "its numbers are too high" if expected > _MAX_SEQUENCE else ""


_Part = TelemetryMessage | TelemetryHole


def _in_order(batch: TelemetryBatch) -> list[_Part]:
    """Messages and holes by their first sequence."""
    return sorted([*batch.messages, *batch.holes], key=lambda part: _span(part)[0])


def _span(part: _Part) -> tuple[int, int]:
    if isinstance(part, TelemetryHole):
        return part.first_sequence, part.last_sequence
    return part.sequence, part.sequence


def _along_messages(batch: TelemetryBatch, mark: Mark) -> Judgement:
    if batch.holes:
        return _along_holes(batch, mark)
    known = mark.watermark - batch.first_sequence + 1
    chain = chain_over(batch.previous_chain, batch.messages[:known])
    if chain != mark.chain:
        return _differs(mark)
    new = batch.messages[known:]
    return _continues(batch, chain_over(chain, new), new, ())


def _along_holes(batch: TelemetryBatch, mark: Mark) -> Judgement:
    chain = batch.previous_chain
    if batch.first_sequence - 1 == mark.watermark and chain != mark.chain:
        return _differs(mark)
    messages: list[TelemetryMessage] = []
    gaps: list[TelemetryGap] = []
    for part in _in_order(batch):
        first, last = _span(part)
        if isinstance(part, TelemetryHole):
            chain = part.chain
            if last > mark.watermark:  # what is stored of its beginning is not lost
                first = max(first, mark.watermark + 1)
                gaps.append(TelemetryGap(first_sequence=first, last_sequence=last, reason=part.reason))
        else:
            chain = extend_chain(chain, part)
            if last > mark.watermark:
                messages.append(part)
        if last == mark.watermark and chain != mark.chain:
            return _differs(mark)
    return _continues(batch, chain, messages, gaps)


def _continues(
    batch: TelemetryBatch, chain: str, messages: Sequence[TelemetryMessage], gaps: Sequence[TelemetryGap]
) -> Judgement:
    if chain != batch.chain:
        return Refuse("chain-mismatch", "its chain value does not fit its own messages")
    return Continues(Mark(last_sequence(batch), chain), messages, gaps)


def _differs(mark: Mark) -> Refuse:
    return Refuse("chain-mismatch", f"its chain differs from the stored one at sequence {mark.watermark}")


def _across_gap(gap: TelemetryGap, batch: TelemetryBatch, mark: Mark) -> Judgement:
    if gap.first_sequence == mark.watermark + 1 and batch.previous_chain != mark.chain:
        return _differs(mark)
    if gap.last_sequence == mark.watermark:
        return Continues(mark) if batch.chain == mark.chain else _differs(mark)
    # What is stored of the gap's beginning is not lost.
    lost = TelemetryGap(first_sequence=mark.watermark + 1, last_sequence=gap.last_sequence, reason=gap.reason)
    return Continues(Mark(gap.last_sequence, batch.chain), gaps=[lost])
