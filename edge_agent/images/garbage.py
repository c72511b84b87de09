"""What may go when disk space is wanted back: images that nobody needs any more, and leftovers of what was cut short. Pure.

An image in use is never chosen: one of a wanted module, or of a version that may come back. Of the others those go that
nobody has needed for a while, and the longest unused ones as long as images take more than their quota; all of them while the
disk is nearly full. Doing it is in ``collector.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

DAMAGED_KEPT = timedelta(days=7)
PARTIAL_KEPT = timedelta(days=1)
# Younger than this, something may be at work on it right now.
AT_WORK = timedelta(minutes=10)


@dataclass(frozen=True)
class StoredImage:
    """An image on this device. ``used_at``: when it was last seen in use, or came."""

    kind: Literal["process", "docker"]
    digest: str
    size_bytes: int
    used_at: datetime


@dataclass(frozen=True)
class Leftover:
    """A file or folder that a crash, a cut cable or a damaged disk has left behind. ``claimed``: a pull will go on with it."""

    path: Path
    size_bytes: int
    changed_at: datetime
    kind: Literal["partial", "damaged"]
    claimed: bool = False


@dataclass(frozen=True)
class Rules:
    """``quota_bytes`` for all images together; unused ones go after ``unused_for``. ``pressed``: the disk is nearly full."""

    quota_bytes: int
    unused_for: timedelta
    pressed: bool = False


def images_to_remove(images: Iterable[StoredImage], in_use: Collection[str], rules: Rules, now: datetime) -> list[StoredImage]:
    """The images that go, the longest unused first."""
    everything = list(images)
    unused = sorted(
        (image for image in everything if image.digest not in in_use), key=lambda image: (image.used_at, image.digest)
    )
    total = sum(image.size_bytes for image in everything)
    chosen = []
    for image in unused:
        # A clock that was set back makes an image look younger: it stays a little longer.
        if rules.pressed or total > rules.quota_bytes or now - image.used_at >= rules.unused_for:
            chosen.append(image)
            total -= image.size_bytes
    return chosen


def leftovers_to_remove(found: Iterable[Leftover], *, pressed: bool, now: datetime) -> list[Leftover]:
    """The leftovers that go: after a time, and sooner while the disk is nearly full."""

    def goes(leftover: Leftover) -> bool:
        age = now - leftover.changed_at
        if leftover.kind == "damaged":
            return pressed or age >= DAMAGED_KEPT
        return not leftover.claimed and age >= (AT_WORK if pressed else PARTIAL_KEPT)

    return [leftover for leftover in found if goes(leftover)]
