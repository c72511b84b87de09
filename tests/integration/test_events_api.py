"""``/api/v1/events``: pages and streams of what happened, for whoever may read; the SDK's and the CLI's ways to them."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from hedgerow.contracts.events import Event
from hedgerow.sdk.client import Client
from hedgerow.sdk.connect import connect
from hedgerow.sdk.errors import ApiError
from registry.store import events, facts
from registry.store.database import open_database
from tests.registry_server import Api, RunningServer, problem_of, running_server
from tests.registry_stores import BACKENDS
from tests.waiting import wait_for

STREAMS = 12
PATH = "/api/v1/events"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    # 8 threads are kept for calls.
    with running_server(tmp_path_factory.mktemp("server"), "--threads", str(STREAMS + 8)) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with connect(server.url, token=server.owner_token) as made:
        yield made


def happen(api: Api, *names: str) -> list[str]:
    """One event for each name; their subjects."""
    made = [api.post("/api/v1/tokens", json={"name": name, "role": "reader"}) for name in names]
    assert all(one.status_code == 201 for one in made)
    return [f"token/{one.json()['id']}" for one in made]


class Stream:
    """The frames of a stream as they come, read by a thread."""

    def __init__(self, response: httpx.Response) -> None:
        self.frames: list[dict[str, str]] = []
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(response,), daemon=True)
        self._thread.start()

    def subjects(self) -> list[str]:
        return [json.loads(frame["data"])["subject"] for frame in list(self.frames) if frame.get("event") == "event"]

    def wait_for(self, *subjects: str) -> None:
        wait_for(lambda: self.subjects() == [*subjects], what=f"{subjects}; there are {self.subjects()}")

    def _read(self, response: httpx.Response) -> None:
        frame: dict[str, str] = {}
        try:
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if not line:
                    self.frames.append(frame)
                    frame = {}
                else:
                    frame[name] = value
        except (httpx.HTTPError, httpx.StreamError):
            pass
        finally:
            self.ended.set()


@contextmanager
def following(api: Api, last_id: str = "", **query: str) -> Iterator[Stream]:
    """A stream that has begun."""
    headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
    with api.stream("GET", PATH, headers=headers, params=query) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream(response)
        wait_for(lambda: stream.frames, what="the place where the stream begins")
        yield stream


# --- pages -------------------------------------------------------------------------------------------------------------


def test_pages_hold_everything_once(api: Api) -> None:
    subjects = happen(api, "a", "b", "c")
    forth: list[dict[str, str]] = []
    after = None
    while True:
        page = api.get(PATH, params={"limit": 2} | ({"after": after} if after else {})).json()
        forth += page["items"]
        after = page["next"]
        if after is None:
            break
    assert [event["subject"] for event in forth][-3:] == subjects
    newest = api.get(PATH, params={"newest": "true", "limit": 2}).json()
    assert [event["subject"] for event in newest["items"]] == subjects[:0:-1]
    older = api.get(PATH, params={"newest": "true", "limit": 1000, "after": newest["next"]}).json()
    assert newest["items"] + older["items"] == forth[::-1]


def test_filters_and_their_mistakes(api: Api) -> None:
    (subject,) = happen(api, "filtered")
    assert [e["subject"] for e in api.get(PATH, params={"subject": subject}).json()["items"]] == [subject]
    everything = {"kind": "token.*", "actor": "this-machine", "since": "2020-01-01T00:00:00Z"}
    assert subject in [e["subject"] for e in api.get(PATH, params=everything | {"limit": "1000"}).json()["items"]]
    assert api.get(PATH, params={"until": "2020-01-01T00:00:00Z"}).json()["items"] == []
    for query, code in (
        ({"since": "yesterday"}, "invalid_argument"),
        ({"since": "0001-01-01T00:00:00+01:00"}, "invalid_argument"),
        ({"until": "9999-12-31T23:59:59-01:00"}, "invalid_argument"),
        ({"after": "x"}, "invalid_page"),
        ({"kinds": "x"}, "unknown_argument"),
        ({"newest": "1"}, "invalid_argument"),
        ({"limit": "0"}, "invalid_argument"),
    ):
        answered = api.get(PATH, params=query)
        assert (answered.status_code, problem_of(answered)["code"]) == (400, code)


def test_readers_read_and_nobody_else(server: RunningServer, api: Api) -> None:
    for role, status in (("reader", 200), ("contributor", 200), ("puller", 403)):
        with server.client(api.token(role)) as other:
            assert other.get(PATH).status_code == status
    with server.client("") as nobody:
        assert nobody.get(PATH).status_code == 401


def test_events_hold_no_secret(server: RunningServer, api: Api) -> None:
    secret = api.token("contributor")
    assert secret not in api.get(PATH, params={"limit": 1000}).text
    assert secret.split("_")[2] not in api.get(PATH, params={"limit": 1000}).text
    assert server.owner_token not in api.get(PATH, params={"limit": 1000}).text


# --- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_tells_what_happens_next(api: Api) -> None:
    happen(api, "before")
    with following(api) as stream:
        stream.wait_for(*happen(api, "a", "b"))
        assert "id" in stream.frames[0]


def test_a_stream_is_resumed_where_it_was_cut(api: Api) -> None:
    with following(api) as stream:
        begun = stream.frames[0]["id"]
        subjects = happen(api, "a", "b")
        stream.wait_for(*subjects)
        first = next(frame["id"] for frame in stream.frames if frame.get("event"))
    missed = happen(api, "c")
    with following(api, first) as stream:
        stream.wait_for(subjects[1], *missed)
    with following(api, begun) as stream:
        stream.wait_for(*subjects, *missed)
    with following(api, after=begun, subject=missed[0]) as stream:
        stream.wait_for(*missed)


def test_a_stream_with_since_begins_in_the_past(api: Api) -> None:
    now = datetime.now(UTC)
    subjects = happen(api, "a")
    with following(api, since=now.isoformat()) as stream:
        stream.wait_for(*subjects, *happen(api, "b"))


def test_a_stream_says_when_the_workspace_was_restored(api: Api) -> None:
    happen(api, "a")
    with following(api, "00000000.0.5") as stream:
        wait_for(lambda: stream.subjects(), what="events from the beginning")
        restored = next(frame for frame in stream.frames if frame.get("event") == "restored")
        assert json.loads(restored["data"])["incarnation"] == restored["id"].split(".")[0]
    answered = api.get(PATH, params={"after": "00000000.0.5"})
    assert (answered.status_code, problem_of(answered)["code"]) == (409, "events_restored")


def test_streams_leave_threads_for_calls(api: Api) -> None:
    with contextmanager(_many)(api) as streams:
        assert len(streams) == STREAMS
        answered = api.get(PATH, headers={"accept": "text/event-stream"})
        assert (answered.status_code, problem_of(answered)["code"]) == (503, "too_many_streams")
        assert api.get(PATH).status_code == 200
    wait_for(lambda: _streams_are_free(api), what="the threads of the streams being free again")


def _many(api: Api) -> Iterator[list[httpx.Response]]:
    made: list[httpx.Response] = []
    try:
        for _ in range(STREAMS):
            request = api.build_request("GET", PATH, headers={"accept": "text/event-stream"})
            made.append(api.send(request, stream=True))
        yield made
    finally:
        for response in made:
            response.close()


def _streams_are_free(api: Api) -> bool:
    # The server notices with its next heartbeat, or when it has something to say.
    happen(api, "wake")
    with api.stream("GET", PATH, headers={"accept": "text/event-stream"}) as response:
        return response.status_code == 200


# --- SDK and CLI -------------------------------------------------------------------------------------------------------


def test_the_sdk_lists_and_iterates(api: Api, client: Client) -> None:
    subjects = happen(api, "a", "b")
    assert [event.subject for event in client.events.list(newest=True, limit=2).items] == subjects[::-1]
    found = list(client.events.iterate(kind="token.created"))
    assert [event.subject for event in found][-2:] == subjects
    assert [event.subject for event in client.events.iterate(after=found[-2].cursor)][:1] == subjects[1:]
    hour = timedelta(hours=1)
    now = datetime.now(UTC)
    assert client.events.list(since=now + hour).items == []
    assert client.events.list(subject=subjects[0], since=now - hour, until=now + hour).items[0].actor.role == "owner"
    with pytest.raises(ApiError) as refused:
        client.events.list(after="00000000.1.1")
    assert refused.value.problem.code == "events_restored"


def test_the_sdk_follows_through_a_restart_of_the_server(tmp_path: Path) -> None:
    """The server is killed while somebody follows; what happens meanwhile is not missed, and nothing comes twice."""
    with running_server(tmp_path) as server:
        port = str(server.listening_port())
        got: list[Event] = []
        with connect(server.url, token=server.owner_token) as client, server.client() as api:
            before = happen(api, "a")
            begun = client.events.list(newest=True, limit=1).items[0].cursor

            def follow() -> None:
                got.extend(itertools.islice(client.events.follow(kind="token.created", after=begun), 3))

            thread = threading.Thread(target=follow)
            thread.start()
            first = happen(api, "b")
            wait_for(lambda: got, what="the first event")
            server.process.kill()
            server.process.argv += ["--port", port]
            server.start()
            rest = happen(api, "c", "d")
            thread.join(30)
            assert not thread.is_alive()
        assert [event.subject for event in got] == [*first, *rest]
        assert before[0] not in [event.subject for event in got]


def test_following_tells_of_a_restored_backup(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        with server.client() as api:
            happen(api, "a")
        told: list[str] = []
        with connect(server.url, token=server.owner_token) as client:
            found = client.events.follow(after="00000000.0.9", on_restored=told.append)
            first = next(found)
            assert first.number == 1
            assert told == [first.cursor.split(".")[0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stream_goes_on_when_the_incarnation_changes_under_it(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue("postgres_url") if backend == "postgresql" else None
    options = ["--database", url] if url else []
    with running_server(tmp_path, *options) as server, server.client() as api, following(api) as stream:
        (before,) = happen(api, "a")
        stream.wait_for(before)
        database = open_database(url, server.workspace)
        try:
            with database.write() as connection:
                facts.renew_incarnation(connection)
                events.begin_new_life(connection)
        finally:
            database.close()
        (after,) = happen(api, "b")
        wait_for(lambda: stream.subjects()[-1:] == [after], what="the event after the restore")
        kinds = [frame["event"] for frame in stream.frames if frame.get("event")]
        assert kinds.index("restored") == 1
        assert stream.subjects().count(before) == 2, "from the beginning again"
