"""Deliveries in the database: given out once, claimed by one, settled by whoever holds the claim, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from hedgerow.contracts.events import ChangeWebhook, CreateWebhook, Delivery
from registry.errors import NameTaken, RecordNotFound, TooManyWebhooks
from registry.store import events, webhooks
from registry.store.database import Database
from registry.store.webhooks import Claim, Settlement
from registry.vault import Sealed
from tests.registry_stores import BACKENDS, NOW, after, ready_database

SEALED = Sealed("k", b"sealed")
FAR_S = 10**6
DELIVERED = Settlement("delivered", 200)


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "ws", url) as made:
        yield made


def hook(database: Database, name: str = "hook", *kinds: str) -> None:
    wanted = CreateWebhook(name=name, url="https://receiver.example", kinds=list(kinds))
    with database.write() as connection:
        webhooks.create(connection, wanted, SEALED, by="owner:o:1", now=NOW)


def tell(database: Database, *subjects: str, kind: str = "model.registered") -> list[int]:
    numbers = []
    for subject in subjects:
        with database.write() as connection:
            actor = events.system("hub")
            numbers.append(events.record(connection, kind=kind, subject=subject, actor=actor, now=NOW))
    return numbers


def fan_out(database: Database, at_s: float = 0) -> None:
    more = True
    while more:
        with database.write() as connection:
            more = webhooks.fan_out(connection, after(at_s))


def claim(database: Database, name: str = "hook", at_s: float = 0, lasts_s: float = 20) -> Claim | None:
    with database.write() as connection:
        return webhooks.claim(connection, name, now=after(at_s), until=after(at_s + lasts_s), early=after(at_s + FAR_S))


def claimed(database: Database, name: str = "hook", at_s: float = 0) -> Claim:
    found = claim(database, name, at_s)
    assert found is not None
    return found


def settle(database: Database, held: Claim, how: Settlement, at_s: float = 0) -> bool:
    with database.write() as connection:
        return webhooks.settle(connection, held, how, after(at_s))


def listed(database: Database, name: str = "hook", state: str | None = None) -> list[Delivery]:
    with database.read() as connection:
        return webhooks.deliveries(connection, name, 1000, state=state)[0][::-1]


def later(at_s: float) -> Settlement:
    return Settlement("waiting", 500, "the receiver answered 500", next_at=after(at_s))


def due(database: Database) -> dict[str, datetime]:
    with database.read() as connection:
        return {one.name: one.next_at for one in webhooks.due(connection)}


def test_events_are_given_to_each_hook_once_and_from_its_creation_on(database: Database) -> None:
    tell(database, "model/before")
    hook(database, "all")
    hook(database, "images", "image.*")
    hook(database, "deleted", "model.deleted", "image.deleted")
    tell(database, "model/a", "model/b")
    tell(database, "image/c", kind="image.deleted")
    for _ in range(3):
        fan_out(database)
    assert [one.subject for one in listed(database, "all")] == ["model/a", "model/b", "image/c"]
    assert [one.subject for one in listed(database, "images")] == ["image/c"]
    assert [one.subject for one in listed(database, "deleted")] == ["image/c"]
    with database.read() as connection:
        assert not webhooks.behind(connection)


def test_more_events_than_one_transaction_gives_out(database: Database) -> None:
    hook(database)
    with database.write() as connection:
        for number in range(1100):
            events.record(connection, kind="model.registered", subject=f"model/{number}", actor=events.system("hub"), now=NOW)
    fan_out(database)
    with database.read() as connection:
        assert webhooks.get(connection, "hook").waiting == 1100


def test_a_transaction_that_ends_late_is_given_out_all_the_same(tmp_path: Path, postgres_url: str) -> None:
    with ready_database(tmp_path / "ws", postgres_url) as database:
        hook(database)
        with database.records.connect() as other:
            slow = other.begin()
            events.record(other, kind="model.registered", subject="model/slow", actor=events.system("hub"), now=NOW)
            tell(database, "model/quick")
            fan_out(database)
            assert listed(database) == []
            slow.commit()
        fan_out(database)
        assert {one.subject for one in listed(database)} == {"model/slow", "model/quick"}


def test_only_the_oldest_is_sent_and_only_by_one(database: Database) -> None:
    hook(database)
    first, second = tell(database, "model/a", "model/b")
    fan_out(database)
    held = claimed(database)
    assert (held.event.number, held.attempt, held.sealed) == (first, 1, SEALED)
    assert claim(database) is None, "being sent"
    assert due(database) == {"hook": after(20)}
    assert settle(database, held, DELIVERED)
    assert claimed(database).event.number == second


def test_a_sender_that_died_loses_its_claim_and_what_it_still_says_is_not_heard(database: Database) -> None:
    hook(database)
    tell(database, "model/a")
    fan_out(database)
    dead = claimed(database)
    assert claim(database, at_s=19) is None
    again = claimed(database, at_s=20)
    assert (again.attempt, again.delivery_id) == (2, dead.delivery_id)
    assert not settle(database, dead, later(1000), at_s=21)
    assert settle(database, again, DELIVERED, at_s=22)
    assert not settle(database, again, DELIVERED, at_s=23)
    (found,) = listed(database)
    assert (found.state, found.attempts) == ("delivered", 2)


def test_a_failure_holds_back_what_comes_after_it(database: Database) -> None:
    hook(database)
    first, _ = tell(database, "model/a", "model/b")
    fan_out(database)
    assert settle(database, claimed(database), later(10))
    assert claim(database, at_s=9) is None
    held = claimed(database, at_s=10)
    assert (held.event.number, held.attempt, held.failing_since) == (first, 2, NOW)
    settle(database, held, DELIVERED, at_s=11)
    assert claimed(database, at_s=11).failing_since is None


def test_one_hooks_trouble_is_not_the_others(database: Database) -> None:
    hook(database, "a")
    hook(database, "b")
    tell(database, "model/x")
    fan_out(database)
    settle(database, claimed(database, "a"), later(500))
    assert claimed(database, "b").event.subject == "model/x"


def test_a_clock_that_was_ahead_puts_nothing_off_for_ever(database: Database) -> None:
    hook(database)
    tell(database, "model/a")
    fan_out(database)
    settle(database, claimed(database), later(FAR_S * 2))
    assert claim(database, at_s=5) is not None


def test_a_dead_one_lets_the_next_go_and_comes_back_when_asked(database: Database) -> None:
    hook(database)
    first, second = tell(database, "model/a", "model/b")
    fan_out(database)
    settle(database, claimed(database), Settlement("dead", 500, "no"))
    held = claimed(database)
    assert held.event.number == second
    with database.write() as connection:
        assert webhooks.redeliver(connection, "hook", None, after(1)) == 1
        assert webhooks.redeliver(connection, "hook", None, after(1)) == 0
    settle(database, held, DELIVERED, at_s=1)
    again = claimed(database, at_s=1)
    assert (again.event.number, again.attempt) == (first, 1)


def test_redelivering_what_is_being_sent_sends_it_again(database: Database) -> None:
    hook(database)
    (number,) = tell(database, "model/a")
    fan_out(database)
    held = claimed(database)
    with database.write() as connection:
        assert webhooks.redeliver(connection, "hook", number, NOW) == 1
    assert not settle(database, held, DELIVERED)
    assert claimed(database).event.number == number


def test_a_ping_goes_first_and_alone(database: Database) -> None:
    hook(database)
    hook(database, "other")
    tell(database, "model/a")
    fan_out(database)
    settle(database, claimed(database), later(1000))
    (number,) = tell(database, "webhook/hook", kind=webhooks.PING)
    with database.write() as connection:
        webhooks.ping(connection, "hook", number, NOW)
    fan_out(database)
    held = claimed(database)
    assert held.is_ping
    settle(database, held, Settlement("dead", 500, "no"))
    assert claimed(database).event.subject == "model/a", "what waited after a failure is tried again"
    assert [one.subject for one in listed(database, "other")] == ["model/a"], "a ping is nobody else's business"


def test_paused_means_given_out_but_not_sent(database: Database) -> None:
    hook(database)
    with database.write() as connection:
        webhooks.change(connection, "hook", ChangeWebhook(state="paused"), NOW)
    tell(database, "model/a")
    fan_out(database)
    assert claim(database) is None
    assert due(database) == {}
    with database.write() as connection:
        assert webhooks.get(connection, "hook").waiting == 1
        webhooks.change(connection, "hook", ChangeWebhook(state="active"), NOW)
    assert claim(database) is not None


def test_410_pauses_in_the_transaction_of_its_settlement(database: Database) -> None:
    hook(database)
    tell(database, "model/a")
    fan_out(database)
    assert settle(database, claimed(database), Settlement("waiting", 410, "gone", next_at=NOW, pause=True))
    with database.read() as connection:
        found = webhooks.get(connection, "hook")
    assert (found.state, found.waiting, found.revision) == ("paused", 1, 2)
    assert claim(database) is None


def test_a_deleted_hook_takes_its_deliveries_along(database: Database) -> None:
    hook(database)
    tell(database, "model/a")
    fan_out(database)
    held = claimed(database)
    with database.write() as connection:
        webhooks.remove(connection, "hook")
    assert not settle(database, held, DELIVERED)
    assert claim(database) is None
    with database.write() as connection:
        with pytest.raises(RecordNotFound):
            webhooks.remove(connection, "hook")
        with pytest.raises(RecordNotFound):
            webhooks.deliveries(connection, "hook", 10)
    hook(database)
    assert listed(database) == [], "a new one of the same name begins anew"


def test_names_are_taken_once_and_there_is_an_end_to_webhooks(database: Database) -> None:
    for number in range(webhooks.MOST):
        hook(database, f"h{number:02d}")
        if number == 0:
            with pytest.raises(NameTaken):
                hook(database, "h00")
    with pytest.raises(TooManyWebhooks):
        hook(database, "one-more")
    with database.read() as connection:
        first, following = webhooks.page(connection, 30)
        rest, end = webhooks.page(connection, 30, following)
    assert [one.name for one in first + rest] == [f"h{number:02d}" for number in range(webhooks.MOST)]
    assert end is None


def test_two_senders_at_once_get_different_things_or_nothing(tmp_path: Path, postgres_url: str) -> None:
    """On PostgreSQL writers run side by side: the row of the webhook lets one of them claim at a time."""
    with ready_database(tmp_path / "ws", postgres_url) as database:
        hook(database)
        tell(database, "model/a")
        fan_out(database)
        found: list[Claim | None] = []
        threads = [threading.Thread(target=lambda: found.append(claim(database))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert sum(one is not None for one in found) == 1
