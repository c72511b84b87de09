"""Events in an order in which nothing is missed, found by what they are about, and deleted when they are old."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from hedgerow.contracts.events import Actor, CreateWebhook, Event
from registry.errors import CursorOfAnotherLife, InvalidPage
from registry.store import event_retention, events, facts, tokens, webhooks
from registry.store.database import Database
from registry.store.events import Cursor, Place, Wanted
from registry.vault import Sealed
from tests.registry_stores import BACKENDS, NOW, after, ready_database

ANN = Actor(id="a1b2c3", name="ann", role="contributor")
ALL = Wanted()


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "ws", url) as made:
        yield made


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_url: str) -> Iterator[Database]:
    with ready_database(tmp_path / "ws", postgres_url) as made:
        yield made


def tell(connection: Connection, subject: str, kind: str = "model.registered", actor: Actor = ANN, at_s: float = 0) -> int:
    return events.record(connection, kind=kind, subject=subject, actor=actor, now=after(at_s))


def told(database: Database, *subjects: str, kind: str = "model.registered", at_s: float = 0) -> None:
    for subject in subjects:
        with database.write() as connection:
            tell(connection, subject, kind, at_s=at_s)


def read(database: Database, cursor: Cursor | None = None, wanted: Wanted = ALL, limit: int = 100) -> tuple[list[Event], Cursor]:
    with database.read() as connection:
        batch = events.after(connection, cursor or events.beginning(connection), wanted, limit)
    return batch.events, batch.reached


def subjects(found: list[Event]) -> list[str]:
    return [event.subject for event in found]


def test_an_event_is_read_as_it_was_told(database: Database) -> None:
    with database.write() as connection:
        number = events.record(
            connection, kind="model.registered", subject="model/iris:3", actor=ANN, now=NOW, details={"b": "2", "a": "ü"}
        )
    ((event,), reached) = read(database)
    assert event.number == number
    assert (event.kind, event.subject, event.actor, event.at) == ("model.registered", "model/iris:3", ANN, NOW)
    assert event.details == {"a": "ü", "b": "2"}
    assert Cursor.parse(event.cursor).text() == event.cursor
    assert read(database, Cursor.parse(event.cursor))[0] == []
    assert read(database, reached)[0] == []


def test_pages_forth_and_back_hold_every_event_once(database: Database) -> None:
    names = [f"model/m{number}" for number in range(7)]
    told(database, *names)
    forth: list[str] = []
    cursor = None
    while True:
        found, _ = read(database, cursor, limit=3)
        if not found:
            break
        forth += subjects(found)
        cursor = Cursor.parse(found[-1].cursor)
    back: list[str] = []
    before = None
    while True:
        with database.read() as connection:
            found = events.newest(connection, before, ALL, 3)
        if not found:
            break
        back += subjects(found)
        before = Cursor.parse(found[-1].cursor)
    assert forth == names
    assert back == names[::-1]


def test_filters(database: Database) -> None:
    with database.write() as connection:
        token = tokens.create(connection, name="bob", role="reader", now=NOW)
        bob = Actor(id=token.id, name="bob", role="reader")
        tell(connection, "model/iris:1", at_s=0)
        tell(connection, "model/iris:10", "model.deleted", at_s=10)
        tell(connection, "model/iris-big:1", actor=bob, at_s=20)
        tell(connection, "image/iris:1", "image.registered", events.system("controller"), at_s=30)
        tell(connection, "model/x_y:1", "model.deleted", at_s=40)
        tell(connection, "model/xzy:1", "model.deleted", at_s=50)
    cases = {
        Wanted(kind="model.deleted"): ["model/iris:10", "model/x_y:1", "model/xzy:1"],
        Wanted(kind="image.*"): ["image/iris:1"],
        Wanted(kind="model"): [],
        Wanted(subject="model/iris:1"): ["model/iris:1"],
        Wanted(subject="model/iris:*"): ["model/iris:1", "model/iris:10"],
        Wanted(subject="model/iris*"): ["model/iris:1", "model/iris:10", "model/iris-big:1"],
        Wanted(subject="model/x_*"): ["model/x_y:1"],
        Wanted(subject="MODEL/*"): [],
        Wanted(actor="bob"): ["model/iris-big:1"],
        Wanted(actor=token.id): ["model/iris-big:1"],
        Wanted(actor="controller"): ["image/iris:1"],
        Wanted(actor="system"): ["image/iris:1"],
        Wanted(actor="nobody"): [],
        Wanted(actor="%"): [],
        Wanted(since=after(20), until=after(40)): ["model/iris-big:1", "image/iris:1"],
        Wanted(kind="model.*", since=after(45)): ["model/xzy:1"],
    }
    assert {wanted: subjects(read(database, wanted=wanted)[0]) for wanted in cases} == cases


def test_a_filtered_reader_does_not_look_at_the_same_events_again(database: Database) -> None:
    told(database, "model/a", "model/b")
    found, reached = read(database, wanted=Wanted(kind="image.*"))
    assert found == []
    told(database, "image/c", kind="image.registered")
    with database.read() as connection:
        seen = events.after(connection, reached, Wanted(), 10).events
    assert subjects(seen) == ["image/c"]


@pytest.mark.parametrize(
    "text", ["", "x", "0.0", "0.0.0", "abcdefgh.1.x", "abcdefgh.1.-2", "abcdefgh.1.2.3", f"abcdefgh.1.{2**63}", "abcdefgh.१.1"]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidPage):
        Cursor.parse(text)


def test_a_cursor_of_another_life_is_recognised(database: Database) -> None:
    told(database, "model/a")
    with database.write() as connection:
        cursor = events.end(connection)
        facts.renew_incarnation(connection)
    with database.read() as connection, pytest.raises(CursorOfAnotherLife):
        events.check_life(connection, cursor)


# --- PostgreSQL: transactions that end in another order than they began ------------------------------------------------


def test_a_number_that_becomes_visible_late_is_not_missed(on_postgres: Database) -> None:
    """Two interleaved transactions: the second event commits first. A plain "after number" would skip the first one."""
    first, second = on_postgres.records.connect(), on_postgres.records.connect()
    with first, second:
        slow, quick = first.begin(), second.begin()
        early = tell(first, "model/early")
        late = tell(second, "model/late")
        assert early < late
        quick.commit()
        found, reached = read(on_postgres)
        assert found == [], "the later event would hide the earlier one from whoever goes on after it"
        slow.commit()
    found, _ = read(on_postgres, reached)
    assert subjects(found) == ["model/early", "model/late"]


def test_order_follows_transactions_not_numbers(on_postgres: Database) -> None:
    """The transaction that began to write later drew the smaller number."""
    first, second = on_postgres.records.connect(), on_postgres.records.connect()
    with first, second:
        one, two = first.begin(), second.begin()
        first.execute(text("select pg_current_xact_id()"))
        tell(second, "model/second-transaction")
        tell(first, "model/first-transaction")
        two.commit()
        one.commit()
    found, _ = read(on_postgres)
    assert subjects(found) == ["model/first-transaction", "model/second-transaction"]
    assert found[0].number > found[1].number


def test_an_aborted_transaction_holds_nothing_back(on_postgres: Database) -> None:
    with on_postgres.records.connect() as other:
        lost = other.begin()
        tell(other, "model/lost")
        told(on_postgres, "model/there")
        assert read(on_postgres)[0] == []
        lost.rollback()
    assert subjects(read(on_postgres)[0]) == ["model/there"]


def test_many_writers_and_a_reader_that_never_misses_one(database: Database) -> None:
    writers, each = 4, 25
    failures: list[Exception] = []

    def write(writer: int) -> None:
        try:
            for number in range(each):
                with database.write() as connection:
                    tell(connection, f"model/w{writer}-{number}a")
                    tell(connection, f"model/w{writer}-{number}b")
        except Exception as problem:  # noqa: BLE001 - shown by the main thread
            failures.append(problem)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    seen: list[str] = []
    cursor = None
    while True:
        # Asked before the read: what the last writer commits in between is found in the next round.
        writing = any(thread.is_alive() for thread in threads)
        found, cursor = read(database, cursor, limit=7)
        seen += subjects(found)
        assert not failures
        if not found and not writing:
            break
    for thread in threads:
        thread.join()
    assert not failures
    assert len(seen) == len(set(seen)) == writers * each * 2


# --- a restored database -----------------------------------------------------------------------------------------------


def test_after_a_restore_old_events_come_before_new_ones(on_postgres: Database) -> None:
    """Restored from another server, whose transactions had larger numbers than ours will have for years."""
    told(on_postgres, "model/a", "model/b")
    with on_postgres.write() as connection:
        connection.execute(text("update events set transaction_id = 4000000000000000000 + number"))
    assert read(on_postgres)[0] == []
    with on_postgres.write() as connection:
        facts.renew_incarnation(connection)
        events.begin_new_life(connection)
    told(on_postgres, "model/c")
    assert subjects(read(on_postgres)[0]) == ["model/a", "model/b", "model/c"]


def test_after_a_restore_webhooks_are_given_what_they_were_not(database: Database) -> None:
    hook(database, "one")
    told(database, "model/a")
    with database.write() as connection:
        webhooks.fan_out(connection, NOW)
    told(database, "model/b")
    with database.write() as connection:
        facts.renew_incarnation(connection)
        events.begin_new_life(connection)
    told(database, "model/c")
    with database.write() as connection:
        webhooks.fan_out(connection, NOW)
    with database.read() as connection:
        found, _ = webhooks.deliveries(connection, "one", 10)
    assert [delivery.subject for delivery in found] == ["model/c", "model/b", "model/a"]


# --- retention ---------------------------------------------------------------------------------------------------------


def sweep_all(database: Database, older_than_s: float, limit: int = 2) -> int:
    deleted, reached = 0, 0
    while True:
        with database.write() as connection:
            swept = event_retention.sweep(connection, older_than=after(older_than_s), after=reached, limit=limit)
        deleted += swept.deleted
        if swept.reached is None:
            return deleted
        assert swept.reached > reached
        reached = swept.reached


def test_old_events_go_in_batches_and_the_others_stay(database: Database) -> None:
    told(database, *(f"model/old{number}" for number in range(5)), at_s=0)
    told(database, "model/new", at_s=1000)
    assert sweep_all(database, 500) == 5
    assert subjects(read(database)[0]) == ["model/new"]
    assert sweep_all(database, 500) == 0


def test_the_newest_event_stays_so_that_its_number_is_never_given_again(database: Database) -> None:
    told(database, "model/a", "model/b")
    last = read(database)[0][-1]
    assert sweep_all(database, 500) == 1
    told(database, "model/c")
    found = read(database)[0]
    assert subjects(found) == ["model/b", "model/c"]
    assert found[-1].number > last.number


def test_what_a_webhook_waits_for_stays(database: Database) -> None:
    hook(database, "given")
    told(database, "model/waits", "model/done", "model/dead")
    with database.write() as connection:
        webhooks.fan_out(connection, NOW)
        for state in ("done", "dead"):
            of_subject = f"select number from events where subject = 'model/{state}'"
            to = "delivered" if state == "done" else state
            connection.execute(text(f"update webhook_deliveries set state = '{to}' where event_number in ({of_subject})"))
    told(database, "model/not-given")
    told(database, "model/new", at_s=1000)
    sweep_all(database, 500)
    assert subjects(read(database)[0]) == ["model/waits", "model/not-given", "model/new"]


def test_a_clock_that_was_ahead_keeps_no_other_event(database: Database) -> None:
    told(database, "model/ahead", at_s=10**6)
    told(database, "model/old", at_s=0)
    told(database, "model/new", at_s=1000)
    assert sweep_all(database, 500, limit=10) == 1
    assert subjects(read(database)[0]) == ["model/ahead", "model/new"]


def hook(database: Database, name: str) -> None:
    with database.write() as connection:
        webhooks.create(
            connection, CreateWebhook(name=name, url="https://receiver.example"), Sealed("k", b"s"), by="owner:o:1", now=NOW
        )


def test_places_are_ordered_as_they_are_compared() -> None:
    assert Place(1, 9) < Place(2, 1) < Place(2, 2)
    assert timedelta(0) == NOW - NOW
