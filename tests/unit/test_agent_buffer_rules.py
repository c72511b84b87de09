"""What has to go from a full buffer, by quota, policy and priority; how old messages are; formats of earlier agents."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import BufferFull
from edge_agent.telemetry import appending, dropping, ledger, room, schema
from edge_agent.telemetry.age import OFF_MAX_S, Anchor, Moment, age_s, anchor_now
from edge_agent.telemetry.entries import START, Entry, Portion
from edge_agent.telemetry.rules import Limits, Rules
from hedgerow.contracts.edge import OverflowPolicy, StreamPolicy, TelemetryPolicy

QUOTA = 64_000
BODY = '"' + "x" * 900 + '"'
SIZE = schema.size_of(len(BODY))


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(connection)
    yield connection
    connection.close()


def rules(overflow: OverflowPolicy = "drop-oldest", *, quota: int = QUOTA, **streams: StreamPolicy) -> Rules:
    return Rules(Limits(quota, 0, overflow), TelemetryPolicy(streams=streams))


def store(db: sqlite3.Connection, by: Rules, stream: str, count: int = 1, **fields: object) -> int:
    """Store messages one by one; returns how many were taken."""
    taken = 0
    for _ in range(count):
        appender = appending.Appender(db)
        try:
            room.store(db, appender, by, [Entry(stream, "m", 1, BODY, **fields)], 0.0)  # type: ignore[arg-type]  # fields of Entry
            taken += 1
        except BufferFull:
            pass
        appender.flush()
    return taken


def portions(db: sqlite3.Connection, stream: str) -> list[Portion]:
    mark, found = START, []
    while (portion := ledger.read_after(db, stream, mark, max_messages=1000, max_bytes=1 << 20, holes=True)) is not None:
        found.append(portion)
        mark = portion.end
    return found


def kept(db: sqlite3.Connection, stream: str) -> list[int]:
    return [message.sequence for portion in portions(db, stream) for message in portion.messages]


def reasons(db: sqlite3.Connection, stream: str) -> set[str]:
    found = portions(db, stream)
    return {p.gap.reason for p in found if p.gap} | {hole.reason for p in found for hole in p.holes}


def test_a_full_buffer_drops_the_oldest_and_keeps_to_the_quota(db: sqlite3.Connection) -> None:
    assert store(db, rules(), "s", 200) == 200
    assert ledger.totals(db).kept_bytes <= QUOTA
    assert reasons(db, "s") == {"quota"}
    assert kept(db, "s")[-1] == 200


def test_a_full_buffer_refuses_when_it_should_drop_the_newest(db: sqlite3.Connection) -> None:
    taken = store(db, rules("drop-newest"), "s", 200)
    assert 40 < taken < 70
    assert kept(db, "s") == list(range(1, taken + 1))


def test_a_full_buffer_is_thinned_out_and_keeps_messages_of_all_ages(db: sqlite3.Connection) -> None:
    assert store(db, rules("downsample"), "s", 400) == 400
    there = kept(db, "s")
    assert ledger.totals(db).kept_bytes <= QUOTA
    assert reasons(db, "s") == {"downsampled"}
    assert there[0] == 1
    assert there[-1] == 400
    newer, older = (sum(number > 350 for number in there), sum(number <= 200 for number in there))
    assert newer > 2 * older > 0


def test_what_the_hub_has_goes_before_anything_else(db: sqlite3.Connection) -> None:
    store(db, rules("drop-newest"), "s", 20)
    assert ledger.settle(db, "s", portions(db, "s")[-1].end)
    assert store(db, rules("drop-newest"), "other", 40) == 40
    assert ledger.totals(db).dropped == 0


def test_the_least_urgent_goes_first_and_never_the_more_urgent(db: sqlite3.Connection) -> None:
    by = rules(alarms=StreamPolicy(priority=0), readings=StreamPolicy(priority=5))
    store(db, by, "chatter", 12)
    store(db, by, "readings", 12)
    assert store(db, by, "alarms", 25) == 25
    assert kept(db, "readings") == list(range(1, 13))
    assert 0 < len(kept(db, "chatter")) < 12
    assert store(db, by, "alarms", 15) == 15
    assert kept(db, "chatter") == []
    assert 0 < len(kept(db, "readings")) < 12
    assert kept(db, "alarms") == list(range(1, 41))


def test_something_less_urgent_is_refused_when_only_the_more_urgent_is_there(db: sqlite3.Connection) -> None:
    by = rules(alarms=StreamPolicy(priority=0))
    store(db, by, "alarms", 30)
    assert store(db, by, "chatter", 40) == 40, "its own older ones give way"
    assert kept(db, "alarms") == list(range(1, 31))
    store(db, by, "alarms", 40)
    assert kept(db, "chatter") == []
    assert store(db, by, "chatter") == 0
    assert len(kept(db, "alarms")) >= 44


def test_a_reserve_is_left_for_the_most_urgent_where_nothing_may_go(db: sqlite3.Connection) -> None:
    by = rules("drop-newest", alarms=StreamPolicy(priority=0), chatter=StreamPolicy(priority=0))
    while store(db, by, "readings"):
        pass
    assert store(db, by, "alarms") == 1, "a full disk of other things takes an alarm"
    urgent_only = rules("drop-newest", alarms=StreamPolicy(priority=3))
    assert store(db, urgent_only, "readings") == 0


def test_the_reserve_is_there_before_anything_is_dropped(db: sqlite3.Connection) -> None:
    by = rules("drop-newest", a=StreamPolicy(priority=0), b=StreamPolicy(priority=0))
    ordinary = store(db, by, "ordinary", 200)
    before = ledger.totals(db).kept_bytes
    assert before <= QUOTA - QUOTA // 16
    assert store(db, by, "a") == 1
    assert ledger.totals(db).kept_bytes == before + SIZE
    assert kept(db, "ordinary") == list(range(1, ordinary + 1))


@pytest.mark.parametrize(
    ("overflow", "taken", "reason"), [("drop-oldest", 50, "quota"), ("downsample", 50, "downsampled"), ("drop-newest", 7, None)]
)
def test_a_streams_own_quota_counts_for_itself(
    db: sqlite3.Connection, overflow: OverflowPolicy, taken: int, reason: str | None
) -> None:
    by = rules(quota=10_000_000, small=StreamPolicy(quota_bytes=7 * SIZE, overflow=overflow))
    assert store(db, by, "other", 20) == 20
    assert store(db, by, "small", 50) == taken
    assert kept(db, "other") == list(range(1, 21))
    assert reasons(db, "small") == ({reason} if reason else set())
    held = db.execute("SELECT queued_bytes FROM streams WHERE stream = 'small'").fetchone()[0]
    assert held <= 7 * SIZE


def test_a_quota_that_became_smaller_is_reached_in_steps(db: sqlite3.Connection) -> None:
    store(db, rules(quota=20_000_000), "s", 4000)
    by = rules(quota=100_000)
    sizes = []
    for _ in range(8):
        store(db, by, "s")
        sizes.append(ledger.totals(db).kept_bytes)
    assert sizes[0] > 1_000_000
    assert sizes[-1] <= 100_000


def test_entries_of_one_call_are_stored_all_or_none(db: sqlite3.Connection) -> None:
    by = rules("drop-newest", tiny=StreamPolicy(quota_bytes=4096))
    both = [Entry("s", "m", 1, BODY), *[Entry("tiny", "m", 1, BODY)] * 5]
    appender = appending.Appender(db)
    with pytest.raises(BufferFull):
        room.store(db, appender, by, both, 0.0)
    appender.flush()
    assert ledger.totals(db).queued_messages == 0
    room.store(db, appender, by, both[:3], 0.0)
    appender.flush()
    assert (kept(db, "s"), kept(db, "tiny")) == ([1], [1, 2])


def test_one_key_for_many_entries_makes_them_one_request(db: sqlite3.Connection) -> None:
    def request(key: str) -> list[tuple[str, int, bool]]:
        appender = appending.Appender(db)
        entries = [Entry("s", "m", 1, "1", key), Entry("input.x.in", "m", 1, "1", key, local=True), Entry("s", "m", 1, "2", key)]
        receipts = room.store(db, appender, rules(), entries, 0.0)
        appender.flush()
        return [(receipt.stream, receipt.sequence, receipt.repeated) for receipt in receipts]

    assert request("k") == [("s", 1, False), ("input.x.in", 1, False), ("s", 2, False)]
    assert request("k") == [("s", 1, True)] * 3
    assert request("l")[0] == ("s", 3, False)
    assert ledger.totals(db).queued_messages == 4


def test_local_streams_are_never_offered_to_the_hub(db: sqlite3.Connection) -> None:
    store(db, rules(), "input.other.in", 3, local=True)
    store(db, rules(), "s", 2)
    assert set(ledger.streams(db)) == {"s"}
    assert set(ledger.streams(db, local=True)) == {"input.other.in"}
    totals = ledger.totals(db)
    assert (totals.queued_messages, totals.local_messages) == (2, 3)
    before = ledger.streams(db, local=True)
    ledger.begin_epoch(db)
    assert ledger.streams(db, local=True) == before


def test_expiry_takes_what_is_due_in_any_order_and_says_so(db: sqlite3.Connection) -> None:
    by = Rules(Limits(QUOTA, 0), TelemetryPolicy(time_to_live_s=100, streams={"s": StreamPolicy(time_to_live_s=50)}))
    for life in (None, 5, None, 5, 7):
        store(db, by, "s", time_to_live_s=life)
    store(db, by, "other")
    assert dropping.next_expiry(db) == 6
    assert dropping.expire(db, 5.9, 100) == 0
    assert dropping.expire(db, 8, 100) == 3
    assert kept(db, "s") == [1, 3]
    assert reasons(db, "s") == {"expired"}
    assert ledger.totals(db).dropped_by_reason == (("expired", 3),)
    dropping.expire(db, 51, 1)
    assert kept(db, "s") == [3]
    dropping.expire(db, 102, 100)
    assert (kept(db, "s"), kept(db, "other")) == ([], [])
    assert dropping.next_expiry(db) is None
    assert store(db, by, "s") == 1
    assert kept(db, "s") == [6]


NORMAL_MS = 1_800_000_000_000
WALL = st.integers(0, 2 * NORMAL_MS)


@given(st.lists(st.tuples(st.floats(0, 1e6), WALL), min_size=1, max_size=20), st.lists(st.booleans(), min_size=20, max_size=20))
@settings(max_examples=300, deadline=None)
def test_age_never_goes_back_and_never_faster_than_a_believable_clock(steps: list[tuple[float, int]], boots: list[bool]) -> None:
    boot, at_s, anchor, age = 0, 0.0, anchor_now(None, Moment("0", 0.0, NORMAL_MS)), 0.0
    for (passed_s, wall_ms), reboots in zip(steps, boots, strict=False):
        boot, at_s = (boot + 1, passed_s) if reboots else (boot, at_s + passed_s)
        now = Moment(str(boot), at_s, wall_ms)
        older = age_s(anchor, now)
        assert older >= age
        off = max(passed_s, min(OFF_MAX_S, (wall_ms - anchor.wall_ms) / 1000)) if reboots else passed_s
        assert older <= age + off + 1e-3
        age, anchor = older, anchor_now(anchor, now)


@pytest.mark.parametrize(
    ("wall_ms", "expected_s"),
    [(NORMAL_MS + 3_600_000, 3600.0), (0, 40.0), (86_400_000, 40.0), (NORMAL_MS - 10_000, 40.0), (NORMAL_MS * 2, 40.0)],
    ids=["an hour later", "1970", "a day after 1970", "set back", "a clock gone mad"],
)
def test_across_a_boot_the_wall_clock_counts_only_when_it_can_be_believed(wall_ms: int, expected_s: float) -> None:
    before = Anchor("a", 5000.0, NORMAL_MS, 100.0)
    assert age_s(before, Moment("b", 40.0, wall_ms)) == 100.0 + expected_s
    unset = Anchor("a", 5000.0, 10_000, 100.0)
    assert age_s(unset, Moment("b", 40.0, NORMAL_MS)) == 140.0


def test_within_a_boot_the_wall_clock_does_not_count() -> None:
    before = Anchor("a", 5000.0, NORMAL_MS, 100.0)
    assert [age_s(before, Moment("a", 5010.0, wall)) for wall in (0, NORMAL_MS, 3 * NORMAL_MS)] == [110.0] * 3


def test_a_buffer_of_the_first_format_keeps_everything(db: sqlite3.Connection) -> None:
    old = sqlite3.connect(":memory:", isolation_level=None)
    schema.create_format_1(old)
    written = appended_as_before(old, 30)
    epoch = ledger.epoch(old)
    old.execute("UPDATE streams SET acked = 10, acked_bytes = 10 * ?, queued_bytes = 20 * ?", (SIZE, SIZE))
    schema.bring_up_to_date(old)
    assert schema.format_of(old) == schema.FORMAT
    assert ledger.epoch(old) == epoch
    assert ledger.totals(old).queued_messages == 20
    assert [message.body for portion in portions(old, "s") for message in portion.messages] == written
    assert store(old, rules(), "s") == 1
    assert columns(old) == columns(db)
    old.close()


def test_a_format_of_a_newer_agent_is_not_touched(db: sqlite3.Connection) -> None:
    db.execute("UPDATE facts SET value = '9' WHERE name = 'format'")
    with pytest.raises(sqlite3.DatabaseError, match="format 9"):
        schema.bring_up_to_date(db)


def appended_as_before(db: sqlite3.Connection, count: int) -> Sequence[str]:
    """As the first agent wrote."""
    new = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(new)
    store(new, rules(), "s", count)
    for row in new.execute("SELECT id, stream, sequence, time_ms, module, body, chain, size FROM messages").fetchall():
        db.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    last = new.execute(
        "SELECT stream, last, last_chain, base, base_chain, acked, acked_bytes, queued_bytes FROM streams"
    ).fetchone()
    db.execute("INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?)", last)
    db.execute("UPDATE totals SET kept_bytes = ?", (ledger.totals(new).kept_bytes,))
    new.close()
    return [BODY] * count


def columns(db: sqlite3.Connection) -> list[tuple[str, str]]:
    return [
        (table, column[1])
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        for column in db.execute(f"PRAGMA table_info({table})")
    ]
