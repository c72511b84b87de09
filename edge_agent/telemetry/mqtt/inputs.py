"""Brings what routes stored for inputs of modules to whoever is subscribed: a thread that reads the buffer, settles, and posts.

INVARIANTS. Each stream has one subscriber at a time, the newest connection of its module that wants the input. Messages go out
in order; a stream is settled up to the last message before which everything was acknowledged. What was on its way to a
subscriber that went is read again for the next one, and marked as a repetition.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from edge_agent.bell import Bell
from edge_agent.telemetry.entries import Mark, Portion
from edge_agent.telemetry.mqtt.topics import input_topic
from edge_agent.telemetry.routing.message import Delivery, read_delivery
from edge_agent.telemetry.routing.streams import INPUT_PREFIX, is_input_stream
from hedgerow.contracts.telemetry import extend_chain
from hedgerow.errors import HedgerowError

# On the way to one subscriber, of one stream; below the session's window, which twins and calls need as well.
UNDER_WAY = 48
READ_BYTES = 512 * 1024
LOOK_AGAIN_S = 30.0
AFTER_TROUBLE_S = 1.0
S = TypeVar("S")
log = logging.getLogger(__name__)


class LocalStreams(Protocol):
    """The buffer, as far as it is needed here (``Outbox``)."""

    def local_streams(self) -> tuple[str, dict[str, Mark]]:
        """The epoch, and every stream of an input with its newest mark."""

    def settled(self, stream: str) -> Mark:
        """Up to where a stream was settled."""

    def read_after(self, epoch: str, stream: str, mark: Mark, *, max_messages: int, max_bytes: int) -> Portion | None:
        """What follows ``mark``."""

    def settle(self, stream: str, mark: Mark) -> bool:
        """The module has everything up to ``mark``."""


@dataclass(eq=False)
class _Feed(Generic[S]):
    """One stream on its way to one subscriber: what was sent, and what of it was acknowledged."""

    stream: str
    subscriber: S
    epoch: str
    sent: Mark
    # Counts how often it went back; the server's thread notes the turn in which something was not taken.
    turn: int = 0
    blocked: int = -1
    under_way: deque[Mark] = field(default_factory=deque)
    acknowledged: set[int] = field(default_factory=set)

    def settled_now(self) -> Mark | None:
        """The end of what was acknowledged without a gap since the last call."""
        end: Mark | None = None
        while self.under_way and self.under_way[0].sequence in self.acknowledged:
            end = self.under_way.popleft()
            self.acknowledged.discard(end.sequence)
        return end


@dataclass(frozen=True, eq=False)
class Item(Generic[S]):
    """A message for an input. ``begin`` and ``end`` are the places in its stream before and after it.

    Whoever delivers calls ``overtakes`` first: what follows a message that was not taken must wait for it.
    """

    feed: _Feed[S]
    input: str
    delivery: Delivery
    begin: Mark
    end: Mark
    repeated: bool
    turn: int

    @property
    def overtakes(self) -> bool:
        """Whether an earlier one of the same turn was not taken."""
        return self.turn <= self.feed.blocked


class InputFeeder(Generic[S]):
    """``S`` is what subscribers are known by. ``input_of`` gives module and input of a stream, None for one that is none."""

    def __init__(self, streams: LocalStreams, input_of: Callable[[str], tuple[str, str] | None]) -> None:
        self._streams = streams
        self._input_of = input_of
        self._bell = Bell()
        self._lock = threading.Lock()
        self._interests: dict[str, Sequence[tuple[S, Mapping[str, int]]]] = {}
        self._delivered: list[Item[S]] = []
        self._not_taken: list[Item[S]] = []
        self._feeds: dict[str, _Feed[S]] = {}
        self._highest: dict[str, int] = {}
        self._closing = False
        self._deliver: Callable[[S, list[Item[S]]], None] = lambda _subscriber, _items: None
        self._thread: threading.Thread | None = None

    def start(self, deliver: Callable[[S, list[Item[S]]], None]) -> None:
        """``deliver`` takes messages for a subscriber, and later tells ``delivered`` or ``not_taken`` of each."""
        self._deliver = deliver
        self._thread = threading.Thread(target=self._run, name="local-hub-inputs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._bell.ring()
        if self._thread is not None:
            self._thread.join()

    def hurry(self) -> None:
        """Something was stored."""
        if self._interests:
            self._bell.ring()

    def want(self, module: str, subscribers: Sequence[tuple[S, Mapping[str, int]]]) -> None:
        """Who of a module is there, with the filters subscribed to; the first that wants an input gets it."""
        with self._lock:
            if subscribers:
                self._interests[module] = subscribers
            else:
                self._interests.pop(module, None)
        self._bell.ring()

    def delivered(self, item: Item[S]) -> None:
        """The subscriber has it (or can never have it)."""
        with self._lock:
            self._delivered.append(item)
        self._bell.ring()

    def not_taken(self, item: Item[S]) -> None:
        """There was no room for it, nor for what followed; both are read again after the next acknowledgement."""
        item.feed.blocked = item.turn
        with self._lock:
            self._not_taken.append(item)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._closing:
            self._bell.wait(wait_s)
            wait_s = LOOK_AGAIN_S
            try:
                self._round()
            except HedgerowError as problem:
                log.warning("inputs of modules wait: %s", problem)
                wait_s = AFTER_TROUBLE_S
            except Exception:
                log.exception("a round of the inputs failed; the next one follows")
                wait_s = AFTER_TROUBLE_S

    def _round(self) -> None:
        with self._lock:
            interests = dict(self._interests)
            delivered, self._delivered = self._delivered, []
            not_taken, self._not_taken = self._not_taken, []
        for item in delivered:
            item.feed.acknowledged.add(item.end.sequence)
        for item in not_taken:
            _go_back(item)
        self._settle()
        if not interests:
            self._feeds.clear()
            return
        epoch, streams = self._streams.local_streams()
        self._feeds = {stream: feed for stream, feed in self._feeds.items() if stream in streams}
        self._highest = {stream: last for stream, last in self._highest.items() if stream in streams}
        for stream in streams:
            place = self._input_of(stream)
            subscriber = None if place is None else _subscriber(interests.get(place[0], ()), place[1])
            if place is None or subscriber is None:
                self._feeds.pop(stream, None)
            else:
                self._feed(stream, subscriber, place[1], epoch)

    def _settle(self) -> None:
        for stream, feed in list(self._feeds.items()):
            mark = feed.settled_now()
            if mark is None or mark.sequence <= self._streams.settled(stream).sequence:
                continue  # the module may have settled more over HTTP; settling back is for a restored hub
            if not self._streams.settle(stream, mark):
                del self._feeds[stream]  # another buffer file: begin where that one is

    def _feed(self, stream: str, subscriber: S, name: str, epoch: str) -> None:
        feed = self._feeds.get(stream)
        if feed is None or feed.subscriber is not subscriber or feed.epoch != epoch:
            feed = self._feeds[stream] = _Feed(stream, subscriber, epoch, self._streams.settled(stream))
        room = UNDER_WAY - len(feed.under_way)
        if room <= 0:
            return
        portion = self._streams.read_after(epoch, stream, feed.sent, max_messages=room, max_bytes=READ_BYTES)
        if portion is None:
            return
        if portion.gap is not None:
            feed.under_way.append(portion.end)
            feed.acknowledged.add(portion.end.sequence)
            feed.sent = portion.end
            self._bell.ring()
            return
        items = self._items(feed, portion, name)
        feed.sent = portion.end
        if items:
            self._deliver(subscriber, items)
        self._highest[stream] = max(self._highest.get(stream, 0), portion.end.sequence)

    def _items(self, feed: _Feed[S], portion: Portion, name: str) -> list[Item[S]]:
        items: list[Item[S]] = []
        begin = portion.begin
        for message in portion.messages:
            end = Mark(message.sequence, extend_chain(begin.chain, message))
            feed.under_way.append(end)
            try:
                repeated = message.sequence <= self._highest.get(feed.stream, 0)
                items.append(Item(feed, name, read_delivery(message.body), begin, end, repeated, feed.turn))
            except HedgerowError as problem:
                log.error("message %d of %s cannot be delivered: %s", message.sequence, feed.stream, problem)
                feed.acknowledged.add(end.sequence)
                self._bell.ring()
            begin = end
        return items


def place_of(stream: str, inputs: Mapping[str, tuple[str, str]]) -> tuple[str, str] | None:
    """Module and input of a stream: as the routes in force have it, or as its name says, which plain names do."""
    parts = stream.removeprefix(INPUT_PREFIX).split(".")
    return inputs.get(stream) or ((parts[0], parts[1]) if is_input_stream(stream) and len(parts) == 2 else None)


def _subscriber(subscribers: Sequence[tuple[S, Mapping[str, int]]], name: str) -> S | None:
    return next((subscriber for subscriber, patterns in subscribers if input_topic(patterns, name) is not None), None)


def _go_back(item: Item[S]) -> None:
    """Forget that ``item`` was sent, and everything after it."""
    feed = item.feed
    if item.turn != feed.turn:
        return
    feed.turn += 1
    feed.sent = item.begin
    while feed.under_way and feed.under_way[-1].sequence > item.begin.sequence:
        feed.acknowledged.discard(feed.under_way.pop().sequence)
