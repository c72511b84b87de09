"""What the controller tells as events: how builds, runs and deployments end, what it deletes, and webhooks that follow it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hedgerow.contracts.events import Event
from hedgerow.sdk.client import Client
from registry.controller.event_keeping import EventKeeping
from registry.controller.event_loop import EventLoop
from registry.controller.jobs import JobTools
from registry.store import events, leases
from registry.store.database import Database
from registry.store.events import Wanted
from registry.wakeups_socket import SocketWakeups
from tests.controller_process import Plane, add_image, delete, deploy, ended, plane, source
from tests.registry_stores import BACKENDS, NOW, ready_database
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane(tmp_path_factory.mktemp("plane")) as running:
        yield running


def told(client: Client, subject: str) -> list[Event]:
    return [event for event in client.events.iterate(subject=subject) if event.actor.id == "system"]


def test_builds_and_deployments(made: Plane, tmp_path: Path) -> None:
    client = made.client
    image = add_image(client, tmp_path)
    build = client.activities.list().items[0]
    (end,) = told(client, f"activity/{build.id}")
    assert (end.kind, end.details["work"]) == ("activity.succeeded", "image.build")
    assert [event.kind for event in told(client, f"image/{image}")] == ["image.built"]
    deploy(client, image)
    assert [event.kind for event in told(client, "deployment/twice/blue")][-1] == "deployment.ready"
    delete(made)
    wait_for(lambda: told(client, "deployment/twice/blue")[-1].kind == "deployment.removed", what="the removal being told")


def test_runs(made: Plane, tmp_path: Path) -> None:
    client = made.client
    ends = []
    for script in ("print(1)", "raise SystemExit(3)"):
        run = client.runs.submit("x", source(tmp_path / script[:5], script), "train.py")
        assert run.activity_id
        ended(client, run.activity_id)
        (end,) = told(client, f"run/{run.id}")
        ends.append((end.kind, end.details["experiment"], "problem" in end.details))
    assert ends == [("run.succeeded", "x", False), ("run.failed", "x", True)]


# --- old events --------------------------------------------------------------------------------------------------------


class Calendar:
    """A clock whose days pass when a test says so; its monotonic time does not move."""

    def __init__(self) -> None:
        self.today = NOW

    def now(self) -> datetime:
        return self.today

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "ws", url) as opened:
        yield opened


def test_old_events_are_deleted_bit_by_bit_and_one_event_says_so(database: Database, tmp_path: Path) -> None:
    clock = Calendar()
    loop = EventLoop(_Hasty())
    with database.write() as connection:
        lease = leases.acquire(connection, "controller", "me", 10**9, NOW)
        for number in range(1205):
            events.record(connection, kind="model.registered", subject=f"model/m:{number}", actor=events.system("hub"), now=NOW)
    assert lease is not None
    wakeups = SocketWakeups(tmp_path / "ws" / "run")
    tools = JobTools(database, wakeups, loop, clock, lambda: lease, tmp_path, tmp_path)
    clock.today = NOW + timedelta(days=366)
    EventKeeping(tools, 365).begin(first_s=0.0)

    def look() -> None:
        if len(_all(database)) <= 1:
            loop.stop()
        else:
            loop.after(0.01, look)

    loop.after(0.0, look)
    loop.run()
    loop.close()
    wakeups.close()
    left = _all(database)
    assert [(event.kind, event.details["keep_days"]) for event in left] == [("events.deleted", "365")]


class _Hasty:
    """Time runs a thousand times as fast."""

    def __init__(self) -> None:
        self._s = 0.0

    def now(self) -> datetime:
        return NOW

    def monotonic_s(self) -> float:
        self._s += 0.05
        return self._s


def _all(database: Database) -> list[Event]:
    with database.read() as connection:
        return events.after(connection, events.beginning(connection), Wanted(), 2000).events


@pytest.mark.parametrize("days", [0, 10**7])
def test_kept_for_ever(days: int, tmp_path: Path) -> None:
    with ready_database(tmp_path / "ws", None) as database:
        with database.write() as connection:
            lease = leases.acquire(connection, "controller", "me", 10**9, NOW)
            for _ in range(3):
                events.record(connection, kind="model.registered", subject="model/m:1", actor=events.system("hub"), now=NOW)
        assert lease is not None
        loop, clock = EventLoop(_Hasty()), Calendar()
        clock.today = NOW + timedelta(days=100_000)
        wakeups = SocketWakeups(tmp_path / "ws" / "run")
        EventKeeping(JobTools(database, wakeups, loop, clock, lambda: lease, tmp_path, tmp_path), days).begin(first_s=0.0)
        loop.after(1.0, loop.stop)
        loop.run()
        loop.close()
        wakeups.close()
        assert len(_all(database)) == 3
