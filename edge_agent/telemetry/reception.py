"""The one way by which everything that modules say gets into the buffer: routes decide where to, one commit stores it.

HTTP (``intake.py``), the local MQTT server, output lines and scraped pages all end here. An answer means that the message is on
the disk in every stream it belongs to, or that no route wants it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Protocol

import msgspec

from edge_agent.errors import MessageRefused
from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.batches import LINES_TYPES
from edge_agent.telemetry.entries import Entry, Mark, Receipt
from edge_agent.telemetry.routing.message import ModuleMessage, delivery_text
from edge_agent.telemetry.routing.router import Destination, Destinations, Router
from edge_agent.telemetry.routing.streams import DEFAULT_STREAM, is_input_stream
from hedgerow.contracts.names import check_known_name
from hedgerow.contracts.telemetry import PROPERTY_CONTENT_TYPE, PROPERTY_OUTPUT, properties_problem
from hedgerow.errors import HedgerowError

# Modules choose streams by name; each costs the hub and the device a row for ever.
STREAMS_MAX = 64
# One module must not take them all from the others.
STREAMS_OF_ONE_MAX = 8
# Of the protocol's properties the hub gets these, by the names it knows them by.
_TOLD = {"contentType": PROPERTY_CONTENT_TYPE, "messageSchema": "iothub-message-schema"}
# Content types that add nothing to a body of JSON: its own, those of many messages at once, and what HTTP clients say unasked.
_NOTHING_NEW = ("application/json", "application/x-www-form-urlencoded", *sorted(LINES_TYPES))


# Receipts, none when no route wants the message; or why nothing of it was stored.
Outcome = list[Receipt] | BaseException


class Store(Protocol):
    """The buffer, as far as it is needed here (``Outbox``)."""

    def submit_all(self, entries: Sequence[Entry]) -> Future[list[Receipt]]:
        """Store all of ``entries`` in one commit, or none; the future ends when they are on the disk."""
        ...

    def submit_each(self, parts: Sequence[Sequence[Entry]]) -> Future[list[list[Receipt] | HedgerowError]]:
        """Store each of ``parts`` or refuse it, all in one commit."""
        ...

    def streams(self) -> tuple[str, dict[str, Mark]]:
        """The epoch, and every stream that goes to the hub."""
        ...


class Reception:
    """Thread-safe. ``use`` replaces the router when another desired state is in force."""

    def __init__(self, store: Store, router: Router, metrics: Metrics) -> None:
        self._store = store
        self._router = router
        self._metrics = metrics
        self._streams: set[str] = set()
        # What each module has named since this agent started.
        self._streams_of: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()

    @property
    def router(self) -> Router:
        """The routes in force."""
        return self._router

    def use(self, router: Router) -> None:
        """From now on route by ``router``."""
        self._router = router

    def take(self, message: ModuleMessage) -> list[Receipt]:
        """Store a message; returns when it is on the disk: a receipt for each stream, the hub's first, none when no route fits.

        Raises MessageRefused, InvalidName, BufferFull, BufferUnwritable; then nothing of it was stored.
        """
        return self.submit(message).result()

    def submit(self, message: ModuleMessage) -> Future[list[Receipt]]:
        """The same without waiting; what ``take`` raises is in the future. Calls are stored in their order."""
        return self.submit_many([message])

    def submit_many(self, messages: Sequence[ModuleMessage]) -> Future[list[Receipt]]:
        """Several messages in one commit, all or none. Of those that share a module and a key only the first is stored."""
        try:
            parts = [(message.module, self._entries(message)) for message in _once_each(messages)]
        except HedgerowError as refused:
            answer: Future[list[Receipt]] = Future()
            answer.set_exception(refused)
            return answer
        entries = [entry for _, part in parts for entry in part]
        if not entries:
            answer = Future()
            answer.set_result([])
            return answer
        stored = self._store.submit_all(entries)
        began_s = time.monotonic()
        sizes = [(message.module, len(message.body)) for message in messages]

        def count(done: Future[list[Receipt]]) -> None:
            self._count(parts, done)
            self._measure(sizes, time.monotonic() - began_s)

        stored.add_done_callback(count)
        return stored

    def submit_each(self, messages: Sequence[ModuleMessage]) -> Future[list[Outcome]]:
        """Messages that came at the same time, each for itself at the cost of one: what became of each, in their order."""
        outcomes: list[Outcome] = []
        parts: list[tuple[int, list[Entry]]] = []
        for place, message in enumerate(messages):
            try:
                entries = self._entries(message)
            except HedgerowError as refused:
                outcomes.append(refused)
                continue
            outcomes.append([])
            if entries:
                parts.append((place, entries))
        answer: Future[list[Outcome]] = Future()
        if not parts:
            answer.set_result(outcomes)
            return answer
        began_s = time.monotonic()

        def finish(done: Future[list[list[Receipt] | HedgerowError]]) -> None:
            problem = done.exception()
            found: Sequence[Outcome] = done.result() if problem is None else [problem] * len(parts)
            for (place, _), outcome in zip(parts, found, strict=True):
                outcomes[place] = outcome
            self._count_each([(messages[place], outcomes[place]) for place, _ in parts], time.monotonic() - began_s)
            answer.set_result(outcomes)

        self._store.submit_each([entries for _, entries in parts]).add_done_callback(finish)
        return answer

    def _count_each(self, stored: Sequence[tuple[ModuleMessage, Outcome]], took_s: float) -> None:
        received, failed = Counter[str](), Counter[str]()
        sizes: dict[str, list[float]] = {}
        for message, outcome in stored:
            sizes.setdefault(message.module, []).append(len(message.body))
            if isinstance(outcome, BaseException):
                failed[message.module] += 1
            elif not all(receipt.repeated for receipt in outcome):
                received[message.module] += 1
        for module, number in received.items():
            self._metrics.count("edgehub_messages_received_total", number, id=module)
        for module, number in failed.items():
            self._metrics.count("edgehub_messages_unack_total", number, reason="storage_failure", id=module)
        for module, values in sizes.items():
            self._metrics.observe_all("edgehub_message_size_bytes", values, id=module)
        self._metrics.observe_all("edgehub_message_process_duration_seconds", [took_s] * len(stored), to="outbox")

    def _entries(self, message: ModuleMessage) -> list[Entry]:
        if message.stream is not None:
            self._check_stream(message.module, message.stream)
        where = self._router.destinations(message)
        if where.nowhere:
            self._metrics.count("edgehub_messages_received_total", id=message.module)
            self._metrics.count("edgehub_messages_dropped_total", reason="no_route", id=message.module)
        return entries_for(message, where)

    def _check_stream(self, module: str, stream: str) -> None:
        own = self._streams_of.get(module, frozenset())
        if stream in own or stream == DEFAULT_STREAM:
            return
        if len(own) >= STREAMS_OF_ONE_MAX:
            raise MessageRefused(problem=f"module {module} has sent to {STREAMS_OF_ONE_MAX} streams of its own already")
        self._check_new_stream(stream)
        self._streams_of[module] = own | {stream}

    def _check_new_stream(self, stream: str) -> None:
        check_known_name(stream, "stream")
        if is_input_stream(stream):
            raise MessageRefused(problem=f"its stream {stream!r} is one of routes between modules")
        if stream in self._streams:
            return
        _, known = self._store.streams()
        with self._lock:
            self._streams |= known.keys()
            if stream not in self._streams and len(self._streams) >= STREAMS_MAX:
                raise MessageRefused(problem=f"there are {STREAMS_MAX} streams on this device already")
            self._streams.add(stream)

    def _measure(self, sizes: Sequence[tuple[str, int]], took_s: float) -> None:
        for module, size in sizes:
            self._metrics.observe("edgehub_message_size_bytes", size, id=module)
        self._metrics.observe("edgehub_message_process_duration_seconds", took_s, to="outbox")

    def _count(self, parts: Sequence[tuple[str, Sequence[Entry]]], stored: Future[list[Receipt]]) -> None:
        """``parts`` are the messages' modules, and what was stored of each."""
        failed = stored.exception() is not None
        receipts = iter([] if failed else stored.result())
        for module, part in parts:
            if failed and part:
                self._metrics.count("edgehub_messages_unack_total", reason="storage_failure", id=module)
            elif any([not receipt.repeated for receipt in islice(receipts, len(part))]):  # noqa: C419 - all of them are taken
                self._metrics.count("edgehub_messages_received_total", id=module)


