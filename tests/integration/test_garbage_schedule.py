"""Collections that nobody asked for: when one is due, and that it is worked off, told and looked up like any other."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hedgerow.clock import SystemClock
from hedgerow.contracts.api import CollectGarbage
from hedgerow.contracts.names import BLOBS_COLLECT
from hedgerow.contracts.work import Activity
from hedgerow.sdk.blobs import freed_by
from registry.blobs import FolderStore
from registry.controller.event_loop import EventLoop
from registry.controller.garbage_schedule import GarbageSchedule, due_in_s, last_done
from registry.controller.jobs import JobTools
from registry.store import activities, blobs, events, leases
from registry.store.database import Database
from registry.store.leases import Lease
from registry.wakeups_socket import SocketWakeups
from tests.controller_process import plane
from tests.registry_stores import BACKENDS, NOW, ready_database
from tests.waiting import wait_for

DAY_S = 86_400.0
HOUR = timedelta(hours=1)


class Calendar(SystemClock):
    """The wall clock says what the test wants it to say."""

    def __init__(self) -> None:
        self.wall = NOW

    def now(self) -> datetime:
        return self.wall


class Schedule:
    """A schedule on a database, without anybody who works off what it asks for."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder, self.clock = database, folder, Calendar()
        with database.write() as connection:
            taken = leases.acquire(connection, "controller", "me", 10**9, NOW)
        assert taken is not None
        self.lease: Lease = taken

    def store(self, at: datetime) -> None:
        store = FolderStore(self.folder / "blobs")
        with store.stage(io.BytesIO(b"x")) as staged, self.database.write() as connection:
            blobs.record_staged(connection, staged, at)

    def collected(self, at: datetime, *, dry_run: bool = False) -> None:
        with self.database.write() as connection:
            request = CollectGarbage(dry_run=dry_run)
            activity = activities.create(connection, kind=BLOBS_COLLECT, subject="blobs", request=request, now=at)
            assert activities.claim(connection, self.lease, [BLOBS_COLLECT], at)
            result = {"dry_run": "true" if dry_run else "false"}
            activities.finish(connection, self.lease, activity, state="succeeded", result=result, now=at)

    def asked(self, every_s: float = DAY_S) -> list[Activity]:
        """What there is to do when it has looked."""
        loop, wakeups = EventLoop(self.clock), SocketWakeups(self.folder / "ws" / "run")
        tools = JobTools(self.database, wakeups, loop, self.clock, lambda: self.lease, self.folder, self.folder)
        GarbageSchedule(tools, every_s).begin(first_s=0.0)
        loop.after(0.001, loop.stop)
        loop.run()
        loop.close()
        wakeups.close()
        with self.database.read() as connection:
            return [activity for activity in activities.newest(connection, 100) if activity.state == "queued"]


@pytest.fixture(params=BACKENDS)
def schedule(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Schedule]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "ws", url) as database:
        yield Schedule(database, tmp_path)


def test_one_is_asked_for_and_no_second_while_it_waits(schedule: Schedule) -> None:
    schedule.store(NOW - 25 * HOUR)
    (asked,) = schedule.asked()
    assert schedule.asked() == [asked]
    assert (asked.kind, asked.subject) == (BLOBS_COLLECT, "blobs")
    with schedule.database.read() as connection:
        told = events.after(connection, events.beginning(connection), events.Wanted(), 100).events
    assert [(event.kind, event.actor.name, event.details["every_s"]) for event in told] == [
        ("collection.requested", "controller", "86400")
    ]


def test_without_content_or_with_young_content_none_is_asked_for(schedule: Schedule) -> None:
    assert schedule.asked() == []
    schedule.store(NOW - 23 * HOUR)
    assert schedule.asked() == []


def test_one_that_somebody_asked_for_counts_a_dry_run_does_not(schedule: Schedule) -> None:
    schedule.store(NOW - 100 * HOUR)
    schedule.collected(NOW - 50 * HOUR)
    schedule.collected(NOW - 10 * HOUR)
    schedule.collected(NOW - HOUR, dry_run=True)
    assert schedule.asked() == []
    schedule.clock.wall += 15 * HOUR
    assert len(schedule.asked()) == 1


def test_a_collection_from_the_future_does_not_put_off_the_next(schedule: Schedule) -> None:
    schedule.store(NOW - 100 * HOUR)
    schedule.collected(NOW + timedelta(days=400))
    assert len(schedule.asked()) == 1


def test_off(schedule: Schedule) -> None:
    schedule.store(NOW - 100 * HOUR)
    assert schedule.asked(every_s=0.0) == []


def test_when_it_is_due() -> None:
    assert due_in_s(None, NOW, DAY_S) == DAY_S
    assert due_in_s(NOW - HOUR, NOW, DAY_S) == DAY_S - 3600
    assert due_in_s(NOW - 30 * HOUR, NOW, DAY_S) == 0
    assert due_in_s(NOW + HOUR, NOW, DAY_S) == 0
    failed = Activity(id="a", kind=BLOBS_COLLECT, subject="blobs", state="failed", created_at=NOW, ended_at=NOW)
    assert last_done([failed], NOW) is None


def test_a_control_plane_collects_by_itself_and_says_what_it_freed(tmp_path: Path) -> None:
    quickly = {"HEDGEROW_BLOB_LEASE_S": "0", "HEDGEROW_GC_EVERY_S": "1"}
    with plane(tmp_path, environment=quickly) as running:
        client = running.client
        (tmp_path / "m").write_bytes(b"weights")
        client.models.register("m", tmp_path / "m")
        client.models.delete("m:1")

        def freed() -> list[Activity]:
            done = [one for one in client.activities.list().items if one.kind == BLOBS_COLLECT and one.state == "succeeded"]
            return [one for one in done if freed_by(one).blobs]

        (activity,) = wait_for(freed, timeout_s=30, what="a collection that frees something")
        assert freed_by(activity).size_bytes == 7
        asked = list(client.events.iterate(subject=f"activity/{activity.id}"))
        assert [event.kind for event in asked] == ["collection.requested", "activity.succeeded"]
        told = [event for event in client.events.iterate(subject="blobs") if event.details["blobs"] == "1"]
        assert [(event.kind, event.details["size_bytes"]) for event in told] == [("blobs.collected", "7")]
