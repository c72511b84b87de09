"""The SDK sends a POST again when its answer was lost on the way, and it is done once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hedgerow.contracts.api import Page, RegisterModel
from hedgerow.contracts.model import FileEntry, ModelManifest
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import AnswerCutOff, ApiError, ServerUnreachable
from hedgerow.sdk.transport import Transport
from tests.registry_server import RunningServer

BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 59\r\nConnection: close\r\n\r\n"
    b'{"error":{"code":"busy","message":"later","remedy":"wait"}} '
)


class LossyWire:
    """Passes connections on to the server; the answers to the first POSTs get lost after the server gave them."""

    def __init__(self, target: tuple[str, int], losses: int, *, busy: int = 0) -> None:
        self._target, self.losses, self.busy = target, losses, busy
        self.keys: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, socket.create_connection(self._target, timeout=20) as upstream:
                    client.settimeout(20)
                    with suppress(TimeoutError, ConnectionError):
                        self._pass(client, upstream)

    def _pass(self, client: socket.socket, upstream: socket.socket) -> None:
        """One request for each connection, which is what `Connection: close` asks for."""
        request = b""
        while b"\r\n\r\n" not in request:
            part = client.recv(65_536)
            if not part:
                return
            request += part
        head, _, body = request.partition(b"\r\n\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[1:])}
        while len(body) < int(headers.get(b"content-length", b"0")):
            body += client.recv(65_536)
        is_post = head.startswith(b"POST /api/v1/models")
        if is_post:
            self.keys.append(headers[b"idempotency-key"])
            if self.busy:
                self.busy -= 1
                client.sendall(BUSY)
                return
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        upstream.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body)
        answer = b""
        while part := upstream.recv(65_536):
            answer += part
        if is_post and self.losses:
            self.losses -= 1
            return
        client.sendall(answer)


@contextmanager
def wire(server: RunningServer, losses: int, *, busy: int = 0) -> Iterator[tuple[LossyWire, Client]]:
    address = urlsplit(server.url)
    lossy = LossyWire((str(address.hostname), int(address.port or 0)), losses, busy=busy)
    try:
        with Client(Transport(lossy.url, server.owner_token)) as client:
            yield lossy, client
    finally:
        lossy.close()


def register(server: RunningServer, client: Client, name: str) -> ModelManifest:
    with server.client() as api:
        file: FileEntry = api.upload(b"weights")
    body = RegisterModel(name=name, files=[file])
    return client.transport.call("POST", "/api/v1/models", ModelManifest, body=body)


def versions(server: RunningServer, name: str) -> list[int]:
    with Client(Transport(server.url, server.owner_token)) as client:
        page = client.transport.call("GET", "/api/v1/models", Page[ModelManifest], query={"name": name})
    return [model.version for model in page.items]


def test_a_lost_answer_is_asked_for_again(server: RunningServer) -> None:
    with wire(server, losses=3) as (lossy, client):
        assert register(server, client, "lost").version == 1
        assert len(lossy.keys) == 4
        assert len(set(lossy.keys)) == 1
        assert register(server, client, "lost").version == 2, "another request, another key"
        assert len(set(lossy.keys)) == 2
    assert versions(server, "lost") == [2, 1]


def test_an_overloaded_server_is_asked_again_for_a_while(server: RunningServer) -> None:
    with wire(server, losses=0, busy=2) as (lossy, client):
        assert register(server, client, "busy").version == 1
        assert len(set(lossy.keys)) == 1
    with wire(server, losses=0, busy=100) as (lossy, client), pytest.raises(ApiError) as caught:
        register(server, client, "busy")
    assert caught.value.problem.code == "busy"
    assert len(lossy.keys) == 5
    assert versions(server, "busy") == [1]


def test_it_ends(server: RunningServer) -> None:
    with wire(server, losses=100) as (lossy, client), pytest.raises(ServerUnreachable):
        register(server, client, "never")
    assert len(lossy.keys) == 9
    assert versions(server, "never") == [1], "done once, although no answer ever came"


def test_where_nothing_listens_the_caller_hears_it_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with Client(Transport(f"http://127.0.0.1:{port}", "x")) as client, pytest.raises(ServerUnreachable):
        client.tokens.create("x", "reader")


def test_an_answer_that_ends_in_the_middle_is_not_said_to_be_no_server() -> None:
    def cut(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n")
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):  # until the client ends; an end with bytes unread would take back what was sent
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        done = pool.submit(cut, listener)
        with Client(Transport(f"http://127.0.0.1:{listener.getsockname()[1]}", "x")) as client:
            chunks = client.devices.stream("press-1", "GetModuleLogs")
            assert next(chunks) == b"[1"
            with pytest.raises(AnswerCutOff, match="cut off"):
                next(chunks)
        done.result()
