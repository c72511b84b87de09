"""The telemetry buffer under kill -9, damage and a full disk: what was acknowledged is there, and it always goes on."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge_agent.errors import BufferUnwritable
from edge_agent.telemetry import schema
from edge_agent.telemetry.entries import START
from edge_agent.telemetry.outbox import WAITING_MAX, Entry, Limits, Outbox
from hedgerow.contracts.edge import StreamPolicy, TelemetryPolicy
from hedgerow.contracts.telemetry import CHAIN_START, TelemetryGap, TelemetryHole, TelemetryMessage, chain_over
from tests.small_disk import enlarge, small_disk
from tests.waiting import wait_for

STREAM = "telemetry"
ROUNDS = 8
# Four writers, so that there are real groups; each line is written after its message was acknowledged.
WRITER = """
import os, sys, threading
from pathlib import Path
from edge_agent.telemetry.outbox import Limits, Outbox
outbox = Outbox(Path(sys.argv[1]), Limits(1 << 30, 1 << 20), lambda: None, lambda problem: os.write(2, problem.encode()))
def write(who):
    for number in range(1_000_000):
        body = f'"{sys.argv[2]}-{who}-{number}-' + "x" * 500 + '"'
        outbox.append("telemetry", "m", 1, body, body[:40])
        os.write(1, (body + "\\n").encode())
for who in range(4):
    threading.Thread(target=write, args=(who,)).start()
