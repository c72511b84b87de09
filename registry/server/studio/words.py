"""How the pages say things: ages, sizes, short digests, the tone of a state. Pure; ``now`` is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

from hedgerow.contracts.lineage import LineageNode

_SHOWN_DIGITS = 12
_LARGEST = 1e300
_TONES = {
    "good": {"ready", "running", "succeeded", "passed", "online", "applied"},
    "busy": {"starting", "queued", "draining", "deleting", "pending"},
    "warn": {"degraded", "backoff", "unhealthy", "skipped", "rolled back", "paused", "reversing"},
    "bad": {"failed", "refused", "revoked", "deleted", "reversed"},
}
# An activity or a run that is running is at work; a module that is running is well.
_WORK_TONES = {"running": "busy"}
_PAGES = {
    "model": "models",
    "image": "images",
    "run": "runs",
    "deployment": "services",
    "endpoint": "services",
    "module": "devices",
    "device": "devices",
    "activity": "activities",
}
_UNITS = ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def ago(moment: datetime, now: datetime) -> str:
    """``3 min ago``; a moment ahead of us is ``just now`` or, beyond a clock's error, ``in 3 min``."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 5:
        return "just now"
    return f"{_roughly(seconds)} ago" if seconds > 0 else f"in {_roughly(-seconds)}"


def lasted(start: datetime | None, end: datetime | None) -> str:
    """How long something took; ``""`` while that is not known."""
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    return f"{seconds:.1f} s" if seconds < 10 else _roughly(seconds)


def exact(moment: datetime) -> str:
    """``2026-11-21 08:39:00 UTC``, for the title."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def short_digest(digest: str) -> str:
    """The beginning of the hexadecimal part."""
    return digest.removeprefix("sha256:")[:_SHOWN_DIGITS]


def size(count: int) -> str:
    """Bytes in decimal units: ``0 B``, ``1.5 kB``, ``20 MB``."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if value >= 10 or units[0] == "B" else f"{value:.1f} {units[0]}"


def number(value: float) -> str:
    """Four digits are enough to compare metrics."""
    return f"{value:.4g}"


def tone(state: str, *, work: bool = False) -> str:
    """The colour of a state: good, busy, warn, bad, or off for all that just rests."""
    if work and state in _WORK_TONES:
        return _WORK_TONES[state]
    return next((name for name, states in _TONES.items() if state in states), "off")


def polyline(values: Sequence[float], width: int = 160, height: int = 32) -> str:
    """Points of an SVG polyline through ``values``, from left to right, the largest on top; ``""`` below two values."""
    # Beyond this the differences themselves overflow; NaN compares false.
    finite = [value for value in values if abs(value) < _LARGEST]
    if len(finite) < 2:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    step = width / (len(finite) - 1)
    return " ".join(
        f"{index * step:.1f},{height - 1 - (value - low) / span * (height - 2):.1f}" for index, value in enumerate(finite)
    )


def page_of(node: LineageNode) -> str:
    """The address of the page that tells of it; ``""`` where there is none."""
    return _page_of_kind(node.kind, node.id.removeprefix(f"{node.kind}:"))


def page_of_subject(subject: str) -> str:
    """Of an event's subject (``model/iris:3``); ``""`` where there is no page."""
    noun, _, name = subject.partition("/")
    return _page_of_kind(noun, name)


def _page_of_kind(kind: str, name: str) -> str:
    if not name or kind not in _PAGES:
        return ""
    # Names of things have no character that means something in an address; whoever told an event might have.
    return f"/{_PAGES[kind]}/{quote(name.partition('/')[0], safe=':@')}"


def _roughly(seconds: float) -> str:
    unit, name = next(((unit, name) for unit, name in _UNITS if seconds >= unit), _UNITS[-1])
    return f"{seconds / unit:.0f} {name}"
