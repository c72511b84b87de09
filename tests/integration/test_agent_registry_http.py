"""What a device asks of its registry: with its token of the moment, to one place only, and never more than it can hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from edge_agent.errors import KeyNotFetched
from edge_agent.registry_http import DeviceRegistry
from hedgerow.contracts.device_keys import FetchKey
from tests.agent_builders import Workspace


def failed(problem: str) -> KeyNotFetched:
    return KeyNotFetched(generation=2, problem=problem)


class Place:
    """Answers every request with ``status`` and ``body``; ``tokens`` are used one after the other."""

    def __init__(self) -> None:
        self.status, self.body = 200, b""
        self.asked: list[tuple[str, str, str | None, bytes]] = []
        self.tokens = ["first", "second"]
        place = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sent = self.rfile.read(int(self.headers["content-length"] or 0))
                place.asked.append((self.command, self.path, self.headers["authorization"], sent))
                self.send_response(place.status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", str(len(place.body)))
                self.end_headers()
                self.wfile.write(place.body)

            do_POST = do_GET

            def log_message(self, *_words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self.server.server_port}/below/"
        config = msgspec.structs.replace(Workspace().config, registry_url=url)
        self.registry = DeviceRegistry(config, lambda: self.tokens.pop(0))


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_each_request_has_the_token_of_the_moment(place: Place) -> None:
    place.body = b"answer"
    assert place.registry.ask("desired", failed, 6) == b"answer"
    assert place.registry.ask("key", failed, 6, FetchKey(sealed="c2VhbGVk")) == b"answer"
    assert place.asked == [
        ("GET", "/below/api/v1/devices/porch/desired", "Bearer first", b""),
        ("POST", "/below/api/v1/devices/porch/key", "Bearer second", b'{"sealed":"c2VhbGVk"}'),
    ]


def test_an_answer_without_end_is_refused(place: Place) -> None:
    place.body = b"x" * 1001
    with pytest.raises(KeyNotFetched, match="longer than 1000 bytes"):
        place.registry.ask("key", failed, 1000)


@pytest.mark.parametrize("status", [302, 404, 503])
def test_another_status_is_told_in_few_words_and_followed_nowhere(place: Place, status: int) -> None:
    place.status, place.body = status, b"why " * 1000
    with pytest.raises(KeyNotFetched, match=f"it answered {status} why") as caught:
        place.registry.ask("key", failed, 1_000_000)
    assert len(str(caught.value)) < 500
    assert len(place.asked) == 1


def test_nobody_there_is_the_callers_error_too(place: Place) -> None:
    place.server.shutdown()
    place.server.server_close()
    with pytest.raises(KeyNotFetched, match="refused"):
        place.registry.ask("key", failed, 1000)


def test_what_the_caller_cannot_do_with_an_answer_is_told_as_well(place: Place) -> None:
    with pytest.raises(KeyNotFetched, match="the disk is full"), place.registry.answer("key", failed):
        raise OSError("the disk is full")
