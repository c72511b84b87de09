"""The local HTTP port: modules hand over telemetry (answered after the commit), Prometheus reads ``/metrics``.

``POST /telemetry?stream=NAME`` with a module's bearer token and one JSON text as body: 201 when stored, 200 when the
``idempotency-key`` was stored before, 400/401/413 for what is wrong with the request, 507 when the buffer cannot take it.
With ``content-type: application/x-ndjson``, or ``?batch=array``, the body is many messages: stored all or none, one key for all.
``POST /heartbeat`` with a module's bearer token: the module is well. ``/inputs/NAME``: ``module_inputs.py``.

``?output=NAME`` names the module's output for routes; properties of the application come as headers ``iothub-app-NAME`` (as in
IoT Hub's HTTP) or as ``?properties=a%3Db%26c%3Dd``. A message that no route wants is answered with 200 and stored nowhere.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import msgspec

from edge_agent.engines.docker_options import HOST_NAME
from edge_agent.errors import BufferFull, BufferUnwritable, MessageRefused, MessageTooLarge, NoSuchPath, NotAModule
from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile.situation import EngineKind
from edge_agent.telemetry.batches import BATCH_BYTES_MAX, LINES_TYPES, json_array, json_lines, json_text
from edge_agent.telemetry.entries import Receipt
from edge_agent.telemetry.http_message import attributes
from edge_agent.telemetry.http_requests import Answer, Head, refusal, serve
from edge_agent.telemetry.module_inputs import ModuleInputs
from edge_agent.telemetry.ports import LOOPBACK, first_free_port
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.message import ModuleMessage
from edge_agent.telemetry.tokens import Tokens
from hedgerow.clock import Clock, unix_ms
from hedgerow.contracts.names import ENV_MODULE, ENV_TELEMETRY_TOKEN, ENV_TELEMETRY_URL, HEADER_IDEMPOTENCY
from hedgerow.errors import ConflictError, HedgerowError, NotFoundError

CONNECTIONS_MAX = 64
IDLE_TIMEOUT_S = 60.0
# When all places are taken: how long one may let us wait before it has to make room for others.
PATIENCE_S, _CROWDED_LOOK_S = 2.0, 0.5
KEY_LENGTH_MAX = 200
_LENGTH_DIGITS = 12
_INPUTS, _ACK = "/inputs/", "/ack"
_ACCEPT_AGAIN_S = 0.2
_STATUS: tuple[tuple[type[HedgerowError], HTTPStatus], ...] = (
    (NotAModule, HTTPStatus.UNAUTHORIZED),
    (MessageTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (BufferFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (BufferUnwritable, HTTPStatus.INSUFFICIENT_STORAGE),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
)
# A page in a browser must not read this port by pointing its own name at 127.0.0.1.
_HOSTS = frozenset({LOOPBACK, "localhost", HOST_NAME, "[::1]"})
log = logging.getLogger(__name__)


class Intake:
    """Listens on loopback, and on the address by which containers reach this host once there is one."""

    def __init__(
        self,
        reception: Reception,
        inputs: ModuleInputs,
        tokens: Tokens,
        clock: Clock,
        metrics: Metrics,
        *,
        max_message_bytes: int,
        exposition: Callable[[], str],
        on_heartbeat: Callable[[str], None] = lambda _module: None,
    ) -> None:
        self._reception = reception
        self._inputs = inputs
        self._tokens = tokens
        self._clock = clock
        self._metrics = metrics
        self._max_message_bytes = max_message_bytes
        self._exposition = exposition
        self._on_heartbeat = on_heartbeat
        self._listeners: dict[str, socket.socket] = {}
        self._room = threading.BoundedSemaphore(CONNECTIONS_MAX)
        # Connections that we wait for, since when (monotonic).
        self._idle: dict[socket.socket, float] = {}
        self._idle_lock = threading.Lock()
        self._closing = threading.Event()
        self.port = 0

    def start(self, port: int) -> int:
        """Listen on ``port``, or on another when it is 0 or taken; returns the port. Raises OSError when none is free."""
        first_free_port(port, lambda candidate: self._listen(LOOPBACK, candidate), "deliver telemetry")
        return self.port

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
        self._inputs.close()
        for listener in list(self._listeners.values()):
            # Wakes the thread in accept(), which a plain close() does not.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def answer(self, head: Head, read: Callable[[int], bytes], local_host: str = LOOPBACK) -> Answer:
        """The answer to one request that came to ``local_host``; ``read`` gives exactly so many bytes of its body."""
        try:
            url = _address(head.target)
            host = head.header("host").rpartition(":")[0] or head.header("host")
            if host not in _HOSTS and host != local_host:
                raise MessageRefused(problem=f"its Host {host!r} is not this device")
            return self._routed(head, url.path, parse_qs(url.query), read)
        except HedgerowError as problem:
            if head.method == "POST":
                self._metrics.count("hedgerow_agent_intake_refused_total", key=problem.key)
            return _refusal(problem)

    def _routed(self, head: Head, path: str, query: dict[str, list[str]], read: Callable[[int], bytes]) -> Answer:
        if (head.method, path) == ("POST", "/telemetry"):
            return self._take(query, head, read)
        if (head.method, path) == ("GET", "/metrics"):
            return Answer(HTTPStatus.OK, self._exposition().encode(), "text/plain; version=0.0.4; charset=utf-8")
        if (head.method, path) == ("POST", "/heartbeat"):
            self._on_heartbeat(self._tokens.module(head.header("authorization")))
            return Answer(HTTPStatus.OK, b"{}")
        if path.startswith(_INPUTS):
            return self._input(head.method, path.removeprefix(_INPUTS), query, head.header, read)
        raise NoSuchPath(method=head.method, path=path)

    def _take(self, query: dict[str, list[str]], head: Head, read: Callable[[int], bytes]) -> Answer:
        module = self._tokens.module(head.header("authorization"))
        lines = head.header("content-type").partition(";")[0].strip().lower() in LINES_TYPES
        batch = lines or query.get("batch") == ["array"]
        length = self._length(head.header, max(BATCH_BYTES_MAX, self._max_message_bytes) if batch else self._max_message_bytes)
        key = head.header(HEADER_IDEMPOTENCY) or None
        if key is not None and len(key) > KEY_LENGTH_MAX:
            raise MessageRefused(problem=f"its {HEADER_IDEMPOTENCY} is longer than {KEY_LENGTH_MAX} characters")
        said = attributes(query, head.header, head.names)
        message = ModuleMessage(
            module=module,
            body="",
            time_ms=unix_ms(self._clock.now()),
            output=said.output,
            properties=said.properties,
            system=said.system,
            stream=said.stream,
            key=key,
        )
        data = read(length)
        if not batch:
            return _receipt(self._reception.take(replace(message, body=json_text(data))))
        bodies = json_lines(data, self._max_message_bytes) if lines else json_array(data, self._max_message_bytes)
        messages = [
            replace(message, body=body, key=None if key is None else f"{key}#{number}") for number, body in enumerate(bodies)
        ]
        return _receipt(self._reception.submit_many(messages).result(), messages=len(messages))

    def _input(
        self,
        method: str,
        path: str,
        query: dict[str, list[str]],
        headers: Callable[[str], str],
        read: Callable[[int], bytes],
    ) -> Answer:
        module = self._tokens.module(headers("authorization"))
        name = unquote(path.removesuffix(_ACK))
        if method == "GET" and "/" not in path:
            return Answer(HTTPStatus.OK, msgspec.json.encode(self._inputs.poll(module, name, query)))
        if method == "POST" and path.endswith(_ACK) and "/" not in path.removesuffix(_ACK):
            self._inputs.acknowledge(module, name, read(self._length(headers, self._max_message_bytes)))
            return Answer(HTTPStatus.OK, b"{}")
        raise NoSuchPath(method=method, path=f"{_INPUTS}{path}")

    def _length(self, headers: Callable[[str], str], limit: int) -> int:
        length = headers("content-length")
        if not (length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS):
            raise MessageRefused(problem="it has no content-length")
        if int(length) > limit:
            raise MessageTooLarge(size=int(length), limit=limit)
        return int(length)

    def _listen(self, host: str, port: int) -> None:
        listener = socket.create_server((host, port), backlog=128)
        self._listeners[host] = listener
        self.port = self.port or listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(listener,), name=f"intake-{host}", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            # Above the limit connections wait in the kernel's backlog.
            while not self._room.acquire(timeout=_CROWDED_LOOK_S):
                if self._closing.is_set():
                    return
                self._make_room()
            try:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection,), name="intake-request", daemon=True).start()
            except (OSError, RuntimeError) as problem:
                self._room.release()
                if self._closing.is_set():
                    return
                # No descriptor or no thread to be had right now: that passes, and modules try again.
                log.warning("a connection could not be taken: %s", problem)
                self._closing.wait(_ACCEPT_AGAIN_S)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(IDLE_TIMEOUT_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                local_host = str(connection.getsockname()[0])
                serve(
                    connection,
                    lambda head, read: self.answer(head, read, local_host),
                    lambda waits: self._note(connection, waits=waits),
                )
        except OSError as problem:
            log.debug("a module's connection ended: %s", problem)
        except Exception:
            log.exception("a module's request failed")
        finally:
            self._note(connection, waits=False)
            self._room.release()

    def _note(self, connection: socket.socket, *, waits: bool) -> None:
        with self._idle_lock:
            if waits:
                self._idle[connection] = self._clock.monotonic_s()
            else:
                self._idle.pop(connection, None)

    def _make_room(self) -> None:
        """One module must not keep all places with connections that say nothing: the one longest silent ends."""
        with self._idle_lock:
            silent, since_s = min(self._idle.items(), key=lambda idle: idle[1], default=(None, 0.0))
            if silent is None or self._clock.monotonic_s() < since_s + PATIENCE_S:
                return
            del self._idle[silent]
            with contextlib.suppress(OSError):
                silent.shutdown(socket.SHUT_RDWR)


def _address(target: str) -> SplitResult:
    try:
        return urlsplit(target)
    except ValueError as problem:
        raise MessageRefused(problem=f"its address cannot be read: {problem}") from None


def _receipt(receipts: Sequence[Receipt], messages: int | None = None) -> Answer:
    """Where the first message went; ``messages`` is said of a batch."""
    first = receipts[0] if receipts else None
    said: dict[str, object] = {"stream": first and first.stream, "sequence": first and first.sequence}
    if messages is not None:
        said["messages"] = messages
    status = HTTPStatus.OK if first is None or first.repeated else HTTPStatus.CREATED
    return Answer(status, msgspec.json.encode(said))


def _refusal(problem: HedgerowError) -> Answer:
    return refusal(problem, next((status for kind, status in _STATUS if isinstance(problem, kind)), HTTPStatus.BAD_REQUEST))
