"""The parameter type for numpy arrays."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.scripts.shims.schema_types import AbstractParameterType, Schema

__all__ = ["AbstractParameterType", "NumpyParameterType"]

_LONG = ("years", "months", "weeks", "days", "hours", "minutes", "seconds")
_SHORT = ("milliseconds", "microseconds", "nanoseconds", "picoseconds", "femtoseconds", "attoseconds")
_UNITS = dict(zip((*_LONG, *_SHORT), ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"), strict=True))
_NUMBERS: dict[str, Schema] = {
    **{name: {"type": "integer", "format": name} for name in ("int8", "int16", "int32", "int64")},
    **{name: {"type": "integer", "format": name} for name in ("uint8", "uint16", "uint32", "uint64")},
    "bool": {"type": "boolean"},
    "float16": {"type": "number", "format": "float"},
    "float32": {"type": "number", "format": "float"},
    "float64": {"type": "number", "format": "double"},
    "object": {"type": "object"},
}


class NumpyParameterType(AbstractParameterType):
    """An array like the sample: its dtype, and its shape but for the first dimension, unless told otherwise."""

    def __init__(self, sample_input: NDArray[Any], enforce_column_type: bool = True, enforce_shape: bool = True) -> None:
        if not isinstance(sample_input, np.ndarray):
            raise TypeError("Invalid sample input provided, must provide a sample Numpy array.")
        super().__init__(sample_input)
        self.enforce_column_type, self.enforce_shape = enforce_column_type, enforce_shape

    def deserialize_input(self, input_data: Any) -> NDArray[Any]:  # noqa: ANN401 - from JSON
        if isinstance(input_data, np.ndarray):
            return input_data
        if not isinstance(input_data, list):
            raise ValueError("Invalid input format: expected an array of items.")
        dtype = self.sample_input.dtype
        if self.enforce_column_type:
            # Plain numbers need no look at each of them.
            plain = dtype.names is None and dtype.kind not in "mM"
            array = np.array(input_data if plain else [_item(item, dtype) for item in input_data], dtype=dtype)
        else:
            array = np.array(input_data)
        if self.enforce_shape:
            check_shape(array.shape, self.sample_input.shape, "array")
        return array

    def input_to_swagger(self) -> Schema:
        items = _schema_of(self.sample_input.dtype)
        schema = _array_of(items, self.sample_input.ndim)
        example = [_example(schema["items"], item) for item in self.sample_input]
        return {**schema, "example": example, "format": "numpy.ndarray"}


def check_shape(given: tuple[int, ...], wanted: tuple[int, ...], what: str) -> None:
    """The first dimension is the caller's. Raises ValueError."""
    if len(given) != len(wanted):
        text = f"Invalid input {what}: an array with {len(wanted)} dimensions is expected; input has {len(given)}"
        raise ValueError(f"{text} [shape {given}]")
    for at in range(1, len(wanted)):
        if given[at] != wanted[at]:
            text = f"Invalid input {what}: array has size {given[at]} on dimension #{at}"
            raise ValueError(f"{text}, while expected value is {wanted[at]}")


def _item(value: Any, dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - one element from JSON
    if dtype.names is not None:
        named = isinstance(value, dict)
        return tuple(_item(value[name if named else at], dtype[name]) for at, name in enumerate(dtype.names))
    if isinstance(value, list) and dtype.kind in "mM":
        return [_item(one, dtype) for one in value]
    if dtype.kind == "M":
        return np.datetime64(value)
    return _duration(value) if dtype.kind == "m" else value


def _duration(text: str) -> np.timedelta64:
    number, _, unit = str(text).partition(" ")
    unit = unit.strip().lower()
    if unit not in _UNITS:
        raise ValueError(f"Invalid numpy.timedelta64 value specified: {text}. Format should be <value> <time_unit_code>")
    return np.timedelta64(int(number), _UNITS[unit])  # type: ignore[call-overload,no-any-return]  # the unit is checked


def _schema_of(dtype: np.dtype[Any]) -> Schema:
    if dtype.names is not None:
        return {"type": "object", "properties": {name: _schema_of(dtype[name]) for name in dtype.names}}
    if dtype.subdtype is not None:
        inner, shape = dtype.subdtype
        return _array_of(_schema_of(inner), len(shape))
    if dtype.name in _NUMBERS:
        return dict(_NUMBERS[dtype.name])
    texts = {"M": "date-time", "m": "timedelta", "S": "binary", "V": "binary"}
    if dtype.kind in texts:
        return {"type": "string", "format": texts[dtype.kind]}
    if dtype.kind == "U":
        return {"type": "string"}
    raise TypeError(f"We currently do not support extracting schema from data of type {dtype.name}")


def _array_of(items: Schema, dimensions: int) -> Schema:
    schema = {"type": "array", "items": items}
    for _ in range(dimensions - 1):
        schema = {"type": "array", "items": schema}
    return schema


def _example(schema: Schema, item: Any) -> Any:  # noqa: ANN401 - an element as JSON
    kind, form = schema["type"], schema.get("format", "")
    if kind == "array":
        return [_example(schema["items"], part) for part in item]
    if kind == "object" and "properties" in schema:
        return {name: _example(inner, item[name]) for name, inner in schema["properties"].items()}
    if kind in ("number", "integer", "boolean"):
        return {"number": float, "integer": int, "boolean": bool}[kind](item)
    if form == "date-time":
        return item.astype("datetime64[us]").astype(dt.datetime).strftime("%Y-%m-%d %H:%M:%S,%f")
    return base64.b64encode(item).decode() if form == "binary" else str(item)
