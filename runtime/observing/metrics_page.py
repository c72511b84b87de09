"""The board as Prometheus reads it: the text format, version 0.0.4. Made anew for each look; touches no request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from runtime.observing.metric_families import (
    DERIVED_FAMILIES,
    MODEL_FAMILIES,
    SERVER_FAMILIES,
    Family,
    Labels,
    ModelKey,
    model_labels,
)


class Numbers(Protocol):
    """What is shown (metrics.Board)."""

    def values(self, name: str, labels: Labels = ()) -> list[float]: ...

    def models(self) -> list[ModelKey]: ...

    def model_values(self, model: ModelKey) -> list[float]: ...


def page(numbers: Numbers) -> str:
    """Every metric with its help, type and series."""
    lines: list[str] = []
    for family in SERVER_FAMILIES:
        combined = max if family.worst else sum
        values = [(labels, float(combined(numbers.values(family.name, labels)))) for labels in family.labels]
        lines += _heading(family.name, family.kind, family.help)
        lines += _histogram_lines(family.name, values) if family.kind == "histogram" else _lines(family.name, values)
    by_model = {model: numbers.model_values(model) for model in numbers.models()}
    for family, start in _model_families():
        lines += _heading(family.name, family.kind, family.help)
        for model, totals in by_model.items():
            lines += _model_lines(family, model, totals[start : start + len(family.labels)])
    lines += _derived(by_model)
    return "\n".join(lines) + "\n"


def _model_families() -> Iterator[tuple[Family, int]]:
    """Each family with the place of its first series among a model's numbers."""
    start = 0
    for family in MODEL_FAMILIES:
        yield family, start
        start += len(family.labels)


def _model_lines(family: Family, model: ModelKey, totals: list[float]) -> list[str]:
    base = model_labels(model)
    values = [((*base, *labels), total) for labels, total in zip(family.labels, totals, strict=True)]
    if family.kind != "histogram":
        return _lines(family.name, values)
    # A thousand models of which ten are used should not make a page of thirty thousand lines.
    return _histogram_lines(family.name, values) if any(totals) else []


def _derived(by_model: Mapping[ModelKey, list[float]]) -> list[str]:
    places = {family.name: slice(start, start + len(family.labels)) for family, start in _model_families()}
    lines: list[str] = []
    for derived in DERIVED_FAMILIES:
        lines += _heading(derived.name, derived.kind, derived.help)
        for model, totals in by_model.items():
            text = _label_text(model_labels(model))
            for suffix, source, scale in derived.parts:
                lines.append(f"{derived.name}{suffix}{text} {_number(sum(totals[places[source]]) * scale)}")
    return lines


def _heading(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _lines(name: str, values: Iterable[tuple[Labels, float]]) -> list[str]:
    return [f"{name}{_label_text(labels)} {_number(value)}" for labels, value in values]


def _histogram_lines(name: str, values: Iterable[tuple[Labels, float]]) -> list[str]:
    """Buckets are stored apart and told cumulatively; the count is the last of them."""
    lines: list[str] = []
    running = 0.0
    for labels, value in values:
        *rest, (kind, edge) = labels
        if kind == "le":
            running += value
            lines.append(f"{name}_bucket{_label_text((*rest, ('le', edge)))} {_number(running)}")
        else:
            lines.append(f"{name}_sum{_label_text(rest)} {_number(value)}")
            lines.append(f"{name}_count{_label_text(rest)} {_number(running)}")
            running = 0.0
    return lines


def _label_text(labels: Iterable[tuple[str, str]]) -> str:
    inner = ",".join([f'{name}="{_escaped(value)}"' for name, value in labels])
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
