"""What tables with text may bring that no sample has: unknown words, empty ones, other cases, missing numbers, extremes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .agreement import Array
from .edges import edge_rows
from .rows import takes

_WORDS = (
    "",
    " ",
    "unknown word",
    "\u00e4\u00f6\u00fc \u00df \u6f22\u5b57",
    "nan",
    "0",
    "UPPER lower",
    "a-b_c.d,e!",
    "tab\tand\nline",
)
_NUMBERS = (0.0, -1.0, 1.0, 1e6, -1e6, float("nan"))

Answer = Callable[["dict[str, Array]"], "list[Array]"]


def with_odd_rows(rows: dict[str, Array], answer: Answer, random: np.random.Generator, *, edges: bool) -> dict[str, Array]:
    """``rows`` ([n, 1] for each column), then odd ones that the original answers; ``edges``: also where it jumps."""
    kept = dict(rows)
    count = len(next(iter(rows.values())))
    for name, values in rows.items():
        for odd in _odd(values):
            line = {other: column[random.integers(0, count)].reshape(1, 1) for other, column in rows.items()}
            line[name] = np.array([[odd]])
            if takes(answer, line):
                kept = {other: np.concatenate([column, line[other]]) for other, column in kept.items()}
    return _with_edges(kept, answer, random) if edges else kept


def _odd(values: Array) -> list[object]:
    if values.dtype.kind != "U":
        return list(_NUMBERS)
    first = str(values[0, 0])
    return [*_WORDS, first.upper(), first.lower(), f" {first} ", first.replace(" ", "  ")]


def _with_edges(rows: dict[str, Array], answer: Answer, random: np.random.Generator) -> dict[str, Array]:
    """Both sides of jumps along the columns of numbers, beside the texts of one row."""
    numbers = [name for name, values in rows.items() if values.dtype.kind == "f"]
    if not numbers:
        return rows
    texts = {name: values[:1] for name, values in rows.items() if name not in numbers}

    def ask(table: Array) -> list[Array]:
        return answer(_ordered(rows, numbers, table, texts))

    found = edge_rows(ask, np.column_stack([rows[name][:, 0] for name in numbers]), random)
    more = _ordered(rows, numbers, found, texts)
    return {name: np.concatenate([values, more[name]]) for name, values in rows.items()}


def _ordered(rows: dict[str, Array], numbers: list[str], table: Array, texts: dict[str, Array]) -> dict[str, Array]:
    return {
        name: table[:, [numbers.index(name)]] if name in numbers else np.repeat(texts[name], len(table), axis=0) for name in rows
    }
