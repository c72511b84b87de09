"""A regular nested list of numbers, as JSON text, becomes an array. Pure.

Pieces end behind a comma, so each is a few whole numbers and brackets. Of a piece:

    brackets   each stands where one may stand, and where a grid of equal rows has it: as many numbers before it as a multiple
               of what a list of its depth holds
    numbers    brackets turned into spaces, msgspec reads what must be a plain list of numbers, strictly

Neither check is enough alone: ``1]2`` and ``1,]2`` fail the one, ``1 2`` and ``1,,2`` the other.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from runtime.tensors import Array

Holes = tuple[bytes, ...]

# Up to 20 000 numbers, no call longer than half a millisecond; and what they become stays in the processor's cache.
PIECE_BYTES: Final = 131_072
# Deeper than any tensor; and far from where a parser would refuse.
MOST_AXES: Final = 16
SPACE: Final = b" \t\r\n"
# From here on a float64 does not hold every whole number: whether one stood there as 1e17 or as 17 digits would be lost.
_EXACT_FLOATS: Final = 2.0**53
_NEVER: Final = 2**62
_FRACTION: Final = (b".", b"e", b"E")
_OPEN, _CLOSE, _COMMA, _BLANK, _LAST_LETTER = b"[], e"
_IS_SPACE: Final = np.isin(np.arange(256), list(SPACE))
# Whole numbers stay int and others float, as in a document; nothing else passes.
_numbers = msgspec.json.Decoder(list[int | float])
_numbers_and_holes = msgspec.json.Decoder(list[int | float | None])


class Irregular(Exception):
    """The text is no grid of numbers that this reads; what it is instead, a JSON parser says."""


def read_grid(text: bytes, start: int, end: int, *, holes: Holes = (), piece_bytes: int = PIECE_BYTES) -> Array:
    """``text[start:end]``, brackets included, as int64 (whole numbers only) or float64: what numpy makes of the parsed list.

    ``holes`` are words that are read as NaN, for whoever wants floats whatever stands there.
    Raises Irregular for anything else, some regular lists too: empty ones, float64 beyond 2**53, whole numbers beyond 64 bits.
    """
    chars = np.frombuffer(text, dtype=np.uint8)
    cuts = _cuts(text, start, end, piece_bytes)
    brackets = Brackets(_depth(text, start, end))
    numbers = Numbers(sum([_commas(chars[at:to], holes) for at, to in cuts]) + 1, holes)
    for at, to in cuts:
        piece = chars[at:to]
        # Every piece but the last ends with a comma; the last one gets its own.
        plain = np.empty(len(piece) + (to == end) + 1, dtype=np.uint8)
        plain[0], plain[1 : len(piece) + 1], plain[-1] = _OPEN, piece, _CLOSE
        places = ((piece == _OPEN) | (piece == _CLOSE)).nonzero()[0]
        plain[places + 1] = _BLANK
        numbers.add(plain, whole=all(text.find(sign, at, to) < 0 for sign in _FRACTION))
        brackets.add(piece, places)
    return numbers.all().reshape(brackets.shape(numbers.count))


def _commas(piece: Array, holes: Holes) -> int:
    # null, true, Infinity: known before any number was read.
    if not holes and piece.max() > _LAST_LETTER:
        raise Irregular
    return int(np.count_nonzero(piece == _COMMA))


def _cuts(text: bytes, start: int, end: int, piece_bytes: int) -> list[tuple[int, int]]:
    """Where the pieces are."""
    cuts = []
    while end - start > piece_bytes:
        comma = text.rfind(b",", start, start + piece_bytes)
        if comma < 0:
            raise Irregular
        cuts.append((start, comma + 1))
        start = comma + 1
    return [*cuts, (start, end)]


def _depth(text: bytes, start: int, end: int) -> int:
    head = text[start : min(end, start + PIECE_BYTES)].translate(None, SPACE)
    depth = len(head) - len(head.lstrip(b"["))
    if not 0 < depth <= MOST_AXES:
        raise Irregular
    return depth


class Numbers:
    """The numbers so far, of ``most`` at the most."""

    def __init__(self, most: int, holes: Holes) -> None:
        self.count = 0
        self._holes = holes
        # Memory is only taken where something is written.
        self._all: Array = np.empty(most, dtype=np.int64)

    def add(self, piece: Array, *, whole: bool) -> None:
        """The text of a plain list, as bytes; ``whole`` when it has whole numbers only."""
        try:
            array = self._read(piece, whole)
        except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError):
            raise Irregular from None
        end = self.count + len(array)
        if end > len(self._all):
            raise Irregular
        if array.dtype != self._all.dtype:
            array = self._as_floats(array)
        if array.dtype == np.float64 and not _exact(array):
            raise Irregular
        self._all[self.count : end] = array
        self.count = end

    def all(self) -> Array:
        if not self.count or self.count != len(self._all):
            raise Irregular
        return self._all

    def _read(self, piece: Array, whole: bool) -> Array:
        try:
            found: list[int | float] | list[int | float | None] = _numbers.decode(piece.data)
        except msgspec.MsgspecError:
            if not self._holes:
                raise
            text = piece.tobytes()
            for word in self._holes:
                text = text.replace(word, b"null")
            found, whole = _numbers_and_holes.decode(text), False
        # numpy takes None for NaN where it wants floats.
        return np.fromiter(found, np.int64 if whole else np.float64, len(found))

    def _as_floats(self, array: Array) -> Array:
        """One fraction makes floats of all."""
        if self._all.dtype == np.int64:
            floats = np.empty(len(self._all), dtype=np.float64)
            floats[: self.count] = self._all[: self.count]
            if not _exact(floats[: self.count]):
                raise Irregular
            self._all = floats
        return array.astype(np.float64)


def _exact(array: Array) -> bool:
    return not (np.abs(array) >= _EXACT_FLOATS).any()


class Brackets:
    """What brackets say of the shape; ``depth`` is how many stand before the first number."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._open = 0
        self._commas = 0
        # By depth, from 1: how many numbers a list holds (none before the first was closed), and how many were closed.
        self._sizes = np.full(depth + 1, _NEVER, dtype=np.int64)
        self._closed = np.zeros(depth + 1, dtype=np.int64)

    def add(self, piece: Array, places: Array) -> None:
        """A piece, and where its brackets are. The first begins with one, the last ends with one; the others end with a comma."""
        commas = piece == _COMMA
        if len(places):
            opens = piece[places] == _OPEN
            _check_neighbours(piece, places, opens)
            depths = self._open + np.where(opens, 1, -1).cumsum()
            self._open = int(depths[-1])
            depths += ~opens
            if depths.min() < 1 or depths.max() > self._depth:
                raise Irregular
            # A closing bracket has the number before it inside, an opening one only what is before its comma.
            before = self._commas + commas.cumsum(dtype=np.int32)[places] + ~opens
            self._check_rows(depths, before, opens)
        self._commas += int(np.count_nonzero(commas))

    def shape(self, count: int) -> list[int]:
        """Of ``count`` numbers in all, once everything was added."""
        sizes = self._sizes[1:].tolist()
        if self._open or self._closed[1] != 1:
            raise Irregular
        for size, closed in zip(sizes, self._closed[1:].tolist(), strict=True):
            if size * closed != count:
                raise Irregular
        return [size // part for size, part in zip(sizes, [*sizes[1:], 1], strict=True)]

    def _check_rows(self, depths: Array, before: Array, opens: Array) -> None:
        closing, ends = depths[~opens], before[~opens]
        for depth in (self._sizes[1:] == _NEVER).nonzero()[0] + 1:
            here = (closing == depth).nonzero()[0]
            if len(here):
                self._sizes[depth] = ends[here[0]]
        if (before % self._sizes[depths]).any():
            raise Irregular
        self._closed += np.bincount(closing, minlength=self._depth + 1)


def _check_neighbours(piece: Array, places: Array, opens: Array) -> None:
    """Before ``[`` stands ``[`` or a comma, behind ``]`` stands ``]`` or a comma; or it is an end of the list."""
    left, right = places[opens] - 1, places[~opens] + 1
    left, right = left[left >= 0], right[right < len(piece)]
    before, behind = piece[left], piece[right]
    # Most writers put one space behind a comma, or none.
    blank = before == _BLANK
    if blank.any():
        left = left - blank
        before = piece[left[left >= 0]]
    if _IS_SPACE[before].any() or _IS_SPACE[behind].any():
        _check_spread(piece)
        return
    if ((before != _OPEN) & (before != _COMMA)).any() or ((behind != _CLOSE) & (behind != _COMMA)).any():
        raise Irregular


def _check_spread(piece: Array) -> None:
    """The same where more white space stands."""
    dense = np.frombuffer(piece.tobytes().translate(None, SPACE), dtype=np.uint8)
    places = ((dense == _OPEN) | (dense == _CLOSE)).nonzero()[0]
    _check_neighbours(dense, places, dense[places] == _OPEN)
