"""What a log line says of itself (when, how grave), and which lines are wanted. Pure but for the regular expression's process.

Lines may begin as IoT Edge recommends: ``<6> 2026-11-22 12:00:00.123 +00:00 text``; both parts are optional, and JSON lines with
``"time"`` or ``"timestamp"`` are understood. A line without a time has that of the line before it; without a level it is 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from edge_agent.methods.errors import LogFilterInvalid
from edge_agent.methods.sieve import Sieve

DEFAULT_LEVEL = 6
LINE_BYTES = 64 * 1024
_BATCH_LINES, _BATCH_CHARS = 500, 128 * 1024
_HEAD = re.compile(
    r"(?:<(?P<level>[0-7])>\s?)?"
    r"(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,](?P<part>\d{1,9}))?\s?(?P<zone>Z|[+-]\d\d:?\d\d)?"
)
_LEVEL = re.compile(r"<([0-7])>")
_JSON_TIME = re.compile(r'"(?:time|timestamp|@timestamp|ts)"\s*:\s*"([^"]{19,40})"')
_JSON_LOOK_CHARS = 500
_DURATION = re.compile(r"(\d{1,9})\s*(d|h|m|s)[a-z]*", re.ASCII)
_UNIT_S = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True)
class Line:
    """``position`` is where to go on after it, in its source's own words; ``at_s`` seconds since 1970, None: not known."""

    text: str
    position: str
    at_s: float | None = None


@dataclass(frozen=True)
class Wanted:
    """Which lines: of the newest ``tail`` those from ``since_s`` to ``until_s`` with one of ``levels`` and ``regex``.

    ``after`` is the position of a line that was read before. ``unfinished``: also a last line that has no end yet.
    """

    tail: int | None = None
    since_s: float | None = None
    until_s: float | None = None
    levels: frozenset[int] | None = None
    regex: str | None = None
    after: str = ""
    unfinished: bool = True


def level_of(text: str) -> int:
    """0 (emergency) to 7 (debug), as in syslog."""
    found = _LEVEL.match(text)
    return int(found[1]) if found else DEFAULT_LEVEL


def time_of(text: str) -> float | None:
    """Seconds since 1970 of a line that begins with a time, or is JSON that holds one. Without a zone it is this machine's."""
    found = _HEAD.match(text)
    if found is None:
        return _json_time(text) if text.startswith("{") else None
    zone = (found["zone"] or "").replace("Z", "+00:00")
    part = (found["part"] or "0").ljust(6, "0")[:6]
    return _stamp(f"{found['time']}.{part}{zone}")


def _json_time(text: str) -> float | None:
    found = _JSON_TIME.search(text, 0, _JSON_LOOK_CHARS)
    return _stamp(found[1]) if found else None


def _stamp(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def moment(value: object, name: str, now: datetime) -> float | None:
    """An RFC 3339 time, seconds since 1970, or how long ago (``2h``, ``1d 12h 30m``). Raises LogFilterInvalid."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(r"\d{1,12}(\.\d+)?", text):
        return float(text)
    words = _DURATION.findall(text.lower())
    try:
        if words and not _DURATION.sub("", text.lower()).strip():
            return (now - timedelta(seconds=sum(int(number) * _UNIT_S[unit] for number, unit in words))).timestamp()
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        problem = "it is neither a time like 2026-11-22T12:00:00Z nor a duration like 2h"
        raise LogFilterInvalid(name=name, value=str(value)[:80], problem=problem) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def chosen(lines: Iterable[Line], wanted: Wanted) -> Iterator[Line]:
    """Those of ``lines`` (in order, already cut to the tail) that are wanted. Raises LogFilterInvalid, LogFilterTooSlow."""
    found = _in_time(lines, wanted)
    if wanted.levels is not None:
        levels = wanted.levels
        found = (line for line in found if level_of(line.text) in levels)
    if wanted.regex is None:
        yield from found
        return
    with Sieve(wanted.regex) as sieve:
        for batch in _batches(found):
            verdicts = sieve.matches([line.text for line in batch])
            yield from (line for line, fits in zip(batch, verdicts, strict=True) if fits)


def _in_time(lines: Iterable[Line], wanted: Wanted) -> Iterator[Line]:
    last_s: float | None = None
    for line in lines:
        last_s = line.at_s if line.at_s is not None else last_s
        if last_s is not None and wanted.since_s is not None and last_s < wanted.since_s:
            continue
        if last_s is not None and wanted.until_s is not None and last_s > wanted.until_s:
            continue
        yield line


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    chars = 0
    for line in lines:
        batch.append(line)
        chars += len(line.text)
        if len(batch) >= _BATCH_LINES or chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
