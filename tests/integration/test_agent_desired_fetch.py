"""Desired states by reference, from a real HTTP server: checked, tried again, and the newest that was asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from edge_agent.errors import DesiredNotFetched
from edge_agent.link.desired_fetch import DesiredFetcher
from hedgerow.contracts.desired_reference import MAX_REFERENCE_BYTES, DesiredReference, read_reference, reference_to
from hedgerow.contracts.document import encode
from tests.agent_builders import DEVICE_UUID, Workspace, desired
from tests.waiting import wait_for


class Registry:
    """Gives ``envelope``, or ``status`` alone; knows what it was asked."""

    def __init__(self) -> None:
        self.envelope, self.status = b"", 200
        self.asked: list[tuple[str, str | None]] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append((self.path, self.headers["authorization"]))
                self.send_response(registry.status)
                self.send_header("content-length", str(len(registry.envelope)))
                self.end_headers()
                self.wfile.write(registry.envelope)

            def log_message(self, *_words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


class Place:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.fetched: list[tuple[bytes, str]] = []
        self.failed: list[DesiredNotFetched] = []
        config = Workspace(registry_url=registry.url).config
        self.fetcher = DesiredFetcher(config, lambda: "token", lambda *what: self.fetched.append(what), self.failed.append)

    def wait_fetched(self, count: int) -> None:
        wait_for(lambda: len(self.fetched) >= count, timeout_s=60, what=f"{count} desired states")


@pytest.fixture
def place() -> Iterator[Place]:
    registry = Registry()
    made = Place(registry)
    yield made
    made.fetcher.close()
    registry.server.shutdown()
    registry.server.server_close()


def reference(envelope: bytes, version: int = 2) -> DesiredReference:
    return reference_to(envelope, DEVICE_UUID, version)


def test_it_is_fetched_with_the_devices_token(place: Place) -> None:
    place.registry.envelope = b"e" * 2_000_000
    place.fetcher.want(reference(place.registry.envelope), "inc")
    place.wait_fetched(1)
    assert place.fetched == [(place.registry.envelope, "inc")]
    assert place.registry.asked == [("/api/v1/devices/porch/desired", "Bearer token")]
    assert place.failed == []


def test_a_registry_that_is_away_is_asked_again_and_it_is_said_once(place: Place) -> None:
    place.registry.status = 503
    place.fetcher.want(reference(b"e"), "inc")
    wait_for(lambda: len(place.registry.asked) >= 2, timeout_s=60, what="a second try")
    place.registry.envelope, place.registry.status = b"e", 200
    place.wait_fetched(1)
    assert [problem.key for problem in place.failed] == ["desired_not_fetched"]


def test_what_has_another_hash_is_not_taken_and_a_newer_one_is_fetched_at_once(place: Place) -> None:
    place.registry.envelope = b"newer"
    place.fetcher.want(reference(b"older"), "inc")
    wait_for(lambda: place.failed, timeout_s=60, what="the refusal")
    place.fetcher.want(reference(b"newer", 3), "inc")
    place.wait_fetched(1)
    assert place.fetched == [(b"newer", "inc")]


def test_a_reference_for_another_device_means_nothing(place: Place) -> None:
    place.registry.envelope = b"e"
    place.fetcher.want(msgspec.structs.replace(reference(b"x"), device_uuid="another"), "inc")
    place.fetcher.want(reference(b"e"), "inc")
    place.wait_fetched(1)
    assert len(place.registry.asked) == 1


def test_only_a_reference_is_read_as_one() -> None:
    workspace = Workspace()
    found = reference(b"e")
    assert read_reference(encode(found)) == found
    assert read_reference(workspace.signed(desired({}))) is None
    assert read_reference(b"") is None
    assert read_reference(b"\xff{") is None
    assert read_reference(encode(found) + b" " * MAX_REFERENCE_BYTES) is None
