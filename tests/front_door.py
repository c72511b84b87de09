"""The scoring server's own HTTP front in this process, with a handler that says what it understood: quick, and without models."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import uvloop

from runtime.exchange import Exchange, Request, Response
from runtime.front.door import Door
from runtime.front.limits import HttpLimits

T = TypeVar("T")


def told(request: Request) -> bytes:
    """What the front made of a request, as JSON."""
    facts = {"method": request.method, "path": request.path, "query": request.query, "body": request.body.decode("latin-1")}
    return json.dumps(facts | {"headers": request.headers}).encode()


class FrontDoor:
    """A door on a loop in a thread. Paths steer the answer: /wait holds it back until ``release``, /large, /stream, /raise."""

    def __init__(self, limits: HttpLimits | None = None, host: str = "127.0.0.1") -> None:
        self._limits = limits or HttpLimits(body_bytes=100_000, receive_timeout_s=2.0)
        self._host = host
        self.held: list[Exchange] = []
        self.handled = 0
        self.large = b"x" * 2_000_000
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FrontDoor:
        self._thread.start()
        assert self._ready.wait(10), "the door is open"
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the door closes"

    def on_loop(self, what: Callable[[], T]) -> T:
        """Call it on the door's thread."""

        async def call() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def release(self) -> None:
        """Answer everything that is held back."""

        def answer() -> None:
            held, self.held = self.held, []
            for exchange in held:
                exchange.answer(Response(200, told(exchange.request)))

        self.on_loop(answer)

    def connect(self, timeout_s: float = 10.0) -> socket.socket:
        return socket.create_connection((self._host, self.port), timeout=timeout_s)

    def talk(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send it and read until the door closes the connection."""
        with self.connect() as caller:
            caller.sendall(data)
            if half_close:
                caller.shutdown(socket.SHUT_WR)
            return read_all(caller)

    def _run(self) -> None:
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, 0), family=family, backlog=1024)
        self.port = listener.getsockname()[1]
        self.door = Door(self._limits, self._handle, refusal)
        self.door.open([listener])
        self._ready.set()
        await self._end.wait()
        self.door.stop_accepting()
        await self.door.drain(0.2)

    def _handle(self, exchange: Exchange) -> None:
        self.handled += 1
        path = exchange.request.path
        if path == "/wait":
            self.held.append(exchange)
        elif path == "/raise":
            raise RuntimeError("a mistake of ours")
        elif path == "/large":
            exchange.answer(Response(200, self.large))
        elif path == "/stream":
            exchange.begin(Response(200, b"one", "text/plain"))
            exchange.part(b"two")
            exchange.end()
        else:
            exchange.answer(Response(200, told(exchange.request)))


def refusal(status: int, request: Request, problem: str) -> Response:
    return Response(status, json.dumps({"problem": problem, "path": request.path}).encode())


def read_all(caller: socket.socket) -> bytes:
    """Until the end; ConnectionResetError when the other side destroyed what it had sent."""
    parts = []
    while part := caller.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def read_until(caller: socket.socket, ending: bytes) -> bytes:
    """What comes until it ends so."""
    text = b""
    while not text.endswith(ending):
        part = caller.recv(1 << 20)
        assert part, f"the connection ended after {text!r}"
        text += part
    return text


def answers_in(text: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of each answer; interim ones (100) too, without a body."""
    found = []
    while text:
        head, _, text = text.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        status = int(line.split(" ")[1])
        body = b""
        if "content-length" in headers:
            size = int(headers["content-length"])
            body, text = text[:size], text[size:]
        elif status != 100:
            body, text = text, b""
        found.append((status, headers, body))
    return found
