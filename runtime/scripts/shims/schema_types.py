"""What every parameter type can do, and the type for plain Python values."""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from datetime import UTC, date, datetime, time
from typing import Any

Schema = dict[str, Any]
DATE_FORMAT = "%Y-%m-%d"
DATETIME_FORMAT = "%Y-%m-%d %H:%M:%S.%f %z"
TIME_FORMAT = "%H:%M:%S.%f %z"


class AbstractParameterType(ABC):
    """A type made from a sample. Users make their own by the two abstract methods."""

    def __init__(self, sample_input: Any) -> None:  # noqa: ANN401 - any sample
        self.sample_input = sample_input
        self.sample_data_type = type(sample_input)

    def supported_versions(self) -> list[str]:
        """The swagger versions that can say this sample: a list of mixed types is beyond 2.0."""
        plain = _is_uniform(self.input_to_swagger()["example"])
        return ["2.0", "3.0", "3.1"] if plain else ["3.0", "3.1"]

    @abstractmethod
    def deserialize_input(self, input_data: Any) -> Any:  # noqa: ANN401 - from JSON to the sample's type
        """The sample's type from what JSON gave."""

    @abstractmethod
    def input_to_swagger(self) -> Schema:
        """A schema with an ``example``."""


class StandardPythonParameterType(AbstractParameterType):
    """Numbers, text, bytes (base64 in JSON), dates and times, lists and dicts; parts of them may be types themselves."""

    def __init__(self, sample_input: Any) -> None:  # noqa: ANN401 - any sample
        super().__init__(sample_input)
        parts = sample_input if isinstance(sample_input, list | tuple) else ()
        named = sample_input if isinstance(sample_input, dict) else {}
        self.sample_data_type_list = [part for part in parts if isinstance(part, AbstractParameterType)]
        self.sample_data_type_map = {key: part for key, part in named.items() if isinstance(part, AbstractParameterType)}

    def deserialize_input(self, input_data: Any) -> Any:  # noqa: ANN401 - as the sample
        kind = self.sample_data_type
        value = _read(input_data, kind) if isinstance(input_data, str) else input_data
        if kind is float and type(value) is int:
            return value
        if not isinstance(value, kind):
            raise ValueError(f"Invalid input data type to parse. Expected: {kind} but got {type(value)}")
        return value

    def input_to_swagger(self) -> Schema:
        if self.sample_input is None:
            raise ValueError("Sample input cannot be None")
        schema = schema_of(self.sample_input)
        try:
            json.dumps(schema)
        except TypeError as problem:
            text = "Invalid python data sample provided: ensure that the data is fully JSON serializable"
            raise TypeError(f"{text} to be able to generate swagger schema from it. Actual error: {problem}") from None
        return schema


def schema_of(sample: Any) -> Schema:  # noqa: ANN401 - any sample
    """The schema of a plain value, with its example."""
    if isinstance(sample, AbstractParameterType):
        return dict(sample.input_to_swagger())
    kind = type(sample)
    if kind is dict:
        return _schema_of_dict(sample)
    if kind in (list, tuple, range):
        return _schema_of_list(sample)
    if (simple := _SIMPLE.get(kind)) is not None:
        return {**simple, "example": sample}
    if kind in (bytes, bytearray):
        return {"type": "string", "format": "byte", "example": base64.b64encode(sample).decode()}
    if kind is date:
        return {"type": "string", "format": "date", "example": sample.strftime(DATE_FORMAT)}
    if kind in (datetime, time):
        # A time without a zone is taken for UTC.
        whole = sample if sample.tzinfo is not None else sample.replace(tzinfo=UTC)
        form, text = ("date-time", DATETIME_FORMAT) if kind is datetime else ("time", TIME_FORMAT)
        return {"type": "string", "format": form, "example": whole.strftime(text)}
    return {"type": "object", "example": sample}


_SIMPLE: dict[type, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "format": "int64"},
    float: {"type": "number", "format": "double"},
    str: {"type": "string"},
}


def _schema_of_list(sample: Any) -> Schema:  # noqa: ANN401 - list, tuple or range
    items: Schema = {"type": "object"}
    examples = []
    for part in sample:
        items = schema_of(part)
        examples.append(items.pop("example"))
    return {"type": "array", "items": items, "example": examples}


def _schema_of_dict(sample: dict[Any, Any]) -> Schema:
    properties, examples = {}, {}
    for key, part in sample.items():
        schema = schema_of(part)
        examples[key] = schema.pop("example")
        properties[key] = schema
    return {"type": "object", "required": list(sample), "properties": properties, "example": examples}


def _read(text: str, kind: type) -> Any:  # noqa: ANN401 - of the type asked for
    """What JSON can only carry as text. Raises ValueError."""
    if kind is date:
        return datetime.strptime(text, DATE_FORMAT).date()  # noqa: DTZ007 - a date has no zone
    if kind is datetime:
        return moment_of(text)
    if kind is time:
        return moment_of(text).timetz()
    if kind in (bytes, bytearray):
        return kind(base64.b64decode(text.encode()))
    return text


def moment_of(text: str) -> datetime:
    """A date and time as people write it. Raises ValueError."""
    try:
        # Reads many more ways of writing a date than the standard library; scripts with pandas have it.
        from dateutil import parser
    except ImportError:
        for form in (DATETIME_FORMAT, TIME_FORMAT):
            try:
                return datetime.strptime(text, form)  # noqa: DTZ007 - both formats have a zone
            except ValueError:
                continue
        return datetime.fromisoformat(text)
    moment: datetime = parser.parse(text)
    return moment


def _is_uniform(example: object) -> bool:
    if isinstance(example, list) and example:
        first = type(example[0])
        return all(type(part) is first and (first is not list or _is_uniform(part)) for part in example)
    if isinstance(example, dict):
        return all(_is_uniform(part) for part in example.values())
    return True
