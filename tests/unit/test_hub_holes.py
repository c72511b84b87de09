"""Batches that another hub's batches belong in front of: held for a moment, in order, never for ever."""

from __future__ import annotations

from hedgerow.contracts.document import encode
from registry.hub.holes import HOLD_S, Holes
from registry.hub.ingest import BatchUplink, StreamAnswer
from registry.store.telemetry import NOTHING, Mark, StreamKey
from tests.hub_parts import STREAM, Tape

KEY = StreamKey("d", "e1", STREAM)


def uplinks(*spans: tuple[int, int]) -> list[BatchUplink]:
    tape = Tape("d")
    tape.record(*("{}" for _ in range(20)))
    batches = [tape.batch(first, last, "s") for first, last in spans]
    return [BatchUplink(batch, encode(batch)) for batch in batches]


def spans(found: list[BatchUplink]) -> list[int]:
    return [uplink.batch.first_sequence for uplink in found]


def hole(mark: Mark = NOTHING) -> StreamAnswer:
    return StreamAnswer(KEY, mark, "sequence-hole", "a hole")


def test_a_batch_behind_a_hole_waits_and_is_tried_again_before_what_comes_later() -> None:
    holes = Holes()
    [third, fifth] = uplinks((3, 4), (5, 6))
    tried = holes.joined([fifth])
    assert holes.settle(tried, [hole()], 10.0) == []
    assert holes.devices == {"d"}
    assert holes.wake_in_s() is not None
    assert spans(holes.joined([third])) == [3, 5]


def test_when_the_hole_closes_nothing_waits_any_more() -> None:
    holes = Holes()
    tried = holes.joined(uplinks((3, 4)))
    holes.settle(tried, [hole()], 10.0)
    tried = holes.joined([])
    stored = StreamAnswer(KEY, Mark(4, "c"))
    assert holes.settle(tried, [stored], 10.1) == [stored]
    assert holes.wake_in_s() is None
    assert holes.joined([]) == []


def test_after_its_time_the_refusal_goes_out_and_nothing_is_kept() -> None:
    holes = Holes()
    holes.settle(holes.joined(uplinks((3, 4))), [hole()], 10.0)
    assert holes.settle(holes.joined([]), [hole()], 10.0 + HOLD_S / 2) == []
    assert holes.settle(holes.joined([]), [hole()], 10.0 + HOLD_S) == [hole()]
    assert holes.joined([]) == []


def test_a_newer_batch_does_not_lengthen_the_time_of_an_older_one() -> None:
    holes = Holes()
    holes.settle(holes.joined(uplinks((3, 4))), [hole()], 10.0)
    assert holes.settle(holes.joined(uplinks((5, 6))), [hole()], 10.0 + HOLD_S) == [hole()]


def test_what_was_stored_in_front_of_the_hole_is_acknowledged_at_once() -> None:
    holes = Holes()
    tried = holes.joined(uplinks((1, 2), (5, 6)))
    [answer] = holes.settle(tried, [hole(Mark(2, "c"))], 10.0)
    assert (answer.mark.watermark, answer.refused) == (2, None)
    assert spans(holes.joined([])) == [5]


def test_a_contradiction_is_never_held() -> None:
    holes = Holes()
    refused = StreamAnswer(KEY, NOTHING, "chain-mismatch", "it differs")
    assert holes.settle(holes.joined(uplinks((1, 2))), [refused], 10.0) == [refused]
    assert holes.wake_in_s() is None


def test_what_waits_is_bounded() -> None:
    holes = Holes()
    many = uplinks(*[(3, 4)] * 2000)
    assert holes.settle(holes.joined(many), [hole()], 10.0) == [hole()]
    assert holes.wake_in_s() is None
