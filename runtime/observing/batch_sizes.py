"""How often each model ran with how many rows, and how long: Triton's ``batch_stats``. Beside the board's series (metrics.py).

These are far more numbers than a metrics page should have, and only the statistics of the Open Inference Protocol tell them. So
they have shared memory of their own, of which a page comes into use with a model's first run.

    size = 0 … 64 rows exactly, then 65–128, 129–256, … each told as its largest
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass

_EXACT = 64
_LARGEST = 2**24
SIZES = (*range(_EXACT + 1), *(2**power for power in range(_EXACT.bit_length(), _LARGEST.bit_length())))
# Runs, and seconds of input, inference and output.
_NUMBERS = 4
_LAST = len(SIZES) - 1
# 64 and fewer rows stand at their own number; 65 need one bit more than 64 do (counted from rows - 1).
_BITS_BELOW = _EXACT - (_EXACT - 1).bit_length()


@dataclass(frozen=True)
class BatchSize:
    """The runs of one size. Times are those of all of them together."""

    rows: int
    runs: int
    input_s: float
    infer_s: float
    output_s: float


class RunSizes:
    """What the runs of one model in one worker count."""

    __slots__ = ("_base", "_numbers")

    def __init__(self, numbers: memoryview[float], base: int) -> None:
        self._numbers, self._base = numbers, base

    def ran(self, rows: int, input_s: float, infer_s: float, output_s: float) -> None:
        """One run."""
        size = rows if rows <= _EXACT else min(_BITS_BELOW + (rows - 1).bit_length(), _LAST)
        numbers, place = self._numbers, self._base + size * _NUMBERS
        numbers[place] += 1.0
        numbers[place + 1] += input_s
        numbers[place + 2] += infer_s
        numbers[place + 3] += output_s


class SizeBoard:
    """``rows`` workers with ``models`` models each. Made before the first fork."""

    def __init__(self, *, rows: int, models: int) -> None:
        self._models = models
        self._numbers = memoryview(mmap.mmap(-1, rows * models * len(SIZES) * _NUMBERS * 8)).cast("d")

    def of(self, row: int, place: int) -> RunSizes:
        """Where one worker counts a model."""
        return RunSizes(self._numbers, self._start(row, place))

    def told(self, places: Iterable[tuple[int, int]]) -> list[BatchSize]:
        """The sizes that one model ran with, over all ``places`` (worker, model) that it has; smallest first."""
        width = len(SIZES) * _NUMBERS
        totals = [0.0] * width
        for row, place in places:
            start = self._start(row, place)
            totals = [total + value for total, value in zip(totals, self._numbers[start : start + width], strict=True)]
        found = [(rows, totals[at * _NUMBERS : (at + 1) * _NUMBERS]) for at, rows in enumerate(SIZES)]
        return [BatchSize(rows, int(runs), *seconds) for rows, (runs, *seconds) in found if runs]

    def _start(self, row: int, place: int) -> int:
        return (row * self._models + place) * len(SIZES) * _NUMBERS
