"""One batch against one watermark."""

from __future__ import annotations

import msgspec
import pytest

from hedgerow.contracts.telemetry import TelemetryBatch, TelemetryHole
from registry.hub.chain import Below, Continues, Refuse, judge
from registry.store.telemetry import NOTHING, Mark
from tests.hub_parts import Tape


@pytest.fixture
def tape() -> Tape:
    made = Tape("u")
    made.record(*(f'{{"n": {n}}}' for n in range(1, 11)))
    return made


def mark(tape: Tape, at: int) -> Mark:
    return Mark(at, tape.chains[at])


def test_the_next_batch_continues(tape: Tape) -> None:
    assert judge(tape.batch(1, 4), NOTHING) == Continues(mark(tape, 4), tape.messages[:4])
    assert judge(tape.batch(5, 5), mark(tape, 4)) == Continues(mark(tape, 5), tape.messages[4:5])


@pytest.mark.parametrize(("first", "at"), [(1, 4), (4, 4), (3, 9), (10, 10), (1, 10)])
def test_only_what_is_above_the_watermark_is_new(tape: Tape, first: int, at: int) -> None:
    assert judge(tape.batch(first, 10), mark(tape, at)) == Continues(mark(tape, 10), tape.messages[at:])


def test_what_lies_below_has_to_be_compared(tape: Tape) -> None:
    assert judge(tape.batch(2, 6), mark(tape, 7)) == Below(2, 6)


def test_a_hole_is_refused(tape: Tape) -> None:
    found = judge(tape.batch(6, 8), mark(tape, 4))
    assert isinstance(found, Refuse)
    assert found.because == "sequence-hole"
    assert "begins at 6" in found.reason


@pytest.mark.parametrize("first", [1, 3, 5])
def test_another_writer_of_the_same_keys_is_unmasked_at_any_boundary(tape: Tape, first: int) -> None:
    other = Tape("u")
    other.record(*(f'{{"n": {n if n < 4 else -n}}}' for n in range(1, 11)))
    found = judge(other.batch(first, 8), mark(tape, 4))
    assert isinstance(found, Refuse)
    assert found.because == "chain-mismatch"


def test_a_gap_moves_the_watermark_across(tape: Tape) -> None:
    batch = tape.gap(5, 7)
    assert batch.gap is not None
    assert judge(batch, mark(tape, 4)) == Continues(mark(tape, 7), gaps=[batch.gap])


def test_what_is_stored_of_a_gap_is_not_lost(tape: Tape) -> None:
    found = judge(tape.gap(2, 7), mark(tape, 4))
    assert isinstance(found, Continues)
    (gap,) = found.gaps
    assert (gap.first_sequence, gap.last_sequence, found.mark) == (5, 7, mark(tape, 7))
    assert judge(tape.gap(2, 4), mark(tape, 4)) == Continues(mark(tape, 4))
    assert judge(tape.gap(2, 3), mark(tape, 4)) == Below(2, 3)


def test_a_gap_of_another_writer_is_refused(tape: Tape) -> None:
    other = Tape("u")
    other.record(*(["{}"] * 10))
    for batch in (other.gap(5, 7), other.gap(1, 4)):
        assert isinstance(judge(batch, mark(tape, 4)), Refuse)


def _altered(batch: TelemetryBatch, **changes: object) -> TelemetryBatch:
    return msgspec.structs.replace(batch, **changes)


@pytest.mark.parametrize("what", ["empty", "both", "skips", "starts elsewhere", "wrong chain", "gap elsewhere", "gap backwards"])
def test_a_batch_that_contradicts_itself_is_refused(tape: Tape, what: str) -> None:
    batch, gap = tape.batch(1, 3), tape.gap(1, 3)
    assert gap.gap is not None
    wrong = {
        "empty": _altered(batch, messages=[]),
        "both": _altered(batch, gap=gap.gap),
        "skips": _altered(batch, messages=[tape.messages[0], tape.messages[2]]),
        "starts elsewhere": _altered(batch, first_sequence=2),
        "wrong chain": _altered(batch, chain=tape.chains[5]),
        "gap elsewhere": _altered(gap, first_sequence=2),
        "gap backwards": _altered(gap, gap=msgspec.structs.replace(gap.gap, first_sequence=1, last_sequence=0)),
    }[what]
    found = judge(wrong, NOTHING)
    assert isinstance(found, Refuse)
    assert found.because == "chain-mismatch"


def thinned(tape: Tape, first: int, last: int, *holes: tuple[int, int]) -> TelemetryBatch:
    """A batch whose messages inside ``holes`` are lost."""
    lost = {number for begin, end in holes for number in range(begin, end + 1)}
    return _altered(
        tape.batch(first, last),
        messages=[message for message in tape.messages[first - 1 : last] if message.sequence not in lost],
        holes=[
            TelemetryHole(first_sequence=begin, last_sequence=end, reason="downsampled", chain=tape.chains[end])
            for begin, end in holes
        ],
    )


@pytest.mark.parametrize(
    ("at", "gaps", "new"),
    [
        (0, [(2, 2), (4, 6), (9, 9)], [1, 3, 7, 8, 10]),
        (2, [(4, 6), (9, 9)], [3, 7, 8, 10]),
        (5, [(6, 6), (9, 9)], [7, 8, 10]),
        (8, [(9, 9)], [10]),
        (10, [], []),
    ],
)
def test_holes_between_messages_are_gaps_that_carry_the_chain(
    tape: Tape, at: int, gaps: list[tuple[int, int]], new: list[int]
) -> None:
    found = judge(thinned(tape, 1, 10, (2, 2), (4, 6), (9, 9)), mark(tape, at))
    assert isinstance(found, Continues)
    assert found.mark == mark(tape, 10)
    assert [(gap.first_sequence, gap.last_sequence) for gap in found.gaps] == gaps
    assert [message.sequence for message in found.messages] == new


def test_holes_of_another_writer_are_refused(tape: Tape) -> None:
    other = Tape("u")
    other.record(*(f'{{"n": {n if n < 4 else -n}}}' for n in range(1, 11)))
    for at in (4, 6, 7):
        found = judge(thinned(other, 5, 10, (6, 6)), mark(tape, at))
        assert isinstance(found, Refuse)
        assert found.because == "chain-mismatch"


@pytest.mark.parametrize("holes", [[(1, 1)], [(4, 4)], [(3, 3)], [(2, 1)], [(2, 2), (2, 2)], [(2, 9)]])
def test_holes_that_do_not_fit_between_the_messages_are_refused(tape: Tape, holes: list[tuple[int, int]]) -> None:
    good = thinned(tape, 1, 3, (2, 2))
    assert isinstance(judge(good, NOTHING), Continues)
    bad = _altered(
        good,
        holes=[
            TelemetryHole(first_sequence=first, last_sequence=last, reason="quota", chain=tape.chains[last])
            for first, last in holes
        ],
    )
    assert isinstance(judge(bad, NOTHING), Refuse)
