"""Clocks that jump, forwards and back: nothing in use is deleted, and nothing is blocked for long by what a wrong clock wrote."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from hedgerow.contracts.api import CollectedGarbage
from registry.backup.errors import BlobsBusy
from registry.backup.keep import BlobKeeper
from registry.blobs import FolderStore, StoredBlob
from registry.blobs.errors import BlobsKept
from registry.controller.clock_watch import ClockWatch
from registry.controller.event_loop import EventLoop
from registry.controller.garbage_work.collect import Collection
from registry.controller.jobs import JobTools
from registry.errors import LeaseLost
from registry.store import blobs, clock_jumps, garbage, leases
from registry.store.blobs import LEASE_S
from registry.store.database import Database
from registry.store.tables import blobs as blob_rows
from registry.store.time_text import to_text
from registry.wakeups_socket import SocketWakeups
from tests.registry_stores import BACKENDS, NOW, ready_database

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Clock:
    """Time passes, and the wall clock jumps, when a test says so."""

    def __init__(self) -> None:
        self.wall, self.monotonic = NOW, 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic_s(self) -> float:
        return self.monotonic

    def passes(self, time: timedelta) -> None:
        self.wall += time
        self.monotonic += time.total_seconds()

    def jumps(self, by: timedelta) -> None:
        self.wall += by


class Place:
    """One machine: a clock, the controller's look at it, uploads, collections, backups."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.store, self.clock = database, FolderStore(folder / "blobs"), Clock()
        with database.write() as connection:
            lease = leases.acquire(connection, "controller", "me", 10**9, NOW)
        assert lease is not None
        self.loop, self.wakeups = EventLoop(self.clock), SocketWakeups(folder / "ws" / "run")
        tools = JobTools(database, self.wakeups, self.loop, self.clock, lambda: lease, folder, folder)
        self.watch = ClockWatch(tools, LEASE_S)

    def close(self) -> None:
        self.loop.close()
        self.wakeups.close()

    def passes(self, time: timedelta) -> None:
        """The controller looks every ten seconds; here whenever something has happened."""
        self.clock.passes(time)
        self.watch.look()

    def upload(self, content: bytes) -> str:
        """What the server does."""
        with self.store.stage(io.BytesIO(content)) as staged, self.database.write() as connection:
            blobs.record_staged(connection, staged, self.clock.now())
        return self._published(staged.digest)

    def publish(self, content: bytes) -> str:
        """What a build does; its record comes later."""
        return self._published(self.store.put(io.BytesIO(content))[0])

    def _published(self, digest: str) -> str:
        os.utime(self.store.path(digest), (self.clock.wall.timestamp(),) * 2)
        return digest

    def collection(self, holder: str = "gc 1", store: FolderStore | None = None) -> Collection:
        return Collection(
            self.database,
            store or self.store,
            self.clock,
            holder=holder,
            grace_s=LEASE_S,
            dry_run=False,
            report=lambda *_: None,
        )

    def killed_collection(self) -> None:
        """What it leaves: its lease."""
        with self.database.write() as connection:
            assert leases.acquire(connection, garbage.KEEP_LEASE, "gc killed", 60.0, self.clock.now())

    def collect(self) -> CollectedGarbage:
        self.watch.look()
        return self.collection().run()

    def on_disk(self) -> set[str]:
        return {blob.digest for blob in self.store.stored()}


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "ws", url) as database:
        made = Place(database, tmp_path)
        yield made
        made.close()


# --- leases of uploads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [DAY, 400 * DAY, 20_000 * DAY], ids=["a day", "a year", "from 1970"])
def test_a_clock_set_ahead_ends_no_upload_early_and_no_later_than_its_time(place: Place, jump: timedelta) -> None:
    uploaded, published = place.upload(b"about to be registered"), place.publish(b"being built")
    place.passes(HOUR)
    place.clock.jumps(jump)
    assert place.collect().blobs == 0
    assert place.on_disk() == {uploaded, published}
    place.passes(22 * HOUR)
    assert place.collect().blobs == 0
    # Twenty-four hours have really passed.
    place.passes(2 * HOUR)
    assert place.collect().blobs == 2


def test_what_was_over_before_the_jump_is_freed_after_it(place: Place) -> None:
    place.upload(b"old")
    place.passes(2 * DAY)
    kept = place.upload(b"new")
    place.clock.jumps(3 * DAY)
    assert place.collect().blobs == 1
    assert place.on_disk() == {kept}


def test_a_clock_that_goes_wrong_and_is_set_right_again(place: Place) -> None:
    place.upload(b"before")
    place.passes(HOUR)
    place.clock.jumps(DAY)
    place.passes(HOUR)
    ahead = place.upload(b"while it was ahead")
    place.clock.jumps(-DAY)
    place.passes(HOUR)
    with place.database.read() as connection:
        assert clock_jumps.read(connection) is None, "everything is as it was before"
    assert place.collect().blobs == 0
    place.passes(22 * HOUR)
    # Its lease ends a day late: that costs space only.
    assert place.collect().blobs == 1
    assert place.on_disk() == {ahead}
    place.passes(DAY + HOUR)
    assert place.collect().blobs == 1


def test_many_jumps_add_up(place: Place) -> None:
    kept = place.upload(b"x")
    for jump in (5 * HOUR, 9 * HOUR, -3 * HOUR, 30 * HOUR):
        place.passes(HOUR)
        place.clock.jumps(jump)
        place.watch.look()
    place.passes(19 * HOUR)
    assert place.collect().blobs == 0
    assert place.on_disk() == {kept}
    place.passes(2 * HOUR)
    assert place.collect().blobs == 1


