"""Batches that came before those in front of them, held for a moment: the other batches are with another hub.

Hubs that share a subscription get the batches of one stream in turns. Whoever gets the second one before the other hub has
committed the first would have to refuse it (``sequence-hole``) and the device would send everything again. So it waits here,
a fraction of a second, and is judged again from what the database says then. When the hole does not close, the refusal goes
out as ever: the protocol repairs every order. Pure: time is an argument; one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from registry.hub.ingest import BatchUplink, StreamAnswer
from registry.store.telemetry import StreamKey

HOLD_S = 0.5
LOOK_AGAIN_S = 0.02
# Beyond these a hole is answered at once.
_MOST_BATCHES, _MOST_BYTES = 1_000, 8 * 1024 * 1024


@dataclass(frozen=True)
class _Held:
    uplink: BatchUplink
    until_s: float


class Holes:
    """What waits, by stream."""

    def __init__(self) -> None:
        self._held: dict[StreamKey, list[_Held]] = {}

    @property
    def devices(self) -> set[str]:
        """Of whom something waits."""
        return {key.device_uuid for key in self._held}

    def wake_in_s(self) -> float | None:
        """When to look again; None while nothing waits."""
        return LOOK_AGAIN_S if self._held else None

    def joined(self, arrived: Sequence[BatchUplink]) -> list[BatchUplink]:
        """What arrived and what waits, each stream in its own order."""
        streams: dict[StreamKey, list[BatchUplink]] = {key: [held.uplink for held in some] for key, some in self._held.items()}
        for uplink in arrived:
            streams.setdefault(uplink.key, []).append(uplink)
        return [uplink for some in streams.values() for uplink in sorted(some, key=_first)]

    def settle(self, tried: Sequence[BatchUplink], answers: Sequence[StreamAnswer], now_s: float) -> list[StreamAnswer]:
        """After the commit: which ``answers`` to give. Batches of ``tried`` behind a hole that may still close are kept."""
        until_s = {id(held.uplink): held.until_s for some in self._held.values() for held in some}
        streams: dict[StreamKey, list[BatchUplink]] = {}
        for uplink in tried:
            streams.setdefault(uplink.key, []).append(uplink)
        self._held = {}
        given: list[StreamAnswer] = []
        room, room_bytes = _MOST_BATCHES, _MOST_BYTES
        for answer in answers:
            of_stream = streams[answer.key]
            behind = [
                _Held(uplink, until_s.get(id(uplink), now_s + HOLD_S))
                for uplink in of_stream
                if _first(uplink) > answer.mark.watermark + 1
            ]
            size = sum(len(held.uplink.payload) for held in behind)
            waits = answer.refused == "sequence-hole" and len(behind) <= room and size <= room_bytes
            if not waits or any(held.until_s <= now_s for held in behind):
                given.append(answer)
                continue
            self._held[answer.key] = behind
            room, room_bytes = room - len(behind), room_bytes - size
            if len(behind) < len(of_stream):
                given.append(replace(answer, refused=None, reason=""))
        return given


def _first(uplink: BatchUplink) -> int:
    return uplink.batch.first_sequence
