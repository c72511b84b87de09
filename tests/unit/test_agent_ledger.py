"""The telemetry buffer's rules against a model: whatever is dropped, acknowledged or restored, the hub can account for all."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent.telemetry import appending, dropping, ledger, schema
from edge_agent.telemetry.entries import START, Entry, Mark, Portion
from hedgerow.contracts.telemetry import CHAIN_START, TelemetryGap, TelemetryHole, chain_over

STREAM = "telemetry"


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(connection)
    yield connection
    connection.close()


def add(db: sqlite3.Connection, count: int, stream: str = STREAM) -> list[str]:
    bodies = [f'{{"n": {number}}}' for number in range(count)]
    for body in bodies:
        appending.append(db, [Entry(stream, "m", 1, body)])
    return bodies


def drop_oldest(db: sqlite3.Connection) -> int:
    """What a full buffer does."""
    return dropping.evict_acked(db, 1) or dropping.evict_oldest(db, 1, set(ledger.streams(db)))


def everything_after(db: sqlite3.Connection, mark: Mark, stream: str = STREAM, *, holes: bool = False) -> list[Portion]:
    portions = []
    while (portion := ledger.read_after(db, stream, mark, max_messages=7, max_bytes=1500, holes=holes)) is not None:
        portions.append(portion)
        mark = portion.end
    return portions


def test_a_repeated_key_is_the_same_message(db: sqlite3.Connection) -> None:
    (first,) = appending.append(db, [Entry(STREAM, "m", 1, "{}", "k1")])
    (again,) = appending.append(db, [Entry(STREAM, "m", 2, "{}", "k1")])
    (other,) = appending.append(db, [Entry(STREAM, "another", 2, "{}", "k1")])
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
    assert drop_oldest(db) > 0
    assert ledger.totals(db).dropped == 0
    assert everything_after(db, Mark(0, CHAIN_START))[0].gap is not None


def test_unacknowledged_messages_leave_as_one_gap_with_its_reason(db: sqlite3.Connection) -> None:
    add(db, 10)
    for _ in range(4):
        drop_oldest(db)
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
    drop_oldest(db)
    drop_oldest(db)
    assert [p.gap.last_sequence for p in everything_after(db, START, "alarms") if p.gap] == [1]
    assert [p.gap.last_sequence for p in everything_after(db, START) if p.gap] == [1]


def test_a_hub_that_was_restored_gets_what_is_here_and_a_gap_for_the_rest(db: sqlite3.Connection) -> None:
    add(db, 20)
    marks = {0: START} | {p.end.sequence: p.end for p in everything_after(db, START)}
    assert ledger.settle(db, STREAM, marks[14])
    for _ in range(9):
        dropping.evict_acked(db, 1)
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
        drop_oldest(db)
    assert ledger.settle(db, STREAM, on_the_way.end)
    gap = everything_after(db, on_the_way.end)[0]
    assert gap.gap is not None
    assert (gap.gap.first_sequence, gap.gap.last_sequence) == (4, 6)
    assert gap.begin == on_the_way.end


def test_a_new_epoch_numbers_what_is_left_from_one(db: sqlite3.Connection) -> None:
    bodies = add(db, 10)
    before = ledger.epoch(db)
    assert ledger.settle(db, STREAM, everything_after(db, START)[0].end)
    dropping.evict_acked(db, 100_000)
    drop_oldest(db)
    ledger.begin_epoch(db)
    assert ledger.epoch(db) != before
    gap, *rest = everything_after(db, START)
    assert gap.gap is not None
    assert (gap.gap.first_sequence, gap.gap.last_sequence, gap.gap.reason) == (1, 1, "quota")
    assert [(m.sequence, m.body) for p in rest for m in p.messages] == [(2, bodies[8]), (3, bodies[9])]
    assert chain_over(gap.end.chain, [m for p in rest for m in p.messages]) == rest[-1].end.chain
    assert ledger.totals(db).queued_messages == 2


class LedgerAgainstHub(RuleBasedStateMachine):
    """A hub model takes portions (or loses them, or is restored) while messages are dropped, thinned out and expire, and epochs
    begin; nothing may be missing without a gap, doubled or out of order, and every gap has the reason of what left there."""

    def __init__(self) -> None:
        super().__init__()
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        # What was written in this epoch, from the place that the epoch began at.
        self.written: list[str] = []
        self.number = 0
        self.age = 0
        self.hub: list[Mark] = [START]
        self.got: list[str | None] = []
        self.acked = 0
        self.allowed: list[set[str]] = []

    @initialize()
    def begin(self) -> None:
        schema.create(self.db)

    @rule(count=st.integers(1, 8), life=st.one_of(st.none(), st.integers(1, 5)))
    def append(self, count: int, life: int | None) -> None:
        appender = appending.Appender(self.db)
        for _ in range(count):
            body = f'"{self.number}"'
            self.number += 1
            self.written.append(body)
            self.allowed.append(set())
            expires = None if life is None else self.age + life
            appender.add(Entry(STREAM, "m", 1, body), body.encode(), schema.size_of(len(body)), expires)
        appender.flush()

    @rule(acked=st.booleans(), holes=st.booleans())
    def deliver(self, acked: bool, holes: bool) -> None:
        portion = ledger.read_after(self.db, STREAM, self.hub[-1], max_messages=3, max_bytes=10_000, holes=holes)
        if portion is None:
            return
        assert portion.begin == self.hub[-1]
        self.got += contents(portion)
        self.check_reasons(portion)
        self.hub.append(portion.end)
        if acked:
            self.settle(portion.end)

    @rule(data=st.data())
    def acknowledge_late(self, data: st.DataObject) -> None:
        later = [mark for mark in self.hub if mark.sequence >= self.acked]
        if later:
            self.settle(data.draw(st.sampled_from(later)))

    def settle(self, mark: Mark) -> None:
        assert ledger.settle(self.db, STREAM, mark)
        self.acked = mark.sequence

    @rule()
    def drop_one(self) -> None:
        self.leave("quota", lambda: drop_oldest(self.db))

    @rule(needed=st.integers(1, 2000))
    def thin_out(self, needed: int) -> None:
        if self.written:
            self.leave("downsampled", lambda: dropping.thin(self.db, STREAM, needed))

    @rule(seconds=st.integers(1, 4), rows=st.integers(1, 5))
    def time_passes(self, seconds: int, rows: int) -> None:
        self.age += seconds
        self.leave("expired", lambda: dropping.expire(self.db, self.age, rows))

    def leave(self, reason: str, drop: Callable[[], object]) -> None:
        """Whatever goes now may be told with this reason later."""
        before = set(self.here())
        drop()
        gone = before - set(self.here())
        for sequence in gone:
            self.allowed[sequence - 1].add(reason if sequence > self.acked else "hub-restored")
        if reason == "quota":  # it takes over the gaps that lie in the interval that it makes
            for sequence in range(self.acked + 1, max(gone, default=0) + 1):
                self.allowed[sequence - 1].add("quota")

    def here(self) -> list[int]:
        return [row[0] for row in self.db.execute("SELECT sequence FROM messages")]

    @rule()
    def start_an_epoch(self) -> None:
        if not self.written:
            return
        ledger.begin_epoch(self.db)
        self.written, self.allowed = self.written[self.acked :], self.allowed[self.acked :]
        self.hub, self.got, self.acked = [START], [], 0

    @precondition(lambda self: len(self.hub) > 1)
    @rule(data=st.data())
    def restore_the_hub(self, data: st.DataObject) -> None:
        back = data.draw(st.integers(0, len(self.hub) - 1))
        self.hub = self.hub[: back + 1]
        self.got = self.got[: self.hub[-1].sequence]
        self.settle(self.hub[-1])

    def check_reasons(self, portion: Portion) -> None:
        for gap in gaps_of(portion):
            for sequence in range(gap.first_sequence, gap.last_sequence + 1):
                assert gap.reason in self.allowed[sequence - 1], (gap, self.allowed[sequence - 1])

    @invariant()
    def totals_are_the_rows(self) -> None:
        if not self.db.execute("SELECT 1 FROM sqlite_master").fetchone():
            return
        totals = ledger.totals(self.db)
        rows, size, expiring = self.db.execute("SELECT count(*), coalesce(sum(size), 0), count(expires) FROM messages").fetchone()
        queued, queued_bytes = self.db.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM messages JOIN streams USING (stream) WHERE sequence > acked"
        ).fetchone()
        assert totals.kept_bytes == size
        assert (totals.queued_messages, totals.queued_bytes) == (queued, queued_bytes)
        assert totals.dropped == sum(count for _, count in totals.dropped_by_reason)
        assert queued <= rows
        assert self.db.execute("SELECT count(*) FROM expiries").fetchone()[0] <= expiring

    @invariant()
    def the_hub_can_account_for_everything(self) -> None:
        if not self.written:
            return
        for holes in (False, True):
            seen = list(self.got)
            for portion in everything_after(self.db, self.hub[-1], holes=holes):
                seen += contents(portion)
                self.check_reasons(portion)
            assert len(seen) == len(self.written)
            assert all(body in (None, written) for body, written in zip(seen, self.written, strict=True))

    def teardown(self) -> None:
        self.db.close()


def gaps_of(portion: Portion) -> list[TelemetryGap | TelemetryHole]:
    gaps: list[TelemetryGap | TelemetryHole] = list(portion.holes)
    return gaps if portion.gap is None else [*gaps, portion.gap]


def contents(portion: Portion) -> list[str | None]:
    """A portion as bodies, None for what is lost; the chain is checked on the way."""
    if portion.gap is not None:
        return [None] * (portion.gap.last_sequence - portion.gap.first_sequence + 1)
    found: list[str | None] = []
    chain, holes = portion.begin.chain, list(portion.holes)
    for message in portion.messages:
        while holes and holes[0].first_sequence < message.sequence:
            hole = holes.pop(0)
            assert hole.first_sequence == portion.begin.sequence + len(found) + 1
            found += [None] * (hole.last_sequence - hole.first_sequence + 1)
            chain = hole.chain
        assert message.sequence == portion.begin.sequence + len(found) + 1
        chain = chain_over(chain, [message])
        found.append(message.body)
    assert (chain, holes) == (portion.end.chain, [])
    return found


LedgerAgainstHub.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestLedgerAgainstHub = LedgerAgainstHub.TestCase
