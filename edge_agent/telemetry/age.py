"""How much time has passed for the buffer: seconds that never go back, by which messages expire. Pure.

Within a boot of the machine only its monotonic clock counts, so the wall clock may jump as it likes. Across a boot the wall clock
says how long the machine was off, when it says something believable at both ends; otherwise (no battery, not set yet) only the
time since the boot counts. Messages then live longer than they should, which loses nothing; they never live shorter.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

# No clock that was set shows a time before this software existed.
PLAUSIBLE_FROM_MS = 1_735_689_600_000
# A machine that was off for longer, by its clock, more likely had its clock set wrongly.
OFF_MAX_S = 400 * 86_400.0


class Anchor(msgspec.Struct, frozen=True):
    """The buffer's age at one moment of one boot; kept in the buffer file."""

    boot: str
    monotonic_s: float
    wall_ms: int
    age_s: float


@dataclass(frozen=True)
class Moment:
    """Now, by all clocks."""

    boot: str
    monotonic_s: float
    wall_ms: int


def anchor_now(before: Anchor | None, now: Moment) -> Anchor:
    """The anchor of this moment, from the last one that was kept."""
    return Anchor(now.boot, now.monotonic_s, now.wall_ms, 0.0 if before is None else age_s(before, now))


def age_s(anchor: Anchor, now: Moment) -> float:
    """The buffer's age now."""
    if anchor.boot == now.boot:
        return anchor.age_s + max(0.0, now.monotonic_s - anchor.monotonic_s)
    return anchor.age_s + max(now.monotonic_s, _by_wall_clock(anchor, now))


def _by_wall_clock(anchor: Anchor, now: Moment) -> float:
    passed_s = (now.wall_ms - anchor.wall_ms) / 1000
    believable = anchor.wall_ms >= PLAUSIBLE_FROM_MS and now.wall_ms >= PLAUSIBLE_FROM_MS and passed_s <= OFF_MAX_S
    return passed_s if believable else 0.0
