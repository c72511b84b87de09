"""Inputs of modules over HTTP, for those without MQTT: a long poll that gives what waits, and an acknowledgement.

``GET /inputs/NAME?wait_s=20&max=50`` answers with messages in their order and an ``ack``; ``POST /inputs/NAME/ack`` with that
``ack`` settles them. What was not acknowledged is given again: at least once, in order. Nothing is kept in memory between calls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from edge_agent.errors import InputAckRefused, MessageRefused
from edge_agent.telemetry.entries import Mark, Portion
from edge_agent.telemetry.routing.message import read_delivery
from edge_agent.telemetry.routing.streams import input_stream
from hedgerow.contracts.names import KnownName
from hedgerow.contracts.telemetry import ChainValue, Sequence
from hedgerow.errors import HedgerowError

WAIT_MAX_S = 50.0
MESSAGES_MAX = 100
READ_BYTES = 512 * 1024
# Connections are limited, and those that wait must leave room for those that bring telemetry.
WAITING_MAX = 16
WAITING_PER_MODULE = 4
NAME_LENGTH_MAX = 256
# Portions without a message that are skipped in one look: gaps.
_EMPTY_MAX = 1000
# Under load every commit wakes every poll; so long a poll waits at least between two looks.
_LOOK_AGAIN_S = 0.1


class LocalStreams(Protocol):
    """The buffer, as far as it is needed here (``Outbox``)."""

    def local_streams(self) -> tuple[str, dict[str, Mark]]:
        """The epoch, and every stream of an input with its newest mark."""
        ...

    def settled(self, stream: str) -> Mark:
        """Up to where a stream was settled."""
        ...

    def read_after(self, epoch: str, stream: str, mark: Mark, *, max_messages: int, max_bytes: int) -> Portion | None:
        """What follows ``mark``."""
        ...

    def settle(self, stream: str, mark: Mark) -> bool:
        """The module has everything up to ``mark``."""
        ...


class InputMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message for an input. ``body`` is JSON; with ``encoding`` "text" or "base64" it is a string of that kind."""

    sequence: int
    time_ms: int
    source: KnownName
    output: str | None
    encoding: str
    properties: dict[str, str]
    system: dict[str, str]
    body: msgspec.Raw


class InputMessages(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a poll; ``ack`` settles all of ``messages``, None when there are none."""

    messages: list[InputMessage] = []
    ack: str | None = None


class _Ack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of an acknowledgement."""

    ack: str


class _Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What an ``ack`` is: opaque to modules, and checked against the buffer."""

    sequence: Sequence
    chain: ChainValue


@dataclass(frozen=True)
class _Asked:
    """A poll's query."""

    wait_s: float
    messages_max: int


class ModuleInputs:
    """Thread-safe. ``monotonic_s`` measures the waiting."""

    def __init__(self, streams: LocalStreams, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._streams = streams
        self._monotonic_s = monotonic_s
        self._changed = threading.Condition()
        # Not the same lock: the buffer's writer, for which settling waits, also calls ``hurry``.
        self._settling = threading.Lock()
        self._waiting: dict[str, int] = {}
        self._closed = False
        self._pause = threading.Event()
        self._stored = 0

    @property
    def waiting(self) -> int:
        """Polls that wait now."""
        with self._changed:
            return sum(self._waiting.values())

    def hurry(self) -> None:
        """Something was stored."""
        with self._changed:
            self._stored += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Answer everybody who waits."""
        self._pause.set()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def poll(self, module: str, name: str, query: Mapping[str, list[str]]) -> InputMessages:
        """What waits for input ``name`` of ``module``; waits for it as long as the query says. Raises MessageRefused."""
        stream, asked = _stream(module, name), _asked(query)
        until_s = self._monotonic_s() + asked.wait_s
        while True:
            seen, looked_s = self._stored, self._monotonic_s()
            found = self._read(stream, asked.messages_max)
            left_s = until_s - self._monotonic_s()
            if found.messages or left_s <= 0 or not self._wait(module, seen, left_s):
                return found
            self._pause.wait(max(0.0, looked_s + _LOOK_AGAIN_S - self._monotonic_s()))

    def acknowledge(self, module: str, name: str, body: bytes) -> None:
        """The module has what the poll with this acknowledgement gave. Raises InputAckRefused, MessageRefused."""
        stream = _stream(module, name)
        try:
            place = msgspec.json.decode(msgspec.json.decode(body, type=_Ack).ack, type=_Place)
        except (msgspec.DecodeError, RecursionError) as problem:
            raise MessageRefused(problem=f'its body is not {{"ack": "…"}} of an answer: {problem}') from None
        if stream not in self._streams.local_streams()[1]:
            raise InputAckRefused(input=name)
        # Settling back is for a restored hub; a module that repeats an old acknowledgement means nothing by it.
        with self._settling:
            mark = Mark(place.sequence, place.chain)
            if place.sequence > self._streams.settled(stream).sequence and not self._streams.settle(stream, mark):
                raise InputAckRefused(input=name)

    def _read(self, stream: str, messages_max: int) -> InputMessages:
        epoch, known = self._streams.local_streams()
        if stream not in known:
            return InputMessages()
        mark = self._streams.settled(stream)
        for _ in range(_EMPTY_MAX):
            portion = self._streams.read_after(epoch, stream, mark, max_messages=messages_max, max_bytes=READ_BYTES)
            if portion is None:
                return InputMessages()
            mark = portion.end
            if (found := _answer(portion)).messages:
                return found
        return InputMessages()

    def _wait(self, module: str, seen: int, left_s: float) -> bool:
        """Wait until something was stored after ``seen``; False when there is no room to wait, or nothing to wait for."""
        with self._changed:
            crowded = sum(self._waiting.values()) >= WAITING_MAX or self._waiting.get(module, 0) >= WAITING_PER_MODULE
            if crowded or self._closed:
                return False
            self._waiting[module] = self._waiting.get(module, 0) + 1
            try:
                self._changed.wait_for(lambda: self._stored != seen or self._closed, left_s)
            finally:
                self._waiting[module] -= 1
                if not self._waiting[module]:
                    del self._waiting[module]
            return not self._closed


def _answer(portion: Portion) -> InputMessages:
    messages = []
    for message in portion.messages:
        try:
            delivery = read_delivery(message.body)
        except HedgerowError:
            continue  # nothing that a route wrote; it is settled with the next one
        messages.append(
            InputMessage(
                sequence=message.sequence,
                time_ms=message.time_ms,
                source=delivery.source,
                output=delivery.output,
                encoding=delivery.encoding,
                properties=delivery.properties,
                system=delivery.system,
                body=msgspec.Raw(delivery.body.encode()),
            )
        )
    ack = msgspec.json.encode(_Place(portion.end.sequence, portion.end.chain)).decode()
    return InputMessages(messages=messages, ack=ack)


def _stream(module: str, name: str) -> str:
    if not name or len(name) > NAME_LENGTH_MAX:
        raise MessageRefused(problem=f"an input's name has 1 to {NAME_LENGTH_MAX} characters")
    return input_stream(module, name)


def _asked(query: Mapping[str, list[str]]) -> _Asked:
    try:
        wait_s = msgspec.convert((query.get("wait_s") or ["0"])[0], float, strict=False)
        messages_max = msgspec.convert((query.get("max") or [str(MESSAGES_MAX)])[0], int, strict=False)
    except msgspec.ValidationError as problem:
        raise MessageRefused(problem=f"its query is wrong: {problem}") from None
    return _Asked(min(max(0.0, wait_s), WAIT_MAX_S), min(max(1, messages_max), MESSAGES_MAX))
