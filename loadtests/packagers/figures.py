"""What was measured of each way to build, and the table of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PHASES = {"first": "first build, packages cached as the tool can", "model": "only the model changed", "same": "nothing changed"}
_UNKNOWN = ""


@dataclass
class Column:
    """Seconds by phase, one a round; digests of the builds from nothing, one a round; sizes in bytes.

    ``unchanged`` says of each round whether the build with nothing changed gave the digest of the one before.
    """

    name: str
    took: dict[str, list[float]] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    unchanged: list[bool] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    packed_bytes: int | None = None
    again_bytes: int | None = None
    stored_bytes: int | None = None
    parts: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, phase: str, seconds: float) -> None:
        self.took.setdefault(phase, []).append(seconds)

    def add_parts(self, phase: str, parts: Mapping[str, float]) -> None:
        for part, took in parts.items():
            self.parts.setdefault(phase, {}).setdefault(part, []).append(took)

    @property
    def reproducible(self) -> bool | None:
        """Whether all builds from nothing gave one digest; None if there was only one."""
        return None if len(self.digests) < 2 else len(set(self.digests)) == 1


def rows_of(columns: Sequence[Column]) -> list[tuple[str, list[str]]]:
    """Each row: what, and one cell for each column."""
    rows = [(text, [_median(column.took.get(phase, [])) for column in columns]) for phase, text in PHASES.items()]
    rows += [
        ("`docker run` to the first right answer", [_median(column.started) for column in columns]),
        ("compressed, base included", [_megabytes(column.packed_bytes) for column in columns]),
        ("sent again when only the model changed", [_megabytes(column.again_bytes) for column in columns]),
        ("as the engine keeps it", [_megabytes(column.stored_bytes) for column in columns]),
        ("built twice from nothing: one digest", [_yes_or_no(column.reproducible) for column in columns]),
        ("nothing changed: one digest", [_yes_or_no(all(c.unchanged) if c.unchanged else None) for c in columns]),
    ]
    return rows


def table(columns: Sequence[Column]) -> str:
    """As in docs/benchmarks.md."""
    heads = ["", *(column.name for column in columns)]
    lines = [_line(heads), _line(["---", *("--:" for _ in columns)])]
    return "\n".join(lines + [_line([what, *cells]) for what, cells in rows_of(columns)])


def parts_of(columns: Sequence[Column]) -> str:
    """What the times are made of, as medians: a line for each phase of a column that has parts."""
    return "\n".join(
        f"{column.name}, {PHASES[phase]}: {', '.join(f'{part} {_median(took)}' for part, took in parts.items())}"
        for column in columns
        for phase, parts in column.parts.items()
    )


def plain(columns: Sequence[Column]) -> dict[str, Any]:
    """Every round's figures, for JSON."""
    return {column.name: vars(column) for column in columns}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _median(values: Sequence[float]) -> str:
    if not values:
        return _UNKNOWN
    found = statistics.median(values)
    return f"{found:.0f} s" if found >= 10 else f"{found:.1f} s" if found >= 1 else f"{found:.2f} s"


def _megabytes(size: int | None) -> str:
    if size is None:
        return _UNKNOWN
    return f"{size / 1e6:.0f} MB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _yes_or_no(found: bool | None) -> str:
    return _UNKNOWN if found is None else "yes" if found else "no"
