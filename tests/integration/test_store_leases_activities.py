"""Who may act, and what becomes of work whose worker is gone: on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.work import ENDED
from registry.errors import LeaseLost
from registry.store import activities, leases
from registry.store.database import Database
from registry.store.leases import Lease
from tests.registry_stores import BACKENDS, NOW, after, ready_database

REQUEST = EnrollDevice(name="any-request")


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "w", url) as opened:
        yield opened


def take(database: Database, holder: str, at_s: float = 0, ttl_s: float = 30) -> Lease | None:
    with database.write() as connection:
        return leases.acquire(connection, "controller", holder, ttl_s, after(at_s))


def held(database: Database, holder: str, at_s: float = 0) -> Lease:
    lease = take(database, holder, at_s)
    assert lease is not None
    return lease


def running(database: Database, lease: Lease, kind: str) -> str:
    with database.write() as connection:
        activity_id = activities.create(connection, kind=kind, subject="s", request=REQUEST, now=NOW)
        claimed = activities.claim(connection, lease, [kind], NOW)
    assert claimed is not None
    assert claimed[0].id == activity_id
    return activity_id


def test_a_lease_has_one_holder_until_it_runs_out(database: Database) -> None:
    first = held(database, "a")
    assert take(database, "b", at_s=29) is None
    assert held(database, "a", at_s=20).token == first.token, "a renewal keeps the token"
    assert take(database, "b", at_s=49) is None
    assert held(database, "b", at_s=51).token == first.token + 1


def test_a_released_lease_is_free_at_once_and_its_numbers_go_on(database: Database) -> None:
    first = held(database, "a")
    with database.write() as connection:
        leases.release(connection, first)
    assert held(database, "b", at_s=1).token == first.token + 1


def test_of_many_who_want_it_one_gets_it(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda number: take(database, f"holder-{number}"), range(8)))
    assert len([lease for lease in taken if lease]) == 1


def test_whoever_lost_the_lease_writes_nothing_more(database: Database) -> None:
    old = held(database, "old")
    activity_id = running(database, old, "image.build")
    held(database, "new", at_s=60)
    with pytest.raises(LeaseLost, match="belongs to new"), database.write() as connection:
        activities.report(connection, old, activity_id, progress=0.9, step="too late", now=after(61))
    with pytest.raises(LeaseLost), database.write() as connection:
        activities.finish(connection, old, activity_id, state="succeeded", now=after(61))
    with database.read() as connection:
        assert activities.get(connection, activity_id).step != "too late"
        assert activities.get(connection, activity_id).state == "running"


@pytest.mark.parametrize(
    ("kind", "then"), [("image.build", "queued"), ("service.deploy", "queued"), ("run", "failed"), ("?", "failed")]
)
def test_work_whose_controller_died_goes_on_or_ends_with_the_reason(database: Database, kind: str, then: str) -> None:
    activity_id = running(database, held(database, "old"), kind)
    new = held(database, "new", at_s=60)
    with database.write() as connection:
        assert activities.recover(connection, new, after(61)) == [activity_id]
        settled = activities.get(connection, activity_id)
    assert settled.state == then
    assert (settled.problem is not None) == (then == "failed")


def test_what_was_adopted_is_left_alone_and_belongs_to_the_new_holder(database: Database) -> None:
    activity_id = running(database, held(database, "old"), "run")
    new = held(database, "new", at_s=60)
    with database.write() as connection:
        assert activities.recover(connection, new, after(61), adopted=[activity_id]) == []
        activities.finish(connection, new, activity_id, state="succeeded", now=after(62))
        assert activities.get(connection, activity_id).state == "succeeded"


def test_work_that_kills_every_controller_is_given_up(database: Database) -> None:
    activity_id = running(database, held(database, "c0"), "image.build")
    for number in range(1, activities.MAX_ATTEMPTS + 1):
        lease = held(database, f"c{number}", at_s=60 * number)
        with database.write() as connection:
            activities.recover(connection, lease, after(60 * number))
            activities.claim(connection, lease, ["image.build"], after(60 * number))
    with database.read() as connection:
        given_up = activities.get(connection, activity_id)
    assert (given_up.state, given_up.attempt) == ("failed", activities.MAX_ATTEMPTS)


def test_work_is_done_oldest_first_and_each_piece_once(database: Database) -> None:
    lease = held(database, "a")
    with database.write() as connection:
        queued = [activities.create(connection, kind="run", subject=str(n), request=REQUEST, now=after(n)) for n in range(5)]
        claimed = [activities.claim(connection, lease, ["run"], after(10)) for _ in range(6)]
    assert [found[0].id for found in claimed if found] == queued


def test_events_are_numbered_without_holes_and_tell_the_story(database: Database) -> None:
    lease = held(database, "a")
    activity_id = running(database, lease, "run")
    with database.write() as connection:
        for step in ("one", "two"):
            assert activities.report(connection, lease, activity_id, progress=0.5, step=step, now=NOW)
        activities.finish(connection, lease, activity_id, state="succeeded", result={"run": "r"}, now=NOW)
        activities.finish(connection, lease, activity_id, state="failed", now=NOW)
        events = activities.events_after(connection, activity_id, 0)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert [event.step for event in events] == ["queued", "started", "one", "two", "succeeded"]
    assert events[-1].state in ENDED


def test_cancelling_ends_queued_work_and_asks_running_work(database: Database) -> None:
    lease = held(database, "a")
    with database.write() as connection:
        waiting = activities.create(connection, kind="run", subject="s", request=REQUEST, now=NOW)
        assert activities.cancel(connection, waiting, NOW).state == "cancelled"
    busy = running(database, lease, "run")
    with database.write() as connection:
        assert activities.cancel(connection, busy, NOW).state == "running"
        assert not activities.report(connection, lease, busy, progress=0.1, step="s", now=NOW), "the worker is told to stop"
        assert activities.cancel_requested(connection) == {busy}
