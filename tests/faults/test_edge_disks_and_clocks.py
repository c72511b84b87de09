"""Full disks, damaged buffers and clocks that jump, on a real agent: it runs on, and what is lost is counted."""

from __future__ import annotations

import contextlib
import os
import random
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.store import telemetry
from tests.edge_place import MODULES, EdgePlace, edge_place, wait_started
from tests.hub_parts import HubPlace, hub_place
from tests.power_loss import build_tracer
from tests.small_disk import small_disk
from tests.waiting import wait_for

PAGE = 4096


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubPlace]:
    with hub_place(tmp_path / "hub") as made:
        yield made


def pids(place: EdgePlace) -> dict[str, int | None]:
    return {module: place.agent.pid_of(module) for module in MODULES}


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Not a byte is free inside the block."""
    ballast = folder / "ballast"

    def is_full() -> bool:
        """What others give back meanwhile is taken as well."""
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(PAGE))
        return os.statvfs(folder).f_bavail < 8

    try:
        wait_for(is_full, timeout_s=30, what="a full disk")
        yield
    finally:
        ballast.unlink()


@pytest.mark.timeout(600)
def test_an_agent_that_is_killed_while_its_disk_is_full_starts_and_runs_on(tmp_path: Path, hub: HubPlace) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk, edge_place(hub, disk / "device") as place:
        place.deploy()
        before = pids(place)
        place.wait_for_arrivals("at first")
        with filled(disk):
            place.agent.kill()
            place.agent.start()
            assert place.agent.process.is_running
        place.wait_for_more("when there is room again")
        place.check()
        assert pids(place) == before


def has_message_of(hub: HubPlace, jump: float) -> bool:
    """Whether one was made by a clock that was so many seconds off, give or take ten minutes."""
    expected_ms = (datetime.now(UTC).timestamp() + jump) * 1000
    with hub.database.read_series() as connection:
        return any(abs(row.time_ms - expected_ms) < 600_000 for row in telemetry.after(connection, 1_000_000, 0))


@pytest.mark.timeout(600)
def test_clocks_jump_back_and_forth_and_nothing_happens(tmp_path: Path, hub: HubPlace) -> None:
    shift = tmp_path / "clock"

    def set_clock(seconds: float) -> None:
        """Of the agent, in comparison to the true time."""
        new = tmp_path / "clock.new"
        new.write_bytes(struct.pack("<q", int(seconds * 1e9)))
        new.rename(shift)

    set_clock(0)
    epoch = -datetime.now(UTC).timestamp()
    env = {"LD_PRELOAD": str(build_tracer(tmp_path)), "HW_CLOCK": str(shift)}
    with edge_place(hub, tmp_path / "device", env=env) as place:
        place.deploy()
        before = pids(place)
        for jump in (3600.0, -3600.0, 10 * 365 * 86400.0, epoch, 0.0):
            set_clock(jump)
            place.wait_for_arrivals(f"with a clock {jump:.0f} s off")
            # What arrives first may be from before the jump.
            wait_for(lambda: has_message_of(hub, jump), timeout_s=120, what=f"a message with a clock {jump:.0f} s off")  # noqa: B023 - asked within this round
        set_clock(epoch)
        place.agent.kill()
        place.agent.start()
        place.wait_for_arrivals("of an agent that was started in 1970")
        set_clock(0)
        place.wait_for_arrivals("when the time is known again")
        place.check()
        assert pids(place) == before
        with hub.database.read_series() as connection:
            times = [row.time_ms for row in telemetry.after(connection, 1_000_000, 0)]
        # The clock was really off: messages are of 1970 and of ten years from now.
        assert min(times) < 86_400_000
        assert max(times) > (datetime.now(UTC).timestamp() + 9 * 365 * 86400) * 1000


def damage(place: EdgePlace, first_page: int) -> None:
    """Scribble over the buffer's file from a page on, as a broken flash block would."""
    path = place.agent.state / "outbox.sqlite"
    size = path.stat().st_size
    assert size > first_page * PAGE
    with path.open("r+b") as file:
        file.seek(first_page * PAGE)
        file.write(random.Random(1).randbytes(size - first_page * PAGE))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first_page", [0, 3])
def test_a_damaged_buffer_that_was_delivered_costs_nothing(tmp_path: Path, hub: HubPlace, first_page: int) -> None:
    with edge_place(hub, tmp_path / "device") as place:
        place.deploy()
        before = pids(place)
        place.wait_for_arrivals("at first")
        place.pause()
        place.agent.stop()
        damage(place, first_page)
        place.agent.process.start()
        wait_started(place)
        place.go_on()
        place.wait_for_more("after the damage")
        place.check()
        assert pids(place) == before


@pytest.mark.timeout(600)
def test_a_damaged_buffer_with_a_backlog_loses_only_what_it_says(tmp_path: Path, hub: HubPlace) -> None:
    with edge_place(hub, tmp_path / "device") as place:
        place.deploy()
        place.wait_for_arrivals("at first")
        place.pause()
        assert hub.hub is not None
        hub.hub.kill()
        place.go_on()
        for _ in range(10):
            place.wait_for_more("without a hub")
        place.hold()
        place.agent.stop()
        backlog = {module: set(place.told(module)) for module in MODULES}
        damage(place, 3)
        place.agent.process.start()
        wait_started(place)
        hub.start_hub()
        place.go_on()
        place.wait_for_more("after the damage")
        place.wait_for_arrivals("after the damage")
        place.pause_after(backlog)
        arrived = place.arrived()
        assert all(times == 1 for found in arrived.values() for times in found.values())
        lost = sum(str(number) not in arrived[module] for module in MODULES for number in backlog[module])
        told_of = [decision for decision in place.agent.decisions() if decision.action == "set-aside"]
        assert told_of or not lost, f"{lost} messages are lost and nothing says so"
