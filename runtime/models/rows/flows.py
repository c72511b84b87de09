"""What is known of one value in a graph: which of its axes carries the rows, how long its axes are, what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from runtime.models.rows.lengths import ROWS, Length

# none: the same whatever the rows are. rows: each row depends on its own row of the inputs alone. number: each row holds its own
# number. numbered: the first of each row's last axis does. mixed: a row may depend on another. unknown: nobody knows.
Kind = Literal["none", "rows", "number", "numbered", "mixed", "unknown"]
Shape = tuple[Length, ...]


class Flow(NamedTuple):
    """``shape`` is None where not even the number of axes is known; with rows it always is.

    Along ``axis`` lie the rows, in order; each may take several places there. ``items`` are all values of a small tensor of
    whole numbers (of lengths, most often), row-major, ``why`` tells what mixed the rows or what is not known.
    """

    kind: Kind
    shape: Shape | None = None
    axis: int = 0
    items: tuple[Length, ...] | None = None
    why: str = ""

    @property
    def carries(self) -> bool:
        """Whether an axis of it carries rows, in order."""
        return self.kind in ("rows", "number", "numbered")

    @property
    def bad(self) -> bool:
        return self.kind in ("mixed", "unknown")

    @property
    def tells_rows(self) -> bool:
        """Whether its values depend on how many rows there are."""
        return any(item.tells_rows for item in self.items or ())

    @property
    def from_right(self) -> int:
        """The rows' axis, counted from the right: 0 is the last."""
        return len(self.shape or ()) - 1 - self.axis

    def fixed_items(self) -> list[int] | None:
        """Its values where all of them are plain numbers."""
        if self.items is None:
            return None
        found = [item.fixed for item in self.items]
        return [one for one in found if one is not None] if None not in found else None


def none(shape: Sequence[Length] | None = None, items: Sequence[Length] | None = None) -> Flow:
    """A value that no row decides."""
    return Flow("none", None if shape is None else tuple(shape), items=None if items is None else tuple(items))


def rows(shape: Sequence[Length], axis: int) -> Flow:
    return Flow("rows", tuple(shape), axis)


def mixed(why: str, shape: Shape | None = None) -> Flow:
    return Flow("mixed", shape, why=why)


def unknown(why: str, shape: Shape | None = None) -> Flow:
    return Flow("unknown", shape, why=why)


def by_shape(shape: Shape, why: str) -> Flow:
    """A value that is the same all along its axes: where the number of rows is a length, every row is alike.

    ``why`` is told where several axes are as long as there are rows, so that each row is set against each other one.
    """
    places = [axis for axis, length in enumerate(shape) if length.tells_rows]
    if not places:
        return none(shape)
    if len(places) > 1 or ROWS not in shape[places[0]].names:
        return mixed(why, shape)
    return rows(shape, places[0])


def worst(flows: Sequence[Flow]) -> Flow | None:
    """The first that is mixed, or else unknown."""
    bad = [flow for flow in flows if flow.bad]
    return next((flow for flow in bad if flow.kind == "mixed"), bad[0] if bad else None)
