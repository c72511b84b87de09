"""The numbers in a telemetry message, by their paths: what ``/metrics`` shows the newest of, and pages draw the course of."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

MAX_LEAVES = 50


def numeric_leaves(body: str) -> list[tuple[str, float]]:
    """(path, number) of at most ``MAX_LEAVES`` finite numbers in a JSON text, in its order; ``[]`` if it is not JSON.

    ``{"a": {"b": [1.5]}}`` gives ``("a.b.0", 1.5)``; true and false are 1 and 0.
    """
    found: dict[str, float] = {}
    try:
        for path, number in _leaves(msgspec.json.decode(body), ""):
            # Two ways to one path ("a.b" as a key, and "b" in "a") would be one time series twice: the first counts.
            found.setdefault(path, number)
            if len(found) == MAX_LEAVES:
                break
    except (msgspec.DecodeError, RecursionError):
        # Walking goes a little deeper than reading, so a device could send what only the walk breaks at.
        return []
    return list(found.items())


def _leaves(value: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, bool | int | float):
        try:
            number = float(value)
        except OverflowError:
            return
        if math.isfinite(number):
            yield path or "value", number
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _leaves(part, f"{path}.{key}" if path else str(key))
