"""Which blobs a collection takes, what it leaves alone, and that publishing beside it never loses content."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from hedgerow.clock import SystemClock
from hedgerow.contracts.api import CollectedGarbage, RegisterModel
from hedgerow.contracts.api_images import BuildImage
from hedgerow.contracts.model import FileEntry
from registry.blobs import CHUNK_BYTES, BlobStore, FolderStore
from registry.blobs.errors import BlobMissing, BlobsKept
from registry.controller.garbage_work.collect import Collection
from registry.store import activities, blobs, garbage, leases, models
from registry.store.database import Database
from registry.store.tables import activity_blobs, blob_chunks
from registry.store.tables import blobs as blob_rows
from tests.registry_stores import BACKENDS, add_image, add_model, digest_of_text, ready_database
from tests.waiting import wait_for

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


class Home:
    """A database and a folder of blobs; ``keep`` stores and records content, with a lease that ended unless told otherwise."""

    def __init__(self, database: Database, store: FolderStore) -> None:
        self.database, self.store = database, store

    def keep(self, content: bytes, now: datetime = LONG_AGO) -> str:
        with self.store.stage(io.BytesIO(content)) as staged, self.database.write() as connection:
            blobs.record_staged(connection, staged, now)
        os.utime(self.store.path(staged.digest), (now.timestamp(), now.timestamp()))
        return staged.digest

    def collect(self, *, dry_run: bool = False, store: BlobStore | None = None) -> CollectedGarbage:
        return Collection(
            self.database,
            store or self.store,
            SystemClock(),
            holder="gc test",
            grace_s=3600,
            dry_run=dry_run,
            report=lambda _progress, _step: None,
        ).run()

    def known(self) -> set[str]:
        with self.database.read() as connection:
            return {row.digest for row in connection.execute(select(blob_rows.c.digest))}

    def on_disk(self) -> set[str]:
        return {blob.digest for blob in self.store.stored()}


@pytest.fixture(params=BACKENDS)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as database:
        yield Home(database, FolderStore(tmp_path / "blobs"))


def test_only_what_nothing_refers_to_is_freed(home: Home) -> None:
    used = home.keep(b"weights")
    leased = home.keep(b"just uploaded", datetime.now(UTC))
    lost = [home.keep(b"garbage %d" % n) for n in range(30)]
    with home.database.write() as connection:
        entry = FileEntry(path="f", digest=used, size_bytes=7)
        models.register(connection, RegisterModel(name="m", files=[entry]), NOW)
    sizes = sum(home.store.size(digest) for digest in lost)
    for _ in range(2):
        seen = home.collect(dry_run=True)
        assert (seen.blobs, seen.size_bytes, seen.dry_run) == (30, sizes, True)
        assert home.on_disk() == {used, leased, *lost}
    freed = home.collect()
    assert (freed.blobs, freed.size_bytes, freed.dry_run) == (30, sizes, False)
    assert [blob.digest for blob in freed.first] == sorted(lost)[:20]
    assert home.on_disk() == home.known() == {used, leased}
    assert home.collect().blobs == 0


def test_every_table_that_refers_to_content_protects_it(home: Home) -> None:
    with home.database.write() as connection:
        model = add_model(connection, now=LONG_AGO)
        add_image(connection, "image", model, now=LONG_AGO)
        connection.execute(blob_rows.update().values(leased_until=""))
        everything = {row.digest for row in connection.execute(select(blob_rows.c.digest))}
        assert len(everything) == 3
        assert garbage.find(connection, NOW, "", 100) == []


def test_what_a_queued_build_needs_stays_until_it_ends(home: Home) -> None:
    held, older = home.keep(b"score.py"), home.keep(b"queued by an older version")
    with home.database.write() as connection:
        plain = BuildImage(name="i", models=["m:1"])
        request = BuildImage(name="i", models=["m:1"], source=[FileEntry(path="s", digest=older, size_bytes=26)])
        first = activities.create(connection, kind="image.build", subject="i", request=plain, now=NOW)
        second = activities.create(connection, kind="image.build", subject="i", request=request, now=NOW)
        blobs.hold_for_activity(connection, first, [held, held])
        blobs.hold_for_activity(connection, first, [held])
    assert home.collect().blobs == 0
    with home.database.write() as connection:
        activities.cancel(connection, first, NOW)
        assert connection.execute(select(activity_blobs).where(activity_blobs.c.activity_id == first)).all() == []
    assert home.collect().blobs == 1
    with home.database.write() as connection:
        activities.cancel(connection, second, NOW)
    assert home.collect().blobs == 1
    assert home.on_disk() == set()


def test_what_a_build_finds_stored_is_held_and_the_rest_is_not_promised(home: Home) -> None:
    layer = home.keep(b"a layer of the version before")
    with home.database.write() as connection:
        request = BuildImage(name="i", models=["m:1"])
        building = activities.create(connection, kind="image.build", subject="i", request=request, now=NOW)
        assert blobs.hold_known(connection, building, [digest_of_text("new"), layer]) == [layer]
        assert blobs.hold_known(connection, building, [layer]) == [layer]
    assert home.collect().blobs == 0
    with home.database.write() as connection:
        connection.execute(blob_rows.update().values(leased_until=blobs.CONDEMNED))
        assert blobs.hold_known(connection, building, [layer]) == [], "what is about to be deleted is no content any more"


def test_asking_for_content_renews_its_lease(home: Home) -> None:
    digest = home.keep(b"x")
    now = datetime.now(UTC)
    with home.database.write() as connection:
        assert blobs.lease(connection, [digest, digest_of_text("never")], now).keys() == {digest}
    assert home.collect().blobs == 0
    assert home.known() == {digest}


def test_content_that_no_row_knows_and_remains_of_uploads(home: Home) -> None:
    killed, young = (
        home.store.put(io.BytesIO(b"killed before its row"))[0],
        home.store.put(io.BytesIO(b"about to be recorded"))[0],
    )
    os.utime(home.store.path(killed), (0, 0))
    remains = home.store.path(killed).parents[2] / "uploads" / "cut-off"
    remains.write_bytes(b"12345")
    os.utime(remains, (0, 0))
    seen = home.collect(dry_run=True)
    assert (seen.blobs, seen.leftovers, seen.leftover_bytes) == (1, 1, 5)
    freed = home.collect()
    assert (freed.blobs, freed.leftovers, freed.leftover_bytes) == (1, 1, 5)
    assert home.on_disk() == {young}
    assert home.known() == set()
    assert not remains.exists()


def test_chunk_hashes_go_with_their_blob(home: Home) -> None:
    digest = home.keep(os.urandom(CHUNK_BYTES + 1))
    with home.database.read() as connection:
        found = blobs.chunks_of(connection, digest)
        assert found is not None
        assert len(found.hashes) == 64
    home.collect()
    with home.database.read() as connection:
        assert connection.execute(select(blob_chunks)).all() == []


def test_never_beside_a_backup(home: Home) -> None:
    digest = home.keep(b"x")
    with home.database.write() as connection:
        lease = leases.acquire(connection, garbage.KEEP_LEASE, "a backup", 60, datetime.now(UTC))
        assert lease is not None
    with pytest.raises(BlobsKept, match="a backup"):
        home.collect()
    assert home.on_disk() == {digest}
    with home.database.write() as connection:
        leases.release(connection, lease)
    assert home.collect().blobs == 1


class Dying(FolderStore):
    """Deletes, and then its process is gone before the commit."""

    def delete(self, digests: Sequence[str]) -> None:
        super().delete(digests)
        raise KeyboardInterrupt


def test_a_collection_that_dies_between_content_and_commit_makes_no_false_promise(home: Home, tmp_path: Path) -> None:
    digest = home.keep(b"weights")
    with pytest.raises(KeyboardInterrupt):
        home.collect(store=Dying(tmp_path / "blobs"))
    assert home.known() == {digest}, "the row came back with the transaction"
    assert home.on_disk() == set()
    with home.database.write() as connection:
        assert not blobs.is_known(connection, digest)
        assert blobs.lease(connection, [digest], NOW) == {}
        with pytest.raises(BlobMissing):
            blobs.require(connection, [FileEntry(path="f", digest=digest, size_bytes=7)])
    # The client that was told so sends it again.
    assert home.keep(b"weights", datetime.now(UTC)) == digest
    home.collect()
    assert home.on_disk() == home.known() == {digest}


def test_the_next_collection_finishes_what_a_killed_one_left(home: Home, tmp_path: Path) -> None:
    for n in range(5):
        home.keep(b"%d" % n)
    with pytest.raises(KeyboardInterrupt):
        home.collect(store=Dying(tmp_path / "blobs"))
    assert home.collect().blobs == 5
    assert home.known() == home.on_disk() == set()


@contextmanager
def in_thread(action: Callable[[], object]) -> Iterator[threading.Thread]:
    """``action`` beside the test; its error is the test's."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as problem:  # noqa: BLE001 - raised again by the test's own thread
            failed.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


