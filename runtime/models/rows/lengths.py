"""Lengths of axes as formulas: a whole number times names, one of which is the number of rows. Exact, or named as unknown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

# The number of rows that go into a run; the first letter of every other name that depends on it; and the mark of those that may
# stand for less than zero.
ROWS = "rows"
_FROM_ROWS, _ANY_SIGN = "~", "?"
_serial = count(1)


class Length(NamedTuple):
    """``number`` times all ``names``, in order. The number of rows is at least 1, any other name of an axis at least 0."""

    number: int
    names: tuple[str, ...] = ()

    @property
    def fixed(self) -> int | None:
        return self.number if not self.names or not self.number else None

    @property
    def tells_rows(self) -> bool:
        """Whether it depends on how many rows there are."""
        return any(name == ROWS or name.startswith(_FROM_ROWS) for name in self.names)

    @property
    def sure(self) -> bool:
        """Whether it is a whole number, and below zero only if ``number`` is."""
        return not any(_ANY_SIGN in name for name in self.names)

    def times(self, other: Length) -> Length:
        if not self.number or not other.number:
            return ZERO
        return Length(self.number * other.number, tuple(sorted((*self.names, *other.names))))

    def over(self, other: Length) -> Length | None:
        """Exact division; None where it does not come out even for every length."""
        if not other.number or self.number % other.number:
            return None
        left = list(self.names)
        for name in other.names:
            if name not in left:
                return None
            left.remove(name)
        return Length(self.number // other.number, tuple(left))

    def plus(self, other: Length) -> Length:
        if not other.number:
            return self
        if not self.number or self.names == other.names:
            return Length(self.number + other.number, other.names) if self.number + other.number else ZERO
        return unknown_number((self, other), f"({self}+{other})")

    def negative(self) -> Length:
        return Length(-self.number, self.names)

    def __str__(self) -> str:
        return "*".join((str(self.number), *self.names))


ZERO, ONE, ALL_ROWS = Length(0), Length(1), Length(1, (ROWS,))


def unknown_length(of: Iterable[Length] = (), name: str = "") -> Length:
    """A length under a name of its own, or under ``name`` where the same formula is to be known again.

    It depends on the number of rows if one of the lengths that it was made ``of`` does.
    """
    mark = _FROM_ROWS if any(one.tells_rows for one in of) else ""
    return Length(1, (f"{mark}{name or next(_serial)}",))


def unknown_number(of: Iterable[Length] = (), name: str = "") -> Length:
    """The same for what may be less than zero."""
    return unknown_length(of, f"{_ANY_SIGN}{name or next(_serial)}")


def product(lengths: Iterable[Length]) -> Length:
    """1 where there are none."""
    found = ONE
    for one in lengths:
        found = found.times(one)
    return found


def same(left: Length, right: Length) -> bool | None:
    """Whether they are equal whatever their names stand for; None where that depends."""
    if left == right:
        return True
    if left.fixed is not None and right.fixed is not None:
        return False
    for one, other in ((left, right), (right, left)):
        if not other.sure:
            continue
        # A length is never negative, a number of rows never zero.
        if one.fixed is not None and other.number > 0 and (one.fixed < 0 or (one.fixed == 0 and set(other.names) == {ROWS})):
            return False
    return None
