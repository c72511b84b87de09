"""A large document without its long number lists, and these as arrays. Pure.

Outside of strings, a long stretch without a quote is a number list or nothing that this reads. The list is cut out and a text
takes its place, the small rest goes to the parser that would have read everything, and the arrays are put where the texts are
found. Whatever is not found again, or found where no list may stand, means: declined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from runtime.large_json.grid import MOST_AXES, PIECE_BYTES, SPACE, Holes, Irregular, read_grid
from runtime.tensors import Array

T = TypeVar("T")

_MOST_STRINGS: Final = 2048
# How far from a stretch's ends its list may begin and end.
_MARGIN: Final = 1024


@dataclass(frozen=True)
class Sizes:
    """In bytes: the shortest stretch that is looked at for a list, the most that may be left of a document, a piece."""

    long: int = 8192
    rest: int = 65_536
    piece: int = PIECE_BYTES


SIZES: Final = Sizes()


@dataclass(frozen=True)
class Cut:
    """``rest`` is a document with texts where ``lists``, by these texts, stood."""

    rest: bytes
    lists: dict[object, Array]


def read_large(
    body: bytes, parse: Callable[[bytes], T], holes: Holes = (), sizes: Sizes = SIZES
) -> tuple[T, dict[object, Array]] | None:
    """What ``parse`` makes of the document, and arrays by the texts that now stand for them. None: declined.

    ``parse`` is given the rest and raises what msgspec raises. Whoever takes an array out of the dictionary puts it where its
    text stands; unless none is left in the end, the whole document must be read in another way. ``holes`` are words for NaN.
    """
    try:
        cut = cut_lists(body, holes, sizes)
        return parse(cut.rest), cut.lists
    except (Irregular, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read_document(body: bytes, holes: Holes = (), sizes: Sizes = SIZES) -> object:
    """A document of any kind, with arrays for long lists: itself, its values, or its values' values. None: declined."""
    found = read_large(body, msgspec.json.decode, holes, sizes)
    if found is None:
        return None
    document, lists = found
    document = _put_back(document, lists, depth=2)
    return None if lists else document


def _put_back(value: object, lists: dict[object, Array], depth: int) -> object:
    if isinstance(value, str):
        return lists.pop(value, value)
    if isinstance(value, dict) and depth:
        return {name: _put_back(inner, lists, depth - 1) for name, inner in value.items()}
    return value


def cut_lists(body: bytes, holes: Holes, sizes: Sizes) -> Cut:
    """Raises Irregular when there is no long list, or something beside them that is long."""
    places = []
    for start, end in _stretches(body):
        if end - start >= sizes.long:
            places.append(_list_within(body, start, end))
    if not places or len(body) - sum([end - start for start, end in places]) > sizes.rest:
        raise Irregular
    kept, at = [], 0
    for start, end in places:
        kept.append(body[at:start])
        at = end
    kept.append(body[at:])
    mark = _mark(b"".join(kept))
    texts = [f"{mark}{number}" for number in range(len(places))]
    parts = [kept[0]]
    for text, after in zip(texts, kept[1:], strict=True):
        parts += [b'"%b"' % text.encode(), after]
    lists: dict[object, Array] = {
        text: read_grid(body, start, end, holes=holes, piece_bytes=sizes.piece)
        for text, (start, end) in zip(texts, places, strict=True)
    }
    return Cut(b"".join(parts), lists)


def _stretches(body: bytes) -> list[tuple[int, int]]:
    """From string to string, what is between them."""
    found, at = [], 0
    for _ in range(_MOST_STRINGS):
        quote = _find_quote(body, at)
        found.append((at, quote if quote >= 0 else len(body)))
        if quote < 0:
            return found
        at = _find_quote(body, quote + 1) + 1
        if not at:
            break
    raise Irregular


def _find_quote(body: bytes, start: int) -> int:
    """In pieces too: the next one may be far."""
    while start < len(body):
        found = body.find(b'"', start, start + 16 * PIECE_BYTES)
        if found >= 0:
            return found
        start += 16 * PIECE_BYTES
    return -1


def _list_within(body: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the list of a long stretch is: from its first bracket to as many closing ones as it opens with."""
    head = body[start : start + _MARGIN]
    first = head.find(b"[")
    opened = head[first:].translate(None, SPACE)
    depth = len(opened) - len(opened.lstrip(b"["))
    if first < 0 or depth > MOST_AXES:
        raise Irregular
    tail_at = max(end - _MARGIN, start)
    tail = body[tail_at:end]
    at = len(tail.rstrip(b"[]{}:," + SPACE))
    if not at:
        raise Irregular
    for _ in range(depth):
        at = tail.find(b"]", at) + 1
        if not at:
            raise Irregular
    return start + first, tail_at + at


def _mark(rest: bytes) -> str:
    """The beginning of a text that the document has not. Escapes could spell anything: such documents are not read here."""
    if b"\\" in rest:
        raise Irregular
    mark = "list "
    while mark.encode() in rest:
        mark += "list "
    return mark
