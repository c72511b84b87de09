"""What a person should know of an edge deployment's manifest: from the readers, and from ``hedgerow edge lint``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

import msgspec

Level = Literal["error", "warning", "note"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """``place`` is a JSON path in the manifest (``$.modules.pump.probe``); ``remedy`` says what to do, if anything.

    An ``error`` keeps the manifest from being deployed or its modules from running; a ``warning`` is a trap; a ``note``
    says what is different here from what was written.
    """

    level: Level
    place: str
    message: str
    remedy: str = ""


def error(place: str, message: str, remedy: str) -> Finding:
    return Finding(level="error", place=place, message=message, remedy=remedy)


def warning(place: str, message: str, remedy: str = "") -> Finding:
    return Finding(level="warning", place=place, message=message, remedy=remedy)


def note(place: str, message: str, remedy: str = "") -> Finding:
    return Finding(level="note", place=place, message=message, remedy=remedy)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``Did you mean 'x'?``, or which there are."""
    names = sorted(set(known))
    folded = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower()[:100], folded, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {folded[near[0]]!r}?"
    return f"There are: {', '.join(names[:20])}." if names else "There are none."


def unknown_key(place: str, key: str, known: Iterable[str]) -> Finding:
    return warning(place, f"the key {key[:80]!r} is not known and is passed over", did_you_mean(key, known))
