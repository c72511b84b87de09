"""The outputs of one run, and each request's share of them. Pure.

What callers take is lists or bytes; both are made once of the whole outputs, and everybody who shared the run takes a slice.
Large outputs (large_json/writing.py) are everybody's own, written in pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.large_json.writing import any_large
from runtime.tensors import Array, values_of

Outputs = Mapping[str, object]


class RunOutputs:
    """What a run gave, by name: arrays, or lists where the model gives sequences."""

    __slots__ = ("_flat", "_nested", "_raw", "forms", "large", "values")

    def __init__(self, values: Outputs) -> None:
        self.values = values
        # Whether making lists of them all at once would hold up whoever does it.
        self.large = any_large(values)
        # Whatever else an answer of this run has in common with others (oip/answers.py).
        self.forms: dict[tuple[int, int], Any] = {}
        self._nested: dict[str, list[object]] = {}
        self._flat: dict[str, list[object]] = {}
        self._raw: dict[str, bytes] = {}

    def separable(self, rows: int) -> bool:
        """Whether every output has one row for each of ``rows`` that went in."""
        for value in self.values.values():
            if isinstance(value, np.ndarray):
                if not value.ndim or len(value) != rows:
                    return False
            elif not isinstance(value, list) or len(value) != rows:
                return False
        return True

    def nested(self, name: str) -> list[object]:
        """An output as JSON values, a list for each row."""
        if name not in self._nested:
            self._nested[name] = values_of(self.values[name])  # type: ignore[assignment]  # a list: it has rows
        return self._nested[name]

    def flat(self, name: str, array: Array) -> list[object]:
        """All values of an array, row after row."""
        found = self._flat.get(name)
        if found is None:
            found = self._flat[name] = array.ravel().tolist()
        return found

    def raw(self, name: str, array: Array) -> bytes:
        """The bytes of an array of numbers, little-endian, row after row."""
        found = self._raw.get(name)
        if found is None:
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            found = self._raw[name] = little.tobytes()
        return found


class Share:
    """One request's rows of a run's outputs: from ``start`` up to ``stop``, or everything where ``stop`` is None."""

    __slots__ = ("start", "stop", "whole")

    def __init__(self, whole: RunOutputs, start: int = 0, stop: int | None = None) -> None:
        self.whole, self.start, self.stop = whole, start, stop

    @property
    def rows(self) -> int:
        """How many; -1 for everything."""
        return -1 if self.stop is None else self.stop - self.start

    def part(self, array: Array) -> Array:
        """This request's part of ``array``, an output of the run."""
        return array if self.stop is None else array[self.start : self.stop]

    @property
    def large(self) -> bool:
        """Whether writing it may take milliseconds."""
        return self.whole.large and any_large(self.values())

    def values(self) -> dict[str, object]:
        """The outputs as onnxruntime would have given them for this request alone."""
        if self.stop is None:
            return dict(self.whole.values)
        start, stop = self.start, self.stop
        return {name: value[start:stop] for name, value in self.whole.values.items()}  # type: ignore[index]  # separable()

    def nested(self) -> dict[str, object]:
        """The outputs as JSON values."""
        whole = self.whole
        if self.stop is None:
            return {name: values_of(value) for name, value in whole.values.items()}
        start, stop = self.start, self.stop
        return {name: whole.nested(name)[start:stop] for name in whole.values}

    def only(self) -> object:
        """The one output as JSON values."""
        (name,) = self.whole.values
        return values_of(self.whole.values[name]) if self.stop is None else self.whole.nested(name)[self.start : self.stop]

    def flat(self, name: str, array: Array) -> list[object]:
        """This request's values of ``array``, an output of the run, row after row."""
        values = self.whole.flat(name, array)
        if self.stop is None:
            return values
        width = len(values) // len(array) if len(array) else 0
        return values[self.start * width : self.stop * width]

    def raw(self, name: str, array: Array) -> bytes:
        """The same as little-endian bytes, for arrays of numbers."""
        data = self.whole.raw(name, array)
        if self.stop is None:
            return data
        width = len(data) // len(array) if len(array) else 0
        return data[self.start * width : self.stop * width]

    def shape(self, array: Array) -> tuple[int, ...]:
        """The shape of this request's part of ``array``."""
        return array.shape if self.stop is None else (self.stop - self.start, *array.shape[1:])
