"""The local HTTP port: modules hand over telemetry (answered after the commit), Prometheus reads ``/metrics``.

``POST /telemetry?stream=NAME`` with a module's bearer token and one JSON text as body: 201 when stored, 200 when the
``idempotency-key`` was stored before, 400/401/413 for what is wrong with the request, 507 when the buffer cannot take it.
With ``content-type: application/x-ndjson``, or ``?batch=array``, the body is many messages: stored all or none, one key for all.
``POST /heartbeat`` with a module's bearer token: the module is well. ``/inputs/NAME``: ``module_inputs.py``.
``/twin/…``: ``twins/http.py``.

``?output=NAME`` names the module's output for routes; properties of the application come as headers ``iothub-app-NAME`` (as in
IoT Hub's HTTP) or as ``?properties=a%3Db%26c%3Dd``. A message that no route wants is answered with 200 and stored nowhere.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from edge_agent.engines.docker_options import HOST_NAME
from edge_agent.errors import (
    BufferFull,
    BufferUnwritable,
    LocalPortBusy,
    MessageRefused,
    MessageTooLarge,
    ModuleGone,
    NoSuchPath,
    NotAModule,
    TwinUnwritable,
)
from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile.situation import EngineKind
from edge_agent.telemetry.batches import BATCH_BYTES_MAX, LINES_TYPES, json_array, json_lines, json_text
from edge_agent.telemetry.entries import Receipt
from edge_agent.telemetry.http_connection import Reply, Wanted
from edge_agent.telemetry.http_message import Attributes, attributes
from edge_agent.telemetry.http_requests import Answer, Head, refusal
from edge_agent.telemetry.http_server import HttpServer
from edge_agent.telemetry.module_inputs import ModuleInputs
from edge_agent.telemetry.ports import LOOPBACK, first_free_port
from edge_agent.telemetry.reception import Outcome, Reception
from edge_agent.telemetry.routing.message import ModuleMessage
from edge_agent.telemetry.tokens import Tokens
from edge_agent.twins.http import PREFIX, TwinsHttp
from hedgerow.clock import Clock, unix_ms
from hedgerow.contracts.names import ENV_MODULE, ENV_TELEMETRY_TOKEN, ENV_TELEMETRY_URL, HEADER_IDEMPOTENCY
from hedgerow.contracts.twins import MAX_REPORTED_BYTES
from hedgerow.errors import Bug, ConflictError, HedgerowError, NotFoundError

# Requests that may have to wait for something (polls of inputs, pages) have a thread each.
APART_MAX = 64
# One module must leave room for others.
APART_OF_ONE_MAX = 32
KEY_LENGTH_MAX = 200
_LENGTH_DIGITS = 12
_INPUTS, _ACK = "/inputs/", "/ack"
_FORMS_KNOWN = 64
_NO_QUERY: Mapping[str, list[str]] = MappingProxyType({})
_STATUS: tuple[tuple[type[HedgerowError], HTTPStatus], ...] = (
    (ModuleGone, HTTPStatus.FORBIDDEN),
    (NotAModule, HTTPStatus.UNAUTHORIZED),
    (MessageTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (BufferFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (BufferUnwritable, HTTPStatus.INSUFFICIENT_STORAGE),
    (TwinUnwritable, HTTPStatus.INSUFFICIENT_STORAGE),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (LocalPortBusy, HTTPStatus.SERVICE_UNAVAILABLE),
    (Bug, HTTPStatus.INTERNAL_SERVER_ERROR),
)
# A page in a browser must not read this port by pointing its own name at 127.0.0.1.
_HOSTS = frozenset({LOOPBACK, "localhost", HOST_NAME, "[::1]"})
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Taken:
    """Messages of one request that wait for the end of the turn."""

    messages: Sequence[ModuleMessage]
    reply: Reply
    batch: bool


@dataclass(frozen=True)
class _Form:
    """What a head says of the messages that follow it."""

    said: Attributes
    lines: bool
    batch: bool


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
        twins: TwinsHttp | None = None,
    ) -> None:
        self._twins = twins
        self._reception = reception
        self._inputs = inputs
        self._tokens = tokens
        self._clock = clock
        self._metrics = metrics
        self._max_message_bytes = max_message_bytes
        self._exposition = exposition
        self._on_heartbeat = on_heartbeat
        self._taken: list[_Taken] = []
        self._apart_now = Counter[str | None]()
        self._apart_lock = threading.Lock()
        self._server = HttpServer(self, clock)
        self._hosts: set[str] = set()
        self.port = 0

    def start(self, port: int) -> int:
        """Listen on ``port``, or on another when it is 0 or taken; returns the port. Raises OSError when none is free."""
        self.port = first_free_port(port, lambda candidate: self._listen(LOOPBACK, candidate), "deliver telemetry")
        return self.port

    def also_listen(self, host: str) -> None:
        """Listen on another local address as well; one that cannot be had is logged."""
        if host in self._hosts:
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
        """Take no more requests; those that were taken are answered."""
        self._inputs.close()
        self._server.close()

    @property
    def turns(self) -> int:
        """Grows while the port is looked after."""
        return self._server.turns

    def wake(self) -> None:
        """Look once, also when nobody says anything."""
        self._server.wake()

    def open(self, head: Head, local_host: str = LOOPBACK) -> Answer | Wanted:
        """What to do with a request that came to ``local_host``, by its head."""
        try:
            path, query = _address(head.target)
            host = head.headers.get("host", "").rpartition(":")[0] or head.headers.get("host", "")
            if host not in _HOSTS and host != local_host:
                raise MessageRefused(problem=f"its Host {host!r} is not this device")
            return self._wanted(head, path, query)
        except HedgerowError as problem:
            return self._refused(head, problem)

    def turn_ends(self) -> None:
        """Store everything that came in this turn; what goes to the disk at the same time shares a commit."""
        taken, self._taken = self._taken, []
        single = [one for one in taken if not one.batch]
        if single:
            stored = self._handed_over(single, lambda: self._reception.submit_each([one.messages[0] for one in single]))
            if stored is not None:
                stored.add_done_callback(lambda done: self._reply_each(single, done.result()))
        for one in taken:
            if one.batch and (kept := self._handed_over([one], lambda one=one: self._reception.submit_many(one.messages))):  # type: ignore[misc]  # bound for this round
                kept.add_done_callback(lambda done, one=one: self._reply_each([one], [done.exception() or done.result()]))  # type: ignore[misc]  # bound for this round

    def _handed_over(self, taken: Sequence[_Taken], submit: Callable[[], Future[T]]) -> Future[T] | None:
        """What ``submit`` gives; None when it failed, and was answered so."""
        try:
            return submit()
        except Exception:
            log.exception("messages of module %s could not be handed over", taken[0].messages[0].module)
            for one in taken:
                one.reply(_refusal(Bug(what="a message could not be handed over")))
            return None

    def _reply_each(self, taken: Sequence[_Taken], outcomes: Sequence[Outcome]) -> None:
        for one, outcome in zip(taken, outcomes, strict=True):
            one.reply(self._stored(outcome, one))

    def _wanted(self, head: Head, path: str, query: Mapping[str, list[str]]) -> Wanted:
        """Telemetry and heartbeats are taken where they come in; for everything else see ``_routed``."""
        if (head.method, path) == ("POST", "/telemetry"):
            return self._take(head)
        module = None if path == "/metrics" else self._tokens.module(head.header("authorization"))
        limit = max(self._max_message_bytes, MAX_REPORTED_BYTES) if path.startswith(PREFIX) else self._max_message_bytes
        length = self._length(head.header, limit) if head.header("content-length") else 0
        if (head.method, path) == ("POST", "/heartbeat"):
            return Wanted(module, length, lambda _body, reply: reply(self._heartbeat(module or "")))

        def answer_apart(body: bytes, reply: Reply) -> None:
            self._apart(module, reply, lambda: self._answered(head, path, dict(query), lambda size: body[:size]))

        return Wanted(module, length, answer_apart)

    def _heartbeat(self, module: str) -> Answer:
        self._on_heartbeat(module)
        return Answer(HTTPStatus.OK, b"{}")

    def _apart(self, module: str | None, reply: Reply, answered: Callable[[], Answer]) -> None:
        """Answer in a thread of its own."""

        def work() -> None:
            try:
                answer = answered()
            except Exception:
                log.exception("a module's request failed")
                answer = _refusal(Bug(what="a request of a module failed"))
            finally:
                self._leave_apart(module)
            reply(answer)

        with self._apart_lock:
            if self._apart_now.total() >= APART_MAX or self._apart_now[module] >= APART_OF_ONE_MAX:
                reply(_refusal(LocalPortBusy(limit=APART_MAX)))
                return
            self._apart_now[module] += 1
        try:
            threading.Thread(target=work, name="intake-request", daemon=True).start()
        except RuntimeError:  # no thread to be had right now
            self._leave_apart(module)
            reply(_refusal(LocalPortBusy(limit=APART_MAX)))

    def _leave_apart(self, module: str | None) -> None:
        with self._apart_lock:
            self._apart_now[module] -= 1
            self._apart_now += Counter()  # only who is there

    def _answered(self, head: Head, path: str, query: dict[str, list[str]], read: Callable[[int], bytes]) -> Answer:
        try:
            return self._routed(head, path, query, read)
        except HedgerowError as problem:
            return self._refused(head, problem)

    def _refused(self, head: Head, problem: HedgerowError) -> Answer:
        if head.method == "POST":
            self._metrics.count("hedgerow_agent_intake_refused_total", key=problem.key)
        return _refusal(problem)

    def _routed(self, head: Head, path: str, query: dict[str, list[str]], read: Callable[[int], bytes]) -> Answer:
        """Requests that may wait, each in a thread of its own; ``read`` gives so many bytes of its body, which is here."""
        if (head.method, path) == ("GET", "/metrics"):
            return Answer(HTTPStatus.OK, self._exposition().encode(), "text/plain; version=0.0.4; charset=utf-8")
        if path.startswith(PREFIX) and self._twins is not None:
            module = self._tokens.module(head.header("authorization"))
            return self._twins.answer(head.method, path, query, module, read(int(head.header("content-length") or 0)))
        if path.startswith(_INPUTS):
            return self._input(head.method, path.removeprefix(_INPUTS), query, head.header, read)
        raise NoSuchPath(method=head.method, path=path)

    def _take(self, head: Head) -> Wanted:
        module = self._tokens.module(head.header("authorization"))
        form = _known_form(head.shape or head)
        said, batch = form.said, form.batch
        length = self._length(head.header, max(BATCH_BYTES_MAX, self._max_message_bytes) if batch else self._max_message_bytes)
        key = head.headers.get(HEADER_IDEMPOTENCY) or None
        if key is not None and len(key) > KEY_LENGTH_MAX:
            raise MessageRefused(problem=f"its {HEADER_IDEMPOTENCY} is longer than {KEY_LENGTH_MAX} characters")

        def message_of(body: str, key: str | None) -> ModuleMessage:
            return ModuleMessage(
                module=module,
                body=body,
                time_ms=unix_ms(self._clock.now()),
                output=said.output,
                properties=said.properties,
                system=said.system,
                stream=said.stream,
                key=key,
            )

        def take(data: bytes, reply: Reply) -> None:
            try:
                if batch:
                    messages = _messages(data, key, message_of, self._max_message_bytes, lines=form.lines)
                else:
                    messages = [message_of(json_text(data), key)]
            except HedgerowError as problem:
                reply(self._refused(head, problem))
            else:
                self._taken.append(_Taken(messages, reply, batch))

        return Wanted(module, length, take)

    def _stored(self, outcome: Outcome, taken: _Taken) -> Answer:
        if not isinstance(outcome, BaseException):
            return _receipt(outcome, messages=len(taken.messages) if taken.batch else None)
        problem = outcome if isinstance(outcome, HedgerowError) else Bug(what="a message could not be stored")
        self._metrics.count("hedgerow_agent_intake_refused_total", key=problem.key)
        return _refusal(problem)

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
        self._server.listen(host, port)
        self._hosts.add(host)


def _address(target: str) -> tuple[str, Mapping[str, list[str]]]:
    """Path and query of a request. Raises MessageRefused."""
    try:
        url = urlsplit(target)
        return url.path, parse_qs(url.query) if url.query else _NO_QUERY
    except ValueError as problem:
        raise MessageRefused(problem=f"its address cannot be read: {problem}") from None


def _read_form(shape: Head) -> _Form:
    query = _address(shape.target)[1]
    lines = shape.header("content-type").partition(";")[0].strip().lower() in LINES_TYPES
    return _Form(attributes(query, shape.headers, shape.names), lines, lines or query.get("batch") == ["array"])


# As many as shapes are remembered (``http_requests.py``), which are the same objects then.
_known_form = lru_cache(_FORMS_KNOWN)(_read_form)


def _messages(
    data: bytes, key: str | None, message_of: Callable[[str, str | None], ModuleMessage], max_message_bytes: int, *, lines: bool
) -> list[ModuleMessage]:
    bodies = json_lines(data, max_message_bytes) if lines else json_array(data, max_message_bytes)
    first = message_of("", key)
    return [replace(first, body=body, key=None if key is None else f"{key}#{number}") for number, body in enumerate(bodies)]


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
