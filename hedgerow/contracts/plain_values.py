"""Values that came out of JSON, TOML or YAML which strangers wrote: bounded before anything walks them."""

from __future__ import annotations

from collections.abc import Mapping

MAX_DEPTH = 32
MAX_VALUES = 100_000


class UnboundedValue(Exception):
    """Why a value is not taken. Whoever reads a document turns it into a sentence that names the document."""


def check_bounds(value: object, *, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES) -> None:
    """Raises UnboundedValue for what is nested too deeply, has too many values, or holds what JSON cannot carry."""
    waiting: list[tuple[object, int]] = [(value, 0)]
    values = 0
    while waiting:
        here, depth = waiting.pop()
        values += 1
        if depth > max_depth:
            raise UnboundedValue(f"it is nested more than {max_depth} deep")
        if values > max_values:
            raise UnboundedValue(f"it has more than {max_values} values")
        if isinstance(here, str):
            _check_text(here)
        elif isinstance(here, int | float):
            _check_number(here)
        elif isinstance(here, Mapping):
            for key, inner in here.items():
                _check_text(str(key))
                waiting.append((inner, depth + 1))
        elif isinstance(here, list):
            waiting += [(inner, depth + 1) for inner in here]


def _check_number(number: float) -> None:
    if not -(2**63) <= number < 2**64:
        raise UnboundedValue(f"{str(number)[:40]} is no number that JSON and 64 bits hold")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise UnboundedValue("it holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnboundedValue("it holds half a character (a lone surrogate)") from None