def test_a_clock_set_back_takes_nothing_away(place: Place) -> None:
    before = place.upload(b"before")
    place.passes(HOUR)
    place.clock.jumps(-DAY)
    after = place.upload(b"after")
    place.passes(23 * HOUR)
    assert place.collect().blobs == 0
    assert place.on_disk() == {before, after}
    place.passes(2 * HOUR)
    assert place.collect().blobs == 1
    place.passes(DAY)
    assert place.collect().blobs == 1


def test_a_lease_that_no_right_clock_gave_is_made_a_right_one(place: Place) -> None:
    digest = place.upload(b"x")
    with place.database.write() as connection:
        connection.execute(update(blob_rows).values(leased_until="2099-01-01T00:00:00.000000Z"))
    assert place.collect().blobs == 0
    with place.database.read() as connection:
        (ends,) = connection.execute(select(blob_rows.c.leased_until)).scalars()
    assert ends == to_text(NOW + DAY)
    assert place.on_disk() == {digest}
    place.passes(DAY + HOUR)
    assert place.collect().blobs == 1


class Interrupted(FolderStore):
    """Something happens when a collection has gone through the rows and begins to list contents."""

    def __init__(self, folder: Path, happen: Callable[[], object]) -> None:
        super().__init__(folder)
        self._happen = happen

    def stored(self) -> Iterator[StoredBlob]:
        self._happen()
        return super().stored()


@pytest.mark.parametrize("jump", [2 * DAY, -2 * DAY], ids=["ahead", "back"])
def test_a_jump_in_the_middle_of_a_collection(place: Place, tmp_path: Path, jump: timedelta) -> None:
    kept = {place.upload(b"about to be registered"), place.publish(b"being built")}

    def happen() -> None:
        place.clock.jumps(jump)
        kept.add(place.publish(b"meanwhile"))

    assert place.collection(store=Interrupted(tmp_path / "blobs", happen)).run().blobs == 0
    assert place.on_disk() == kept
    assert len(kept) == 3


# --- the lease on all contents --------------------------------------------------------------------------------------------


def test_a_killed_collection_whose_clock_was_ahead_blocks_backups_for_minutes(place: Place) -> None:
    place.clock.jumps(DAY)
    place.killed_collection()
    place.clock.jumps(-DAY)
    keeper = BlobKeeper(place.database, place.clock)
    with pytest.raises(BlobsBusy, match="gc killed"):
        keeper.begin()
    place.passes(timedelta(seconds=garbage.KEEP_LONGEST_S + 1))
    keeper.begin()
    keeper.end()


def test_a_killed_backup_whose_clock_was_ahead_blocks_collections_for_minutes(place: Place) -> None:
    place.clock.jumps(400 * DAY)
    BlobKeeper(place.database, place.clock).begin()
    place.clock.jumps(-400 * DAY)
    for _ in range(2):
        with pytest.raises(BlobsKept, match="backup"):
            place.collection().run()
    place.passes(timedelta(seconds=garbage.KEEP_LONGEST_S + 1))
    assert place.collection().run().blobs == 0


def test_what_was_let_go_of_is_free_on_a_clock_that_was_set_back(place: Place) -> None:
    keeper = BlobKeeper(place.database, place.clock)
    keeper.begin()
    keeper.end()
    place.clock.jumps(-DAY)
    place.collect()
    place.clock.jumps(-DAY)
    keeper.begin()


def test_a_running_backup_keeps_contents_from_a_collection_whose_clock_was_set_ahead(place: Place) -> None:
    keeper = BlobKeeper(place.database, place.clock)
    keeper.begin()
    place.clock.jumps(DAY)
    for _ in range(5):
        with pytest.raises(BlobsKept, match="backup"):
            place.collect()
        place.passes(timedelta(seconds=40))
        keeper.renew()
    keeper.end()
    place.collect()


def test_a_backup_that_was_killed_before_the_jump_blocks_for_minutes(place: Place) -> None:
    BlobKeeper(place.database, place.clock).begin()
    place.clock.jumps(DAY)
    with pytest.raises(BlobsKept, match="backup"):
        place.collect()
    place.passes(timedelta(seconds=garbage.KEEP_LONGEST_S + 1))
    place.collect()


def test_a_collection_that_lost_its_lease_to_a_backup_deletes_nothing_more(place: Place, tmp_path: Path) -> None:
    """The clock is set ahead, so that the backup takes its lease for over; the collection finds out before it deletes."""
    lost = place.publish(b"lost")
    place.passes(2 * DAY)

    def happen() -> None:
        place.clock.jumps(HOUR)
        BlobKeeper(place.database, place.clock).begin()

    with pytest.raises(LeaseLost):
        place.collection(store=Interrupted(tmp_path / "blobs", happen)).run()
    assert place.on_disk() == {lost}


def test_one_collection_at_a_time_whichever_machine(place: Place, tmp_path: Path) -> None:
    refused: list[str] = []

    def happen() -> None:
        with pytest.raises(BlobsKept) as problem:
            place.collection("gc there").run()
        refused.append(str(problem.value))

    place.collection("gc here", Interrupted(tmp_path / "blobs", happen)).run()
    assert len(refused) == 1
    assert "gc here" in refused[0]
    place.collection("gc there").run()
