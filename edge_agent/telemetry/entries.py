"""What goes into the telemetry buffer and what comes out of it. Values only."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hedgerow.contracts.telemetry import CHAIN_START, GapReason, TelemetryGap, TelemetryHole, TelemetryMessage


@dataclass(frozen=True, slots=True)
class Entry:
    """A message to be stored. ``body`` is its JSON text, ``time_ms`` the device's clock.

    ``key`` is an idempotency id: when the module used it before, nothing is stored again. ``local``: for another module's input,
    never for the hub. ``time_to_live_s`` None: as the stream's policy says. ``priority`` (0 most urgent … 9, None last) becomes
    the stream's when the policy names none. ``properties`` is the JSON text of those that go to the hub with it.
    """

    stream: str
    module: str
    time_ms: int
    body: str
    key: str | None = None
    local: bool = False
    time_to_live_s: float | None = None
    priority: int | None = None
    properties: str | None = None

    @property
    def properties_bytes(self) -> int:
        """What the properties take."""
        return len(self.properties.encode()) if self.properties else 0


def read_properties(text: str) -> dict[str, str]:
    """The properties of a stored message; none where a damaged file has something else in their place."""
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeError, TypeError):
        return {}


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a message was stored; ``repeated`` when its idempotency key was known already (then: where the first of that
    request is)."""

    stream: str
    sequence: int
    repeated: bool


@dataclass(frozen=True)
class Mark:
    """A place in a stream: everything up to ``sequence``, and the chain value there."""

    sequence: int
    chain: str


START = Mark(0, CHAIN_START)


@dataclass(frozen=True)
class Portion:
    """What follows a mark: messages (with the holes between them, when those were asked for), or a gap. ``end`` is the mark
    after it."""

    stream: str
    begin: Mark
    end: Mark
    messages: tuple[TelemetryMessage, ...] = ()
    gap: TelemetryGap | None = None
    holes: tuple[TelemetryHole, ...] = ()
    size: int = 0


@dataclass(frozen=True)
class Queue:
    """A stream's messages that wait for the hub, or (``local``) for a module's input."""

    stream: str
    local: bool
    priority: int | None
    messages: int


@dataclass(frozen=True)
class Totals:
    """The buffer in numbers; bytes include what a row costs. ``queued`` waits for the hub, ``local`` for a module's input;
    ``kept`` includes what the hub has already. ``dropped_by_reason`` counts since the buffer file was made."""

    epoch: str
    queued_messages: int
    queued_bytes: int
    kept_bytes: int
    dropped: int
    local_messages: int = 0
    dropped_by_reason: tuple[tuple[GapReason, int], ...] = ()