def entries_for(message: ModuleMessage, where: Destinations) -> list[Entry]:
    """What is stored of a message, the hub's part first."""
    upstream = [_entry(message, where.upstream, message.body, upstream_properties(message))] if where.upstream else []
    text = delivery_text(message) if where.local else ""
    return upstream + [_entry(message, destination, text) for destination in where.local]


def upstream_properties(message: ModuleMessage) -> str | None:
    """What the hub gets beside the body, as JSON text; None for nothing. Raises MessageRefused for what no hub would take."""
    told = {name: value for name, value in message.system.items() if name in _TOLD}
    if message.output is None and not told and not message.properties:
        return None
    protocol = {} if message.output is None else {PROPERTY_OUTPUT: message.output}
    protocol |= {_TOLD[name]: value for name, value in told.items() if not value.lower().startswith(_NOTHING_NEW)}
    # What the protocol says goes last: an application's property cannot claim it.
    found = {**message.properties, **protocol}
    if problem := properties_problem(found):
        raise MessageRefused(problem=problem)
    return msgspec.json.encode(found).decode() if found else None


def _entry(message: ModuleMessage, destination: Destination, body: str, properties: str | None = None) -> Entry:
    return Entry(
        stream=destination.stream,
        module=message.module,
        time_ms=message.time_ms,
        body=body,
        key=message.key,
        local=destination.module is not None,
        time_to_live_s=destination.time_to_live_s,
        priority=destination.priority,
        properties=properties,
    )


def _once_each(messages: Sequence[ModuleMessage]) -> list[ModuleMessage]:
    seen: set[tuple[str, str]] = set()
    kept = []
    for message in messages:
        if message.key is not None and (message.module, message.key) in seen:
            continue
        seen |= {(message.module, message.key)} if message.key is not None else set()
        kept.append(message)
    return kept
