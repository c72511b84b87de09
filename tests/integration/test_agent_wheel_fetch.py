"""Fetching the agent's wheel: only what hashes to the digest of the signed desired state gets a name."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from edge_agent.errors import WheelNotFetched
from edge_agent.registry_http import DeviceRegistry
from edge_agent.service.wheel import fetch_wheel
from tests.agent_builders import Workspace

CONTENT = b"a wheel" * 1000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class _Server(http.server.ThreadingHTTPServer):
    """Answers every request with ``content``, once ``status`` is 200."""

    content = CONTENT
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("authorization", "")))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _serving() -> Iterator[_Server]:
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[_Server]:
    with _serving() as made:
        yield made


def fetch(server: _Server | None, into: Path, *, goes_on: bool = True, bytes_max: int = 1_000_000) -> None:
    port = server.server_address[1] if server else 1
    config = msgspec.structs.replace(Workspace().config, registry_url=f"http://127.0.0.1:{port}/below")
    fetch_wheel(DeviceRegistry(config, lambda: config.pull_token), DIGEST, into, lambda: goes_on, bytes_max=bytes_max)


def test_it_is_asked_for_once_with_the_device_s_own_token(server: _Server, tmp_path: Path) -> None:
    into = tmp_path / "wheels/w.whl"
    fetch(server, into)
    fetch(server, into)
    assert into.read_bytes() == CONTENT
    assert server.asked == [(f"/below/api/v1/devices/porch/agent-wheel?digest={DIGEST}", "Bearer pull-secret")]
    into.write_bytes(b"damaged")
    fetch(server, into)
    assert into.read_bytes() == CONTENT
    assert [path.name for path in into.parent.iterdir()] == ["w.whl"]


def test_what_hashes_to_something_else_gets_no_name(server: _Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1]
    with pytest.raises(WheelNotFetched, match="another sha256"):
        fetch(server, tmp_path / "w.whl")
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_and_an_unreachable_server_are_told(server: _Server, tmp_path: Path) -> None:
    server.status, server.content = 404, b"no such blob" * 1000
    with pytest.raises(WheelNotFetched, match="404 no such blob"):
        fetch(server, tmp_path / "w.whl")
    server.content = b'{"error": {"code": "not_found", "message": "There is no wheel", "remedy": ""}}'
    with pytest.raises(WheelNotFetched, match="404 There is no wheel"):
        fetch(server, tmp_path / "w.whl")
    with pytest.raises(WheelNotFetched, match="refused"):
        fetch(None, tmp_path / "w.whl")


def test_an_end_of_the_agent_and_content_without_end_are_ends(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(WheelNotFetched, match="the agent ends"):
        fetch(server, tmp_path / "w.whl", goes_on=False)
    with pytest.raises(WheelNotFetched, match="larger than 100"):
        fetch(server, tmp_path / "w.whl", bytes_max=100)
    assert not (tmp_path / "w.whl").exists()
