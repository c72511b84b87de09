"""Why a model may have failed on inputs that are each right alone: they disagree about the length of an axis. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.tensors import Array

AxisNames = Mapping[str, Sequence[str]]


def unevenness(feeds: Mapping[str, Array], axis_names: AxisNames) -> str | None:
    """A sentence about two inputs of ``feeds`` that differ where the model calls an axis the same, or in their rows.

    ``axis_names`` are those of each input, "" where an axis has none. Rows are first axes, of any length or fixed.
    """
    lengths: dict[str, tuple[str, int]] = {}
    for name, array in feeds.items():
        for axis, length in zip(axis_names.get(name, ()), array.shape, strict=False):
            if not axis:
                continue
            first, before = lengths.setdefault(axis, (name, length))
            if before != length:
                return f"inputs {first!r} and {name!r} disagree about the axis {axis}: {before} and {length}"
    rows = {name: array.shape[0] for name, array in feeds.items() if array.ndim and axis_names.get(name, [""])[0] == ""}
    if len(set(rows.values())) > 1:
        first, other = min(rows, key=lambda name: rows[name]), max(rows, key=lambda name: rows[name])
        return f"the inputs differ in their number of rows: {first!r} has {rows[first]}, {other!r} has {rows[other]}"
    return None
