"""The local HTTP port: modules hand over telemetry (answered after the commit), Prometheus reads ``/metrics``.

``POST /telemetry?stream=NAME`` with a module's bearer token and one JSON text as body: 201 when stored, 200 when the
``idempotency-key`` was stored before, 400/401/413 for what is wrong with the request, 507 when the buffer cannot take it.
"""

from __future__ import annotations

import hmac
import logging
import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from edge_agent.engines.docker_options import HOST_NAME
from edge_agent.errors import BufferFull, BufferUnwritable, MessageRefused, MessageTooLarge, NoSuchPath, NotAModule
from edge_agent.metrics import Metrics
from edge_agent.reconcile.situation import EngineKind
from edge_agent.telemetry.outbox import Outbox
from hedgerow.clock import Clock, unix_ms
from hedgerow.contracts.names import ENV_MODULE, ENV_TELEMETRY_TOKEN, ENV_TELEMETRY_URL, HEADER_IDEMPOTENCY, check_known_name
from hedgerow.errors import HedgerowError, NotFoundError

LOOPBACK = "127.0.0.1"
DEFAULT_STREAM = "telemetry"
# Below the range that the kernel takes ports of outgoing connections from: a module that tries to connect while no agent
# listens could otherwise be connected to itself, and hold the port.
PORTS = range(20_000, 32_000)
PORT_TRIES = 50
CONNECTIONS_MAX = 64
IDLE_TIMEOUT_S = 60.0
STREAMS_MAX = 64
KEY_LENGTH_MAX = 200
_LENGTH_DIGITS = 12
_ACCEPT_AGAIN_S = 0.2
_STATUS: tuple[tuple[type[HedgerowError], HTTPStatus], ...] = (
    (NotAModule, HTTPStatus.UNAUTHORIZED),
    (MessageTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (BufferFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (BufferUnwritable, HTTPStatus.INSUFFICIENT_STORAGE),
    (NotFoundError, HTTPStatus.NOT_FOUND),
)
log = logging.getLogger(__name__)


class Tokens:
    """Module tokens, derived from the device's key: nothing to store or to lose, and the same after a restart of the agent."""

    def __init__(self, device_key: bytes) -> None:
        self._secret = hmac.digest(device_key, b"hedgerow-module-tokens-v1", sha256)

    def of(self, module: str) -> str:
        """``MODULE.MAC``."""
        return f"{module}.{hmac.new(self._secret, module.encode(), sha256).hexdigest()}"

    def module(self, authorization: str) -> str:
        """The module that an Authorization header belongs to. Raises NotAModule."""
        token = authorization.removeprefix("Bearer ")
        module = token.rpartition(".")[0]
        if not module or not hmac.compare_digest(token.encode(), self.of(module).encode()):
            raise NotAModule
        return module


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


class Intake:
    """Listens on loopback, and on the address by which containers reach this host once there is one."""

    def __init__(
        self,
        outbox: Outbox,
        tokens: Tokens,
        clock: Clock,
        metrics: Metrics,
        *,
        max_message_bytes: int,
        exposition: Callable[[], str],
    ) -> None:
        self._outbox = outbox
        self._tokens = tokens
        self._clock = clock
        self._metrics = metrics
        self._max_message_bytes = max_message_bytes
        self._exposition = exposition
        self._listeners: dict[str, socket.socket] = {}
        self._known_streams: set[str] = set()
        self._room = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._closing = threading.Event()
        self.port = 0

    def start(self, port: int) -> int:
        """Listen on ``port``, or on another when it is 0 or taken; returns the port. Raises OSError when none is free."""
        problem = OSError()
        for candidate in [*([port] if port else []), *random.sample(PORTS, PORT_TRIES)]:
            try:
                self._listen(LOOPBACK, candidate)
            except OSError as raised:
                problem = raised
                if candidate == port:
                    log.warning("port %d is taken: modules started before cannot deliver telemetry until they restart", port)
            else:
                return self.port
        raise problem

    def also_listen(self, host: str) -> None:
        """Listen on another local address as well; one that cannot be had is logged."""
        if host in self._listeners:
            return
        try:
            self._listen(host, self.port)
        except OSError as problem:
            log.warning("containers cannot deliver telemetry to %s:%d: %s", host, self.port, problem.strerror)

    def environment(self, module: str, kind: EngineKind) -> dict[str, str]:
        """What a module is told about this port."""
        host = HOST_NAME if kind == "docker" else LOOPBACK
        return {
            ENV_MODULE: module,
            ENV_TELEMETRY_URL: f"http://{host}:{self.port}/telemetry",
            ENV_TELEMETRY_TOKEN: self._tokens.of(module),
        }

    def close(self) -> None:
        """Take no more connections."""
        self._closing.set()
        for listener in list(self._listeners.values()):
            # Wakes the thread in accept(), which a plain close() does not.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def answer(self, method: str, target: str, headers: Callable[[str], str], read: Callable[[int], bytes]) -> Answer:
        """The answer to one request; ``headers`` gives a header's value or "", ``read`` up to so many bytes of the body."""
        url = urlsplit(target)
        try:
            if (method, url.path) == ("GET", "/metrics"):
                return Answer(HTTPStatus.OK, self._exposition().encode(), "text/plain; version=0.0.4; charset=utf-8")
            if (method, url.path) == ("POST", "/telemetry"):
                return self._take(parse_qs(url.query), headers, read)
            raise NoSuchPath(method=method, path=url.path)
        except HedgerowError as problem:
            if method == "POST":
                self._metrics.count("hedgerow_agent_intake_refused_total", key=problem.key)
            return _refusal(problem)

    def _take(self, query: dict[str, list[str]], headers: Callable[[str], str], read: Callable[[int], bytes]) -> Answer:
        module = self._tokens.module(headers("authorization"))
        length = headers("content-length")
        if not (length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS):
            raise MessageRefused(problem="it has no content-length")
        if int(length) > self._max_message_bytes:
            raise MessageTooLarge(size=int(length), limit=self._max_message_bytes)
        key = headers(HEADER_IDEMPOTENCY) or None
        if key is not None and len(key) > KEY_LENGTH_MAX:
            raise MessageRefused(problem=f"its {HEADER_IDEMPOTENCY} is longer than {KEY_LENGTH_MAX} characters")
        stream = check_known_name((query.get("stream") or [DEFAULT_STREAM])[0], "stream")
        self._check_stream(stream)
        body = _json_text(read(int(length)))
        receipt = self._outbox.append(stream, module, unix_ms(self._clock.now()), body, key)
        status = HTTPStatus.OK if receipt.repeated else HTTPStatus.CREATED
        if not receipt.repeated:
            self._metrics.count("edgehub_messages_received_total", id=module)
        return Answer(status, msgspec.json.encode({"stream": receipt.stream, "sequence": receipt.sequence}))

    def _check_stream(self, stream: str) -> None:
        if stream in self._known_streams:
            return
        _, known = self._outbox.streams()
        self._known_streams |= known.keys()
        if stream not in known and len(known) >= STREAMS_MAX:
            raise MessageRefused(problem=f"there are {STREAMS_MAX} streams on this device already")

    def _listen(self, host: str, port: int) -> None:
        listener = socket.create_server((host, port), backlog=128)
        self._listeners[host] = listener
        self.port = self.port or listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(listener,), name=f"intake-{host}", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            # Above the limit connections wait in the kernel's backlog.
            self._room.acquire()
            try:
                connection, peer = listener.accept()
                threading.Thread(target=self._serve, args=(connection, peer), name="intake-request", daemon=True).start()
            except (OSError, RuntimeError) as problem:
                self._room.release()
                if self._closing.is_set():
                    return
                # No descriptor or no thread to be had right now: that passes, and modules try again.
                log.warning("a connection could not be taken: %s", problem)
                self._closing.wait(_ACCEPT_AGAIN_S)

    def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        try:
            with connection:
                connection.settimeout(IDLE_TIMEOUT_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _Handler(connection, peer, self)  # type: ignore[arg-type]  # it only passes its server on to itself
        except OSError as problem:
            log.debug("a module's connection ended: %s", problem)
        finally:
            self._room.release()


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive; everything that is decided is decided by ``Intake.answer``."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the whole answer in one packet
    server_version = "hedgerow"
    sys_version = ""
    # A page in a browser must not read this port by pointing its own name at 127.0.0.1.
    hosts: ClassVar[frozenset[str]] = frozenset({LOOPBACK, "localhost", HOST_NAME, "[::1]"})

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        log.debug("%s", format % args)

    def _answer(self, method: str) -> None:
        intake = self.server
        assert isinstance(intake, Intake)  # noqa: S101 - narrows the type that _serve passed in
        host = (self.headers.get("host") or "").rpartition(":")[0] or self.headers.get("host") or ""
        local = str(self.connection.getsockname()[0])
        if host not in self.hosts | {local}:
            self._write(_refusal(MessageRefused(problem=f"its Host {host!r} is not this device")))
            return
        consumed = _Counted(self.rfile.read)
        answer = intake.answer(method, self.path, lambda name: self.headers.get(name) or "", consumed)
        if method == "POST" and not consumed.used:
            # What was not read of a refused body would be taken for the next request.
            self.close_connection = True
        self._write(answer)

    def _write(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("content-type", answer.content_type)
        self.send_header("content-length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()


class _Counted:
    """A body reader that knows whether it was used."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.used = False

    def __call__(self, size: int) -> bytes:
        self.used = True
        data = self._read(size)
        if len(data) < size:
            raise MessageRefused(problem=f"its body ended after {len(data)} of {size} bytes")
        return data


def _json_text(data: bytes) -> str:
    try:
        msgspec.json.decode(data)
        return data.decode()
    except RecursionError:
        raise MessageRefused(problem="its JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise MessageRefused(problem=f"its body is not JSON: {problem}") from None


def _refusal(problem: HedgerowError) -> Answer:
    status = next((status for kind, status in _STATUS if isinstance(problem, kind)), HTTPStatus.BAD_REQUEST)
    body = {"error": {"key": problem.key, "message": str(problem), "remedy": problem.advice}}
    return Answer(status, msgspec.json.encode(body))
