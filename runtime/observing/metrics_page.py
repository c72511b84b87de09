"""The board as Prometheus reads it: the text format, version 0.0.4. Touches no request.

A model's lines are made when it first shows and again when its numbers have changed; of a thousand models few have. What is the
same for all of them (names, labels, buckets) is made once, with a mark where the model's own labels and numbers go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, Protocol

from runtime.observing.metric_families import (
    DERIVED_FAMILIES,
    MODEL_FAMILIES,
    SERVER_FAMILIES,
    Derived,
    Family,
    Labels,
    ModelKey,
    model_labels,
)

# Stands for a model's own labels; no label has it, since what is escaped holds no line's end.
_MODEL: Final = "\n\n"


class Numbers(Protocol):
    """What is shown (metrics.Board)."""

    def values(self, name: str, labels: Labels = ()) -> list[float]: ...

    def models(self) -> list[ModelKey]: ...

    def model_values(self, model: ModelKey) -> list[float]: ...

    def model_bytes(self, model: ModelKey) -> bytes:
        """The same for as long as ``model_values`` is."""
        ...


class MetricsPage:
    """Keeps what it may need again. One thread's."""

    def __init__(self) -> None:
        self._lines = _ModelLines()
        self._models: dict[ModelKey, tuple[bytes, list[str]]] = {}

    def text(self, numbers: Numbers) -> str:
        """Every metric with its help, type and series."""
        parts: list[str] = []
        for family in SERVER_FAMILIES:
            combined = max if family.worst else sum
            values = [float(combined(numbers.values(family.name, labels))) for labels in family.labels]
            parts += [_heading(family), _filled(family, family.labels, values)]
        by_model = [self._of_model(numbers, model) for model in numbers.models()]
        headings = [*map(_heading, MODEL_FAMILIES), *map(_heading, DERIVED_FAMILIES)]
        for place, heading in enumerate(headings):
            parts.append(heading)
            parts += [lines[place] for lines in by_model]
        return "".join(parts)

    def _of_model(self, numbers: Numbers, model: ModelKey) -> list[str]:
        """Its lines, by family."""
        now = numbers.model_bytes(model)
        kept = self._models.get(model)
        if kept is None or kept[0] != now:
            kept = self._models[model] = (now, self._lines.of(model, numbers.model_values(model)))
        return kept[1]


class _ModelLines:
    """A model's lines, by family."""

    def __init__(self) -> None:
        self._families: list[tuple[str, slice, bool]] = []
        self._derived: list[tuple[str, list[tuple[slice, float]]]] = []
        start = 0
        places: dict[str, slice] = {}
        for family in MODEL_FAMILIES:
            place = places[family.name] = slice(start, start := start + len(family.labels))
            lines = _template(family, [(("", _MODEL), *labels) for labels in family.labels])
            self._families.append((lines, place, family.kind == "histogram"))
        for derived in DERIVED_FAMILIES:
            lines = "".join([f"{derived.name}{suffix}{{{_MODEL}}} %s\n" for suffix, _, _ in derived.parts])
            self._derived.append((lines, [(places[source], scale) for _, source, scale in derived.parts]))

    def of(self, model: ModelKey, totals: list[float]) -> list[str]:
        own = _inner(model_labels(model)).replace("%", "%%")
        lines: list[str] = []
        for template, place, is_histogram in self._families:
            values = totals[place]
            if not is_histogram:
                lines.append(template.replace(_MODEL, own) % tuple(map(_number, values)))
            # A thousand models of which ten are used should not make a page of thirty thousand lines.
            else:
                lines.append(template.replace(_MODEL, own) % tuple(map(_number, _cumulative(values))) if any(values) else "")
        for template, sources in self._derived:
            numbers = tuple([_number(sum(totals[place]) * scale) for place, scale in sources])
            lines.append(template.replace(_MODEL, own) % numbers)
        return lines


def _heading(family: Family | Derived) -> str:
    return f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"


def _filled(family: Family, labels: Iterable[Labels], values: list[float]) -> str:
    """A family's lines with its numbers."""
    if family.kind != "histogram":
        return _template(family, labels) % tuple(map(_number, values))
    edges = next(place for place, one in enumerate(family.labels, start=1) if one[-1][0] != "le")
    sets = [values[start : start + edges] for start in range(0, len(values), edges)]
    return _template(family, labels) % tuple(map(_number, [value for one in sets for value in _cumulative(one)]))


def _template(family: Family, labels: Iterable[Labels]) -> str:
    """A family's lines with %s for the numbers; of a histogram those of :func:`_cumulative`."""
    if family.kind != "histogram":
        return "".join([f"{family.name}{_label_text(one)} %s\n" for one in labels])
    return "".join(_histogram_lines(family.name, labels))


def _histogram_lines(name: str, labels: Iterable[Labels]) -> Iterator[str]:
    for one in labels:
        *rest, (kind, edge) = one
        if kind == "le":
            yield f"{name}_bucket{_label_text((*rest, ('le', edge)))} %s\n"
        else:
            yield f"{name}_sum{_label_text(rest)} %s\n{name}_count{_label_text(rest)} %s\n"


def _cumulative(values: list[float]) -> list[float]:
    """Buckets are stored apart and told cumulatively, then the sum; the count is the last bucket."""
    buckets = list(accumulate(values[:-1]))
    return [*buckets, values[-1], buckets[-1]]


def _label_text(labels: Iterable[tuple[str, str]]) -> str:
    inner = _inner(labels)
    return f"{{{inner}}}" if inner else ""


def _inner(labels: Iterable[tuple[str, str]]) -> str:
    # A label without a name is the mark for a model's own.
    return ",".join([f'{name}="{_escaped(value)}"' if name else value for name, value in labels])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
