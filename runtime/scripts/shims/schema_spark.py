"""The parameter type for Spark data frames. pyspark is imported with the first sample; only reading and making frames needs it.

What a frame is made of is taken from its schema as JSON (``{"type": "struct", "fields": [...]}``), as Spark writes it itself.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from runtime.scripts.shims.schema_types import DATE_FORMAT, AbstractParameterType, Schema, moment_of

__all__ = ["AbstractParameterType", "SparkParameterType"]

# A column's type in Spark's JSON: a name, or an object for what has types inside.
SparkType = Any

_SWAGGER: dict[str, Schema] = {
    "byte": {"type": "integer", "format": "int8"},
    "short": {"type": "integer", "format": "int16"},
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "boolean": {"type": "boolean"},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
    "decimal": {"type": "number", "format": "decimal"},
    "string": {"type": "string"},
    "char": {"type": "string"},
    "varchar": {"type": "string"},
    "binary": {"type": "string", "format": "binary"},
    "date": {"type": "string", "format": "date"},
    "timestamp": {"type": "string", "format": "date-time"},
    "timestamp_ntz": {"type": "string", "format": "date-time"},
    "void": {"type": "object"},
    "null": {"type": "object"},
}
# What JSON has no way to say, or says without its point; Spark takes neither text for a date nor 1 for 1.0.
_READ: dict[str, Callable[[Any], object]] = {
    "date": lambda text: moment_of(text).date(),
    "timestamp": lambda text: moment_of(text),
    "timestamp_ntz": lambda text: moment_of(text),
    "decimal": lambda number: Decimal(str(number)),
    "binary": lambda text: bytearray(base64.b64decode(text.encode())),
    "float": lambda number: float(number) if type(number) is int else number,
    "double": lambda number: float(number) if type(number) is int else number,
}


class SparkParameterType(AbstractParameterType):
    """A data frame with the sample's schema, from a list of objects; ``apply_sample_schema=False`` leaves types to Spark."""

    def __init__(self, sample_input: Any, apply_sample_schema: bool = True) -> None:  # noqa: ANN401 - a pyspark.sql.DataFrame
        if not isinstance(sample_input, _pyspark_sql().DataFrame):
            raise TypeError("Invalid sample input provided, must provide a sample Spark DataFrame.")
        super().__init__(sample_input)
        self.apply_sample_schema = apply_sample_schema

    def deserialize_input(self, input_data: Any) -> Any:  # noqa: ANN401 - from JSON to a pyspark.sql.DataFrame
        sql = _pyspark_sql()
        if isinstance(input_data, sql.DataFrame):
            return input_data
        if not isinstance(input_data, list):
            raise TypeError(f"Error, unable to convert input of type {type(input_data)} to Spark DataFrame")
        session = sql.SparkSession.builder.getOrCreate()
        if not self.apply_sample_schema:
            return session.createDataFrame(input_data)
        kind = self.sample_input.schema.jsonValue()
        return session.createDataFrame([read(row, kind) for row in input_data], schema=self.sample_input.schema)

    def input_to_swagger(self) -> Schema:
        kind = self.sample_input.schema.jsonValue()
        rows = [example_of(row, kind) for row in self.sample_input.collect()]
        return {"type": "array", "items": swagger_of(kind), "example": rows}


def swagger_of(kind: SparkType) -> Schema:
    """A type as swagger says it. Raises TypeError for what it cannot say."""
    match kind:
        case {"type": "struct", "fields": fields}:
            return {"type": "object", "properties": {field["name"]: swagger_of(field["type"]) for field in fields}}
        case {"type": "array", "elementType": inner}:
            return {"type": "array", "items": swagger_of(inner)}
        case {"type": "map", "valueType": inner}:
            return {"type": "object", "additionalProperties": swagger_of(inner)}
        case str() if (found := _SWAGGER.get(_bare(kind))) is not None:
            return dict(found)
    name = kind.get("class", kind.get("type")) if isinstance(kind, dict) else kind
    raise TypeError(f"We currently do not support extracting schema from data of type {name}")


def read(value: Any, kind: SparkType) -> Any:  # noqa: ANN401 - from JSON to what Spark takes
    """A value from JSON as Spark takes it for this type; null stays None. Raises ValueError."""
    if value is None:
        return None
    match kind:
        case {"type": "struct", "fields": fields}:
            return {field["name"]: read(_column(value, field), field["type"]) for field in fields}
        case {"type": "array", "elementType": inner}:
            return [read(part, inner) for part in _of_kind(value, list, "an array")]
        case {"type": "map", "valueType": inner}:
            return {key: read(part, inner) for key, part in _of_kind(value, dict, "an object").items()}
    change = _READ.get(_bare(kind)) if isinstance(kind, str) else None
    if change is None:
        return value
    try:
        return change(value)
    except (ValueError, TypeError, AttributeError, ArithmeticError):
        raise ValueError(f"Invalid input data frame: {value!r} is no {kind}") from None


def example_of(value: Any, kind: SparkType) -> object:  # noqa: ANN401 - what Spark gives
    """A value of a frame as JSON has it."""
    if value is None:
        return None
    match kind:
        case {"type": "struct", "fields": fields}:
            return {field["name"]: example_of(value[field["name"]], field["type"]) for field in fields}
        case {"type": "array", "elementType": inner}:
            return [example_of(part, inner) for part in value]
        case {"type": "map", "valueType": inner}:
            return {str(key): example_of(part, inner) for key, part in value.items()}
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S,%f")
    if isinstance(value, date):
        return value.strftime(DATE_FORMAT)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return float(value) if isinstance(value, Decimal) else value


def _bare(name: str) -> str:
    """``decimal(10,2)`` is a decimal."""
    return name.partition("(")[0]


def _column(row: Any, field: dict[str, Any]) -> object:  # noqa: ANN401 - from JSON
    columns = _of_kind(row, dict, "an object")
    if field["name"] in columns:
        return columns[field["name"]]
    if field["nullable"]:
        return None
    raise ValueError(f"Invalid input data frame: a row has no column {field['name']!r}")


def _of_kind(value: Any, kind: type, said: str) -> Any:  # noqa: ANN401 - of that kind
    if not isinstance(value, kind):
        raise ValueError(f"Invalid input data frame: {said} is expected where {value!r} stands")
    return value


def _pyspark_sql() -> Any:  # noqa: ANN401 - a package that few have
    try:
        return importlib.import_module("pyspark.sql")
    except ImportError as problem:
        text = "SparkParameterType needs pyspark, which cannot be imported here: add it to the environment"
        raise ImportError(f"{text} ({problem})") from None