class Slow(FolderStore):
    """Says when it is about to delete, and waits to be told to go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.entered, self.go = threading.Event(), threading.Event()

    def delete(self, digests: Sequence[str]) -> None:
        self.entered.set()
        assert self.go.wait(30)
        super().delete(digests)


def test_publishing_while_a_collection_deletes_the_same_content(home: Home, tmp_path: Path) -> None:
    """The collection has the row: the publisher waits for its commit, finds the content gone and publishes it again."""
    digest = home.keep(b"weights")
    slow = Slow(tmp_path / "blobs")
    began, recorded = threading.Event(), threading.Event()

    def publish() -> None:
        with home.store.stage(io.BytesIO(b"weights")) as staged:
            began.set()
            with home.database.write() as connection:
                blobs.record_staged(connection, staged, datetime.now(UTC))
            recorded.set()

    with in_thread(lambda: home.collect(store=slow)):
        try:
            wait_for(slow.entered.is_set, what="the collection holding the row")
            with in_thread(publish):
                wait_for(began.is_set, what="the content being there once more")
                assert not recorded.wait(0.2), "the publisher did not wait for the collection"
                # Only now does the content go away that the publisher has just published.
                slow.go.set()
        finally:
            slow.go.set()
    assert recorded.is_set()
    assert home.on_disk() == home.known() == {digest}
    assert home.collect().blobs == 0
    with home.store.open(digest) as stream:
        assert stream.read() == b"weights"


def test_collecting_while_a_publisher_has_the_row(home: Home) -> None:
    """The publisher has the row: the collection passes over it (or waits, on SQLite), and sees its lease afterwards."""
    digest = home.keep(b"weights")
    with home.database.read() as connection:
        found = garbage.find(connection, NOW, "", 100)
    with home.database.write() as connection:
        doomed = garbage.condemn(connection, found, NOW)
    freed: list[garbage.Garbage] = []
    recorded = threading.Event()

    def collect() -> None:
        assert recorded.wait(30)
        with home.database.write() as connection:
            gone = garbage.forget(connection, doomed)
            home.store.delete([one.digest for one in gone])
            freed.extend(gone)

    stream = io.BytesIO(b"weights")
    with in_thread(collect) as collecting, home.store.stage(stream) as staged, home.database.write() as connection:
        blobs.record_staged(connection, staged, datetime.now(UTC))
        recorded.set()
        if connection.dialect.name != "sqlite":
            collecting.join(30)
            assert not collecting.is_alive(), "the collection waited for the publisher"
    assert freed == []
    assert [one.digest for one in doomed] == [digest]
    assert home.on_disk() == home.known() == {digest}


def test_a_reference_that_is_being_made_protects_content(home: Home) -> None:
    """A registration that has looked at the blob holds it until its commit; a collection in between leaves it alone."""
    digest = home.keep(b"weights")
    entry = FileEntry(path="f", digest=digest, size_bytes=7)
    looked = threading.Event()

    def register() -> None:
        with home.database.write() as connection:
            models.register(connection, RegisterModel(name="m", files=[entry]), NOW)
            looked.set()

    with home.database.read() as connection:
        found = garbage.find(connection, NOW, "", 10)
    assert [one.digest for one in found] == [digest]
    with in_thread(register):
        wait_for(looked.is_set, what="the registration")
        with home.database.write() as connection:
            doomed = garbage.condemn(connection, found, NOW)
    assert doomed == []
    assert home.collect().blobs == 0
    assert home.on_disk() == {digest}


def test_uploads_and_collections_beside_each_other_lose_nothing(home: Home) -> None:
    """Two threads store and register the same few contents again and again while another collects."""
    contents = [b"content %d" % n for n in range(6)]
    done = threading.Event()
    registered: list[str] = []

    def upload(name: str) -> None:
        for turn in range(20):
            content = contents[turn % len(contents)]
            # Without a lease to speak of, so that everything is garbage whenever nothing refers to it.
            with home.store.stage(io.BytesIO(content)) as staged, home.database.write() as connection:
                blobs.record_staged(connection, staged, LONG_AGO)
                if turn % 3 == 0:
                    entry = FileEntry(path="f", digest=staged.digest, size_bytes=len(content))
                    models.register(connection, RegisterModel(name=f"{name}-{turn}", files=[entry]), NOW)
                    registered.append(staged.digest)

    def collect() -> None:
        # Between two turns others get at the database, which SQLite gives to whoever asks first.
        while not done.wait(0.01):
            with home.database.write() as connection:
                found = garbage.condemn(connection, garbage.find(connection, NOW, "", 10), NOW)
            with home.database.write() as connection:
                home.store.delete([one.digest for one in garbage.forget(connection, found)])

    with in_thread(collect):
        try:
            with in_thread(lambda: upload("a")), in_thread(lambda: upload("b")):
                pass
        finally:
            done.set()
    home.collect()
    assert home.on_disk() == home.known() == set(registered)


def test_a_lease_with_time_left_is_not_written_again(home: Home) -> None:
    digest = home.keep(b"x", NOW)
    with home.database.write() as connection:
        before = blobs.lease(connection, [digest], NOW + timedelta(hours=1))
        assert blobs.lease(connection, [digest], NOW + timedelta(hours=1)) == before
        blobs.lease(connection, [digest], NOW + timedelta(hours=13))
        assert blobs.lease(connection, [digest], NOW + timedelta(hours=14)) != before