"""


def buffer(path: Path, damages: list[str] | None = None, limits: Limits | None = None) -> Outbox:
    return Outbox(path, limits or Limits(1 << 30, 1 << 20), lambda: None, (damages if damages is not None else []).append)


def everything(outbox: Outbox) -> list[TelemetryMessage]:
    """All messages from the beginning; the chain is checked on the way."""
    epoch, _ = outbox.streams()
    mark, messages = START, list[TelemetryMessage]()
    while (portion := outbox.read_after(epoch, STREAM, mark, max_messages=500, max_bytes=1 << 20)) is not None:
        messages += portion.messages
        mark = portion.end
    assert chain_over(CHAIN_START, messages) == mark.chain
    assert [message.sequence for message in messages] == list(range(1, len(messages) + 1))
    return messages


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    chance = random.Random(1)
    for round_number in range(ROUNDS):
        told = tmp_path / f"told-{round_number}"
        with told.open("wb") as out:
            argv = [sys.executable, "-P", "-c", WRITER, str(tmp_path / "outbox.sqlite"), str(round_number)]
            writer = subprocess.Popen(argv, stdout=out)
        enough = chance.randrange(20_000, 400_000)
        wait_for(lambda told=told, enough=enough: told.stat().st_size > enough, what="the writer to write")  # type: ignore[misc]  # bound for this round
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        # The last line may be torn; a whole one was acknowledged.
        acknowledged += told.read_text().split("\n")[:-1]
    outbox = buffer(tmp_path / "outbox.sqlite")
    bodies = [message.body for message in everything(outbox)]
    assert len(acknowledged) > 100
    assert not set(acknowledged) - set(bodies)
    assert len(bodies) == len(set(bodies))
    assert outbox.totals.queued_messages == len(bodies)
    outbox.close()


def test_repeats_after_a_kill_are_recognised(tmp_path: Path) -> None:
    outbox = buffer(tmp_path / "o")
    outbox.append(STREAM, "m", 1, "1", "k")
    outbox.close()
    again = buffer(tmp_path / "o")
    assert again.append(STREAM, "m", 2, "1", "k").repeated
    again.close()


@pytest.mark.parametrize("content", [b"this is no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path, damages = tmp_path / "o", list[str]()
    path.write_bytes(content)
    outbox = buffer(path, damages)
    outbox.append(STREAM, "m", 1, "1")
    assert len(everything(outbox)) == 1
    assert len(damages) == 1
    assert path.with_name("o.damaged").read_bytes() == content
    outbox.close()


def test_an_empty_file_is_a_new_buffer(tmp_path: Path) -> None:
    (tmp_path / "o").touch()
    outbox = buffer(tmp_path / "o")
    assert outbox.append(STREAM, "m", 1, "1").sequence == 1
    outbox.close()


def _scribble(path: Path, first_page: int, pages: int = 1 << 30) -> None:
    """Overwrite pages, as a broken flash block would."""
    with path.open("r+b") as file:
        size = min(file.seek(0, os.SEEK_END), (first_page + pages) * 4096)
        file.seek(first_page * 4096)
        file.write(os.urandom(size - first_page * 4096))


def _filled(path: Path) -> str:
    outbox = buffer(path)
    outbox.append_all([Entry(STREAM, "m", 1, f'"{number}{"x" * 300}"') for number in range(300)])
    epoch, _ = outbox.streams()
    outbox.close()
    return epoch


def _accounted(outbox: Outbox) -> tuple[list[str], int]:
    """(bodies of all messages, messages that are told as damaged); every sequence is one or the other."""
    epoch, streams = outbox.streams()
    mark, bodies, lost = START, list[str](), 0
    while (portion := outbox.read_after(epoch, STREAM, mark, max_messages=500, max_bytes=1 << 20, holes=True)) is not None:
        bodies += [message.body for message in portion.messages]
        gaps: list[TelemetryGap | TelemetryHole] = list(portion.holes)
        gaps += [portion.gap] if portion.gap is not None else []
        assert {gap.reason for gap in gaps} <= {"damaged"}
        lost += sum(gap.last_sequence - gap.first_sequence + 1 for gap in gaps)
        mark = portion.end
    assert mark == streams[STREAM]
    assert len(bodies) + lost == mark.sequence
    return bodies, lost


def _read_through(outbox: Outbox, epoch: str) -> None:
    mark = START
    while (portion := outbox.read_after(epoch, STREAM, mark, max_messages=10, max_bytes=1 << 20)) is not None:
        mark = portion.end


@pytest.mark.parametrize("writes", [True, False], ids=["found while writing", "found while reading"])
@pytest.mark.parametrize(("first_page", "pages"), [(10, 1 << 30), (12, 1 << 30), (15, 2), (25, 1)])
def test_damage_begins_a_new_file_with_what_can_be_read_and_a_gap_for_the_rest(
    tmp_path: Path, first_page: int, pages: int, *, writes: bool
) -> None:
    path, damages = tmp_path / "o", list[str]()
    epoch = _filled(path)
    _scribble(path, first_page, pages)
    outbox = buffer(path, damages)
    if not writes:
        _read_through(outbox, epoch)
    new = [f'"new {number}"' for number in range(50)]
    for body in new:
        outbox.append(STREAM, "m", 1, body)
    _read_through(outbox, outbox.streams()[0])  # finds what writing did not touch
    bodies, lost = _accounted(outbox)
    if damages:
        assert outbox.streams()[0] != epoch
    assert bodies[-50:] == new
    old = bodies[:-50]
    assert len(old) + lost == 300
    assert [int(body[1:].rstrip('x"')) for body in old] == sorted(int(body[1:].rstrip('x"')) for body in old)
    assert dict(outbox.totals.dropped_by_reason).get("damaged", 0) == lost
    outbox.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    with small_disk(tmp_path / "disk", "4m") as made:
        yield made


def test_a_full_disk_refuses_and_loses_nothing_and_space_brings_it_back(disk: Path) -> None:
    damages = list[str]()
    outbox = buffer(disk / "o", damages)
    taken, refusals = 0, 0
    while refusals < 20:
        try:
            outbox.append(STREAM, "m", 1, f'"{taken}{"x" * 4000}"')
            taken += 1
        except BufferUnwritable:
            refusals += 1
    assert taken > 100
    assert len(everything(outbox)) == taken
    outbox.close()
    enlarge(disk, "16m")
    again = buffer(disk / "o", damages)
    again.append(STREAM, "m", 1, "1")
    assert len(everything(again)) == taken + 1
    assert damages == []
    again.close()


def test_a_quota_smaller_than_the_disk_keeps_writing_for_ever(disk: Path) -> None:
    outbox = buffer(disk / "o", limits=Limits(1_500_000, 200_000))
    for number in range(2000):
        outbox.append(STREAM, "m", 1, f'"{number}{"x" * 4000}"')
    totals = outbox.totals
    assert totals.kept_bytes <= 1_500_000
    assert totals.dropped + totals.queued_messages == 2000
    outbox.close()


def test_space_returns_to_the_disk_after_the_backlog_was_delivered(tmp_path: Path) -> None:
    path = tmp_path / "o"
    outbox = buffer(path, limits=Limits(1 << 30, 100_000))
    for _ in range(50):
        outbox.append_all([Entry(STREAM, "m", 1, f'"{"x" * 4000}"')] * 100)
    full = path.stat().st_size
    epoch, streams = outbox.streams()
    assert outbox.settle(STREAM, streams[STREAM])
    for _ in range(60):
        outbox.append(STREAM, "m", 1, "1")
    outbox.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    assert path.stat().st_size < full / 2
    assert epoch


# A buffer of the first agents, then kill -9 when the migration runs its n-th statement.
MIGRATION = """
import os, signal, sqlite3, sys
from edge_agent.telemetry import schema
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA synchronous = FULL")
left = [int(sys.argv[2])]
def count(statement):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
db.set_trace_callback(count)
db.execute("BEGIN IMMEDIATE")
schema.bring_up_to_date(db)
db.execute("COMMIT")
"""


def test_kill_9_in_the_middle_of_a_migration_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "o"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL")
    schema.create_format_1(db)
    chain = CHAIN_START
    for number in range(1, 201):
        message = TelemetryMessage(sequence=number, time_ms=1, module="m", body=str(number))
        chain = chain_over(chain, [message])
        db.execute("INSERT INTO messages VALUES (?, ?, ?, 1, 'm', ?, ?, 180)", (number, STREAM, number, message.body, chain))
    db.execute("INSERT INTO streams VALUES (?, 200, ?, 0, ?, 0, 0, 36000)", (STREAM, chain, CHAIN_START))
    db.execute("UPDATE totals SET kept_bytes = 36000")
    db.close()
    for statement in (2, 5, 8, 11):
        argv = [sys.executable, "-P", "-c", MIGRATION, str(path), str(statement)]
        assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    damages: list[str] = []
    outbox = buffer(path, damages)
    assert outbox.totals.queued_messages == 200
    outbox.append(STREAM, "m", 1, "201")
    assert [message.body for message in everything(outbox)] == [str(number) for number in range(1, 202)]
    assert damages == []
    outbox.close()


class Clock:
    """A device without a battery: the wall clock says what it likes, ``passed_s`` is since the boot."""

    def __init__(self, wall: datetime) -> None:
        self.wall = wall
        self.passed_s = 10.0

    def now(self) -> datetime:
        return self.wall

    def monotonic_s(self) -> float:
        return self.passed_s


def test_nothing_expires_by_a_clock_at_1970_and_everything_by_time_that_passed(tmp_path: Path) -> None:
    real, unset = datetime(2027, 3, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    clock = Clock(real)

    def boot(name: str) -> Outbox:
        made = Outbox(tmp_path / "o", Limits(1 << 30, 1 << 20), lambda: None, lambda _problem: None, clock=clock, boot=name)
        made.take_policy(TelemetryPolicy(time_to_live_s=3600), {})
        return made

    def written(outbox: Outbox, body: str) -> list[str]:
        outbox.append(STREAM, "m", 1, body)
        return [message.body for message in everything(outbox)]

    first = boot("a")
    assert written(first, "1") == ["1"]
    clock.wall = unset
    assert written(first, "2") == ["1", "2"]
    first.close()
    clock.passed_s = 20.0
    second = boot("b")
    assert written(second, "3") == ["1", "2", "3"]
    clock.wall = real.replace(year=2040)
    assert written(second, "4") == ["1", "2", "3", "4"], "a clock that was set, or went mad, is no time that passed"
    clock.passed_s += 3500
    assert len(written(second, "5")) == 5
    clock.passed_s += 200
    second.append(STREAM, "m", 1, "6")  # what is due goes with any commit
    wait_for(lambda: second.totals.queued_messages == 2, what="the expiry")
    assert dict(second.totals.dropped_by_reason) == {"expired": 4}
    second.close()


def test_what_is_due_goes_without_anybody_writing(tmp_path: Path) -> None:
    clock = Clock(datetime(2027, 3, 1, tzinfo=UTC))
    outbox = Outbox(tmp_path / "o", Limits(1 << 30, 1 << 20), lambda: None, lambda _problem: None, clock=clock, boot="a")
    outbox.append_all([Entry(STREAM, "m", 1, str(number), time_to_live_s=60) for number in range(5000)])
    clock.passed_s += 62
    wait_for(lambda: outbox.totals.queued_messages == 0, timeout_s=30, what="housekeeping")
    assert dict(outbox.totals.dropped_by_reason) == {"expired": 5000}
    outbox.close()


def test_who_hands_over_faster_than_the_disk_takes_it_is_refused_and_memory_stays_bounded(tmp_path: Path) -> None:
    outbox = buffer(tmp_path / "o")
    waiting = [outbox.submit_all([Entry(STREAM, "m", 1, str(number))] * 1000) for number in range(200)]
    results = [future.exception() for future in waiting]
    stored = sum(result is None for result in results)
    assert stored >= WAITING_MAX // 1000
    assert all(result is None or isinstance(result, BufferUnwritable) for result in results)
    assert outbox.totals.queued_messages == stored * 1000
    assert waiting[0].result()[0].sequence == 1
    outbox.close()
    with pytest.raises(BufferUnwritable, match="ends"):
        outbox.append(STREAM, "m", 1, "1")


def test_an_answer_that_nobody_waits_for_any_more_harms_no_other(tmp_path: Path) -> None:
    outbox = buffer(tmp_path / "o")
    futures = [outbox.submit_all([Entry(STREAM, "m", 1, str(number))]) for number in range(500)]
    for future in futures[::2]:
        future.cancel()
    assert all(len(future.result()) == 1 for future in futures[1::2])
    stored = outbox.append(STREAM, "m", 1, "last").sequence
    assert 251 <= stored <= 501
    outbox.close()


def test_local_streams_are_settled_and_gone_and_keep_their_place(tmp_path: Path) -> None:
    outbox = buffer(tmp_path / "o")
    outbox.append_all([Entry("input.b.in", "a", 1, str(number), local=True) for number in range(10)])
    outbox.append(STREAM, "a", 1, "1")
    epoch, local = outbox.local_streams()
    assert (set(local), set(outbox.streams()[1])) == ({"input.b.in"}, {STREAM})
    portion = outbox.read_after(epoch, "input.b.in", START, max_messages=4, max_bytes=1 << 20)
    assert portion is not None
    assert outbox.settle("input.b.in", portion.end)
    assert (outbox.totals.queued_messages, outbox.totals.local_messages) == (1, 6)
    outbox.close()
    again = buffer(tmp_path / "o")
    assert again.settled("input.b.in") == portion.end
    rest = again.read_after(epoch, "input.b.in", again.settled("input.b.in"), max_messages=100, max_bytes=1 << 20)
    assert rest is not None
    assert [message.body for message in rest.messages] == ["4", "5", "6", "7", "8", "9"]
    again.close()


def test_a_quota_that_became_smaller_is_reached_without_anybody_writing(tmp_path: Path) -> None:
    outbox = buffer(tmp_path / "o")
    for stream in ("a", "b"):
        outbox.append_all([Entry(stream, "m", 1, f'"{"x" * 4000}"')] * 400)
    outbox.close()
    again = buffer(tmp_path / "o", limits=Limits(2_000_000, 0))
    wait_for(lambda: again.totals.kept_bytes <= 2_000_000, timeout_s=60, what="the device's quota")
    again.take_policy(TelemetryPolicy(streams={"b": StreamPolicy(quota_bytes=100_000)}), {})
    wait_for(lambda: again.totals.kept_bytes < 1_900_000 and again.totals.dropped > 400, timeout_s=60, what="the stream's quota")
    assert dict(again.totals.dropped_by_reason) == {"quota": again.totals.dropped}
    again.close()
