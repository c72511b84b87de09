"""Following activities over server-sent events: in order, resumable, ended with the activity, and never starving calls."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from hedgerow.contracts.api_images import BuildImage
from hedgerow.contracts.document import decode
from hedgerow.contracts.work import ActivityEvent, Problem
from registry.store import activities, leases
from registry.store.database import Database, open_database
from registry.store.leases import Lease
from registry.wakeups_socket import SocketWakeups
from tests.registry_server import Api, RunningServer, problem_of, running_server
from tests.registry_stores import NOW, after
from tests.waiting import wait_for

STREAMS = 4


class Worker:
    """Stands where the controller stands: writes under its lease, wakes the server after each commit."""

    def __init__(self, database: Database, run_folder: Path) -> None:
        self.database = database
        self.wakeups = SocketWakeups(run_folder)
        with database.write() as connection:
            lease = leases.acquire(connection, "controller", "test", 10**6, NOW)
        assert lease is not None
        self.lease: Lease = lease

    def queue(self) -> str:
        with self.database.write() as connection:
            request = BuildImage(name="i", models=["m"])
            return activities.create(connection, kind="image.build", subject="i", request=request, now=NOW)

    def claim(self) -> str:
        """Makes and takes a piece of work."""
        activity_id = self.queue()
        with self.database.write() as connection:
            claimed = activities.claim(connection, self.lease, ["image.build"], NOW)
        assert claimed is not None
        assert claimed[0].id == activity_id
        self.wakeups.wake("server")
        return activity_id

    def report(self, activity_id: str, step: str, progress: float = 0.5) -> bool:
        with self.database.write() as connection:
            goes_on = activities.report(connection, self.lease, activity_id, progress=progress, step=step, now=after(1))
        self.wakeups.wake("server")
        return goes_on

    def end(self, activity_id: str, *, failed: bool = False) -> None:
        problem = Problem(code="x", message="it broke") if failed else None
        with self.database.write() as connection:
            activities.finish(
                connection,
                self.lease,
                activity_id,
                state="failed" if failed else "succeeded",
                problem=problem,
                now=after(2),
            )
        self.wakeups.wake("server")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    # 8 threads are kept for calls.
    with running_server(tmp_path_factory.mktemp("server"), "--threads", str(STREAMS + 8)) as running:
        yield running


@pytest.fixture(scope="module")
def worker(server: RunningServer) -> Iterator[Worker]:
    database = open_database(None, server.workspace)
    made = Worker(database, server.workspace / "run")
    yield made
    made.wakeups.close()
    database.close()


@contextlib.contextmanager
def following(api: Api, activity_id: str, seen: int = 0) -> Iterator[Iterator[ActivityEvent]]:
    with api.stream("GET", f"/api/v1/activities/{activity_id}/events", headers={"last-event-id": str(seen)}) as answered:
        if answered.status_code != 200:
            answered.read()
        assert answered.status_code == 200, answered.text
        assert answered.headers["content-type"].startswith("text/event-stream")
        yield events_in(answered.iter_lines())


def events_in(lines: Iterator[str]) -> Iterator[ActivityEvent]:
    number = 0
    for line in lines:
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            event = decode(line[6:], ActivityEvent)
            assert event.number == number
            yield event


@pytest.mark.alone
def test_events_come_as_they_happen_and_the_stream_ends_with_the_activity(api: Api, worker: Worker) -> None:
    activity_id = worker.claim()
    with following(api, activity_id) as events:
        assert [next(events).state for _ in range(2)] == ["queued", "running"]
        for step in ("resolving", "packing"):
            started = time.monotonic()
            worker.report(activity_id, step)
            assert next(events).step == step
            # Woken, not polled: far below the fallback of 5 s.
            assert time.monotonic() - started < 2.0
        worker.end(activity_id)
        assert next(events).state == "succeeded"
        assert list(events) == []


def test_a_client_resumes_where_it_was_cut(api: Api, worker: Worker) -> None:
    activity_id = worker.claim()
    worker.report(activity_id, "one")
    with following(api, activity_id) as events:
        assert [next(events).number for _ in range(2)] == [1, 2]
    worker.report(activity_id, "two")
    worker.end(activity_id, failed=True)
    with following(api, activity_id, seen=2) as events:
        rest = list(events)
    assert [event.step for event in rest] == ["one", "two", "failed"]
    assert [event.number for event in rest] == [3, 4, 5]
    assert rest[-1].log == "it broke"
    # Somebody who has seen the end already is not kept waiting for more.
    with following(api, activity_id, seen=5) as events:
        assert list(events) == []


def test_a_lost_wake_up_only_delays(api: Api, worker: Worker) -> None:
    activity_id = worker.claim()
    with following(api, activity_id) as events:
        assert [next(events).state for _ in range(2)] == ["queued", "running"]
        with worker.database.write() as connection:
            activities.report(connection, worker.lease, activity_id, progress=0.1, step="unannounced", now=after(1))
        assert next(events).step == "unannounced"
        worker.end(activity_id)
        assert [event.state for event in events] == ["succeeded"]


def test_cancelling(api: Api, worker: Worker) -> None:
    queued, running = worker.queue(), ""
    with following(api, queued) as events:
        assert next(events).state == "queued"
        assert api.post(f"/api/v1/activities/{queued}/cancel").json()["state"] == "cancelled"
        assert [event.state for event in events] == ["cancelled"]
    running = worker.claim()
    assert api.post(f"/api/v1/activities/{running}/cancel").json()["state"] == "running"
    assert worker.report(running, "still at it") is False
    worker.end(running)
    assert api.post(f"/api/v1/activities/{running}/cancel").json()["state"] == "succeeded"


def test_unknown_activities_and_odd_event_ids(api: Api, worker: Worker) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        answered = api.request(method, f"/api/v1/activities/none{path}")
        assert (answered.status_code, problem_of(answered)["code"]) == (404, "not_found")
    activity_id = worker.queue()
    for text in ("x", "-1", "1.5", "9" * 30, "١"):
        answered = api.get(f"/api/v1/activities/{activity_id}/events", headers=[(b"last-event-id", text.encode())])
        assert problem_of(answered)["code"] == "invalid_argument"
    api.post(f"/api/v1/activities/{activity_id}/cancel")


def test_streams_leave_threads_for_calls(server: RunningServer, api: Api, worker: Worker) -> None:
    activity_id = worker.claim()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(STREAMS)]
        streams = [stack.enter_context(following(client, activity_id)) for client in clients]
        assert [next(stream).state for stream in streams] == ["queued"] * STREAMS
        refused = api.get(f"/api/v1/activities/{activity_id}/events")
        assert (refused.status_code, problem_of(refused)["code"]) == (503, "too_many_streams")
        assert refused.headers["retry-after"] == "1"
        assert api.get("/api/v1/models").status_code == 200
    # The clients are gone: their places are free again as soon as something is written to them.
    worker.report(activity_id, "more")

    def a_place_is_free() -> bool:
        worker.report(activity_id, "more")
        with api.stream("GET", f"/api/v1/activities/{activity_id}/events") as answered:
            return answered.status_code == 200

    wait_for(a_place_is_free, what="a free place for a stream")
    worker.end(activity_id)


@pytest.mark.alone
def test_a_stop_ends_streams_at_once(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, server.client() as api:
        database = open_database(None, server.workspace)
        worker = Worker(database, server.workspace / "run")
        activity_id = worker.claim()
        ended = threading.Event()

        def follow(ready: Callable[[], None]) -> None:
            with contextlib.suppress(httpx.TransportError), following(api, activity_id) as events:
                next(events)
                ready()
                list(events)
            ended.set()

        began = threading.Event()
        thread = threading.Thread(target=follow, args=(began.set,))
        thread.start()
        assert began.wait(10)
        started = time.monotonic()
        server.process.stop()
        assert ended.wait(5)
        assert time.monotonic() - started < 5
        thread.join()
        worker.wakeups.close()
        database.close()
