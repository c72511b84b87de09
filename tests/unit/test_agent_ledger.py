"""The telemetry buffer's rules against a model: whatever is dropped, acknowledged or restored, the hub can account for all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent.telemetry import ledger
from edge_agent.telemetry.ledger import START, Mark
from hedgerow.contracts.telemetry import CHAIN_START, chain_over

STREAM = "telemetry"


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    ledger.create(connection)
    yield connection
    connection.close()


def add(db: sqlite3.Connection, count: int, stream: str = STREAM) -> list[str]:
    bodies = [f'{{"n": {number}}}' for number in range(count)]
    for body in bodies:
        ledger.append(db, stream, "m", 1, body, None)
    return bodies


def everything_after(db: sqlite3.Connection, mark: Mark, stream: str = STREAM) -> list[ledger.Portion]:
    portions = []
    while (portion := ledger.read_after(db, stream, mark, max_messages=7, max_bytes=1500)) is not None:
        portions.append(portion)
        mark = portion.end
    return portions


def test_a_repeated_key_is_the_same_message(db: sqlite3.Connection) -> None:
    first = ledger.append(db, STREAM, "m", 1, "{}", "k1")
    again = ledger.append(db, STREAM, "m", 2, "{}", "k1")
    other = ledger.append(db, STREAM, "another", 2, "{}", "k1")
    assert (first.repeated, again.repeated, other.repeated) == (False, True, False)
    assert (again.stream, again.sequence) == (first.stream, first.sequence)
    assert ledger.totals(db).queued_messages == 2


def test_the_chain_is_the_contracts(db: sqlite3.Connection) -> None:
    add(db, 20)
    portions = everything_after(db, START)
    messages = [message for portion in portions for message in portion.messages]
    assert [message.sequence for message in messages] == list(range(1, 21))
    assert chain_over(CHAIN_START, messages) == portions[-1].end.chain


def test_what_the_hub_has_goes_first_and_silently(db: sqlite3.Connection) -> None:
    add(db, 10)
    assert ledger.settle(db, STREAM, everything_after(db, START)[0].end)
    freed = ledger.evict(db, 1, acked_only=False)
    assert freed > 0
    assert ledger.totals(db).dropped == 0
    assert everything_after(db, Mark(0, CHAIN_START))[0].gap is not None


def test_unacknowledged_messages_leave_as_one_gap_with_its_reason(db: sqlite3.Connection) -> None:
    add(db, 10)
    for _ in range(4):
        ledger.evict(db, 1, acked_only=False)
    gap, *rest = everything_after(db, START)
    assert gap.gap is not None
    assert (gap.gap.first_sequence, gap.gap.last_sequence, gap.gap.reason) == (1, 4, "quota")
    assert [message.sequence for portion in rest for message in portion.messages] == list(range(5, 11))
    assert gap.end.chain == rest[0].begin.chain
    assert ledger.totals(db).dropped == 4


def test_the_stream_with_the_oldest_message_gives_way(db: sqlite3.Connection) -> None:
    add(db, 1, "alarms")
    add(db, 3)
    add(db, 1, "alarms")
    ledger.evict(db, 1, acked_only=False)
    ledger.evict(db, 1, acked_only=False)
    assert [p.gap.last_sequence for p in everything_after(db, START, "alarms") if p.gap] == [1]
    assert [p.gap.last_sequence for p in everything_after(db, START) if p.gap] == [1]


def test_a_hub_that_was_restored_gets_what_is_here_and_a_gap_for_the_rest(db: sqlite3.Connection) -> None:
    add(db, 20)
    marks = {0: START} | {p.end.sequence: p.end for p in everything_after(db, START)}
    assert ledger.settle(db, STREAM, marks[14])
    for _ in range(9):
        ledger.evict(db, 1, acked_only=True)
    assert ledger.settle(db, STREAM, marks[7])
    gap, *rest = everything_after(db, marks[7])
    assert gap.gap is not None
    assert (gap.gap.first_sequence, gap.gap.last_sequence, gap.gap.reason) == (8, 9, "hub-restored")
    assert rest[0].messages[0].sequence == 10
    assert ledger.totals(db).queued_messages == 11


def test_marks_that_cannot_be_ours_are_refused(db: sqlite3.Connection) -> None:
    add(db, 5)
    assert not ledger.settle(db, STREAM, Mark(6, "f" * 64))
    assert not ledger.settle(db, STREAM, Mark(3, "f" * 64))
    assert not ledger.settle(db, "unknown", Mark(1, "f" * 64))
    assert ledger.settle(db, "unknown", START)


def test_an_ack_inside_a_gap_means_that_those_had_arrived(db: sqlite3.Connection) -> None:
    add(db, 10)
    on_the_way = ledger.read_after(db, STREAM, START, max_messages=3, max_bytes=10_000)
    assert on_the_way is not None
    for _ in range(6):
        ledger.evict(db, 1, acked_only=False)
    assert ledger.settle(db, STREAM, on_the_way.end)
    gap = everything_after(db, on_the_way.end)[0]
    assert gap.gap is not None
    assert (gap.gap.first_sequence, gap.gap.last_sequence) == (4, 6)
    assert gap.begin == on_the_way.end


def test_a_new_epoch_numbers_what_is_left_from_one(db: sqlite3.Connection) -> None:
    bodies = add(db, 10)
    before = ledger.epoch(db)
    assert ledger.settle(db, STREAM, everything_after(db, START)[0].end)
    ledger.evict(db, 100_000, acked_only=True)
    ledger.evict(db, 1, acked_only=False)
    ledger.begin_epoch(db)
    assert ledger.epoch(db) != before
    gap, *rest = everything_after(db, START)
    assert gap.gap is not None
    assert (gap.gap.first_sequence, gap.gap.last_sequence, gap.gap.reason) == (1, 1, "quota")
    assert [(m.sequence, m.body) for p in rest for m in p.messages] == [(2, bodies[8]), (3, bodies[9])]
    assert chain_over(gap.end.chain, [m for p in rest for m in p.messages]) == rest[-1].end.chain
    assert ledger.totals(db).queued_messages == 2


class LedgerAgainstHub(RuleBasedStateMachine):
    """A hub model takes portions (or loses them, or is restored); nothing may be missing, doubled or out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.written: list[str] = []
        self.hub: list[Mark] = [START]
        self.got: list[str | None] = []

    @initialize()
    def begin(self) -> None:
        ledger.create(self.db)

    @rule(count=st.integers(1, 8))
    def append(self, count: int) -> None:
        for _ in range(count):
            body = f'"{len(self.written)}"'
            self.written.append(body)
            ledger.append(self.db, STREAM, "m", 1, body, None)

    @rule(acked=st.booleans())
    def deliver(self, acked: bool) -> None:
        portion = ledger.read_after(self.db, STREAM, self.hub[-1], max_messages=3, max_bytes=10_000)
        if portion is None:
            return
        if portion.gap is None:
            assert chain_over(portion.begin.chain, portion.messages) == portion.end.chain
            self.got += [message.body for message in portion.messages]
        else:
            self.got += [None] * (portion.gap.last_sequence - portion.gap.first_sequence + 1)
        assert portion.begin == self.hub[-1]
        self.hub.append(portion.end)
        if acked:
            assert ledger.settle(self.db, STREAM, portion.end)

    @rule()
    def drop_one(self) -> None:
        ledger.evict(self.db, 1, acked_only=False)

    @precondition(lambda self: len(self.hub) > 1)
    @rule(data=st.data())
    def restore_the_hub(self, data: st.DataObject) -> None:
        back = data.draw(st.integers(0, len(self.hub) - 1))
        self.hub = self.hub[: back + 1]
        self.got = self.got[: self.hub[-1].sequence]
        assert ledger.settle(self.db, STREAM, self.hub[-1])

    @invariant()
    def totals_are_the_rows(self) -> None:
        if not self.db.execute("SELECT 1 FROM sqlite_master").fetchone():
            return
        totals = ledger.totals(self.db)
        rows, size = self.db.execute("SELECT count(*), coalesce(sum(size), 0) FROM messages").fetchone()
        queued = self.db.execute(
            "SELECT coalesce(sum(size), 0) FROM messages JOIN streams USING (stream) WHERE sequence > acked"
        ).fetchone()[0]
        assert totals.kept_bytes == size
        assert totals.queued_bytes == queued
        assert totals.queued_messages <= rows

    @invariant()
    def the_hub_can_account_for_everything(self) -> None:
        if not self.written:
            return
        mark, seen = self.hub[-1], list(self.got)
        for portion in everything_after(self.db, mark):
            if portion.gap is None:
                seen += [message.body for message in portion.messages]
            else:
                seen += [None] * (portion.gap.last_sequence - portion.gap.first_sequence + 1)
        assert len(seen) == len(self.written)
        assert all(body in (None, written) for body, written in zip(seen, self.written, strict=True))

    def teardown(self) -> None:
        self.db.close()


LedgerAgainstHub.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestLedgerAgainstHub = LedgerAgainstHub.TestCase
