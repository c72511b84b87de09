"""The telemetry buffer under kill -9, damage and a full disk: what was acknowledged is there, and it always goes on."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.errors import BufferUnwritable
from edge_agent.telemetry.ledger import START, Mark
from edge_agent.telemetry.outbox import Limits, Outbox
from hedgerow.contracts.telemetry import CHAIN_START, TelemetryMessage, chain_over
from tests.process_folders import need_root
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


def _scribble(path: Path, first_page: int) -> None:
    """Overwrite everything behind the first pages, as a broken flash block would."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(first_page * 4096)
        file.write(os.urandom(size - first_page * 4096))


def _filled(path: Path) -> str:
    outbox = buffer(path)
    for number in range(300):
        outbox.append(STREAM, "m", 1, f'"{number}{"x" * 300}"')
    epoch, _ = outbox.streams()
    outbox.close()
    return epoch


def test_damage_found_while_writing_begins_a_new_file_and_stores_what_was_being_written(tmp_path: Path) -> None:
    path, damages = tmp_path / "o", list[str]()
    epoch = _filled(path)
    _scribble(path, first_page=10)
    outbox = buffer(path, damages)
    for number in range(50):
        outbox.append(STREAM, "m", 1, f'"new {number}"')
    assert damages
    assert outbox.streams()[0] != epoch
    assert [message.body for message in everything(outbox)][-1] == '"new 49"'
    outbox.close()


def test_damage_found_while_reading_begins_a_new_file_too(tmp_path: Path) -> None:
    path, damages = tmp_path / "o", list[str]()
    epoch = _filled(path)
    _scribble(path, first_page=12)
    outbox = buffer(path, damages)
    read_epoch, _ = outbox.streams()
    mark: Mark | None = START
    while mark is not None:
        portion = outbox.read_after(read_epoch, STREAM, mark, max_messages=10, max_bytes=1 << 20)
        mark = portion.end if portion else None
    assert damages
    assert outbox.streams()[0] != epoch
    outbox.append(STREAM, "m", 1, "1")
    assert len(everything(outbox)) == 1
    outbox.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    need_root()
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], check=True)
    yield folder
    # Lazily: a test that failed half-way may still have the file open.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_and_loses_nothing_and_space_brings_it_back(small_disk: Path) -> None:
    damages = list[str]()
    outbox = buffer(small_disk / "o", damages)
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
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    again = buffer(small_disk / "o", damages)
    again.append(STREAM, "m", 1, "1")
    assert len(everything(again)) == taken + 1
    assert damages == []
    again.close()


def test_a_quota_smaller_than_the_disk_keeps_writing_for_ever(small_disk: Path) -> None:
    outbox = buffer(small_disk / "o", limits=Limits(1_500_000, 200_000))
    for number in range(2000):
        outbox.append(STREAM, "m", 1, f'"{number}{"x" * 4000}"')
    totals = outbox.totals
    assert totals.kept_bytes <= 1_500_000
    assert totals.dropped + totals.queued_messages == 2000
    outbox.close()


def test_space_returns_to_the_disk_after_the_backlog_was_delivered(tmp_path: Path) -> None:
    path = tmp_path / "o"
    outbox = buffer(path, limits=Limits(1 << 30, 100_000))
    for number in range(5000):
        outbox.append(STREAM, "m", 1, f'"{number}{"x" * 4000}"')
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
