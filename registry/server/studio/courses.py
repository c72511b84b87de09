"""Telemetry as courses over time: one for each number of each module, ready to be drawn. Pure.

A line is broken where messages are missing for much longer than usual, so that a device that was away does not look as if
it had measured all the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from registry.server.numeric_leaves import numeric_leaves

WIDTH, HEIGHT = 320, 72
MOST_COURSES = 12
_LONGEST_BODY = 65_536
# Silence of so many usual distances is a break.
_BREAK = 8
# Beyond this the differences themselves overflow.
_LARGEST = 1e300


@dataclass(frozen=True)
class Course:
    """The values of one number; ``lines`` are points of SVG polylines in a box of WIDTH times HEIGHT."""

    module: str
    name: str
    lines: tuple[str, ...]
    low: float
    high: float
    last: float
    count: int
    first_ms: int
    last_ms: int


def courses_of(messages: Iterable[tuple[str, int, str]]) -> list[Course]:
    """Courses of (module, time in ms, body), by module and in the order in which numbers stand in messages.

    A number that was seen once only has nothing to draw and is left out; at most MOST_COURSES are given.
    """
    values: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for module, time_ms, body in messages:
        if len(body) > _LONGEST_BODY:
            continue
        for name, number in numeric_leaves(body):
            if abs(number) < _LARGEST:
                values.setdefault((module, name), []).append((time_ms, number))
    several = ((module, name, sorted(points)) for (module, name), points in values.items() if len(points) > 1)
    return [_course(module, name, points) for module, name, points in sorted(several, key=lambda one: one[0])[:MOST_COURSES]]


def _course(module: str, name: str, points: Sequence[tuple[int, float]]) -> Course:
    numbers = [number for _, number in points]
    low, high = min(numbers), max(numbers)
    return Course(
        module=module,
        name=name,
        lines=tuple(_line(part, points[0][0], points[-1][0], low, high) for part in _unbroken(points)),
        low=low,
        high=high,
        last=numbers[-1],
        count=len(points),
        first_ms=points[0][0],
        last_ms=points[-1][0],
    )


def _unbroken(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    usual_ms = median(after[0] - before[0] for before, after in pairwise(points))
    parts = [[points[0]]]
    for point in points[1:]:
        if point[0] - parts[-1][-1][0] > _BREAK * max(usual_ms, 1):
            parts.append([])
        parts[-1].append(point)
    return parts


def _line(points: Sequence[tuple[int, float]], start_ms: int, end_ms: int, low: float, high: float) -> str:
    across, up = (end_ms - start_ms) or 1, (high - low) or 1.0
    places = [
        (f"{(time_ms - start_ms) / across * WIDTH:.1f}", f"{HEIGHT - 2 - (number - low) / up * (HEIGHT - 4):.1f}")
        for time_ms, number in points
    ]
    if len(places) == 1:
        # A single point would not be drawn.
        places.append((f"{float(places[0][0]) + 0.8:.1f}", places[0][1]))
    return " ".join(f"{x},{y}" for x, y in places)
