"""``@input_schema`` and ``@output_schema``: samples describe run()'s parameters, JSON is made into them."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from runtime.scripts.shims.schema_types import AbstractParameterType, Schema

_F = TypeVar("_F", bound=Callable[..., Any])
ALL_VERSIONS = ("2.0", "3.0", "3.1")
_schemas: dict[str, dict[str, Schema]] = {}
_versions: dict[str, set[str]] = {}


def input_schema(
    param_name: str,
    param_type: AbstractParameterType,
    convert_to_provided_type: bool = True,
    optional: bool = False,
) -> Callable[[_F], _F]:
    """Say what ``param_name`` looks like; what is given for it in JSON is converted unless told otherwise."""
    _check(param_type)

    def decorate(function: _F) -> _F:
        names = list(inspect.signature(function).parameters)
        _remember_input(function, names, param_name, param_type)
        if not convert_to_provided_type:
            return function

        @functools.wraps(function)
        def converting(*args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - the user's own parameters
            if param_name in kwargs:
                if kwargs[param_name] or not optional:
                    kwargs[param_name] = converted(kwargs[param_name], param_type)
            elif not optional:
                if param_name not in names:
                    raise ValueError(f"run() has no parameter {param_name!r}, which @input_schema names")
                at = names.index(param_name)
                args = (*args[:at], converted(args[at], param_type), *args[at + 1 :])
            return function(*args, **kwargs)

        return converting  # type: ignore[return-value]  # the same parameters

    return decorate


def output_schema(output_type: AbstractParameterType) -> Callable[[_F], _F]:
    """Say what run() returns, for the swagger document."""
    _check(output_type)

    def decorate(function: _F) -> _F:
        schemas = _schemas.setdefault(_name_of(function), {})
        if "output_schema" in schemas:
            raise ValueError(f"run() has more than one @output_schema: {_name_of(function)}")
        schemas["output_schema"] = output_type.input_to_swagger()
        _limit_versions(function, output_type)
        return function

    return decorate


def converted(value: Any, wanted: AbstractParameterType) -> object:  # noqa: ANN401 - anything JSON can say
    """``value`` as the sample's type. Types within a dict or list sample convert their part. Raises ValueError."""
    kind = wanted.sample_data_type
    if kind is dict:
        if not isinstance(value, dict):
            raise ValueError(f"Invalid input data type to parse. Expected: {kind} but got {type(value)}")
        inner = getattr(wanted, "sample_data_type_map", {})
        return {key: converted(part, inner[key]) if key in inner else part for key, part in value.items()}
    if kind in (list, tuple):
        if not isinstance(value, list | tuple):
            raise ValueError(f"Invalid input data type to parse. Expected: {kind} but got {type(value)}")
        of = getattr(wanted, "sample_data_type_list", [])
        return [converted(part, of[0]) for part in value] if of else value
    return value if isinstance(value, kind) else wanted.deserialize_input(value)


# What the documents are made of; names and answers as in inference_schema.schema_util ---------------------------------


def get_input_schema(func: Callable[..., Any]) -> Schema:
    return _schemas.get(_name_of(func), {}).get("input_schema", {"type": "object"})


def get_output_schema(func: Callable[..., Any]) -> Schema:
    return _schemas.get(_name_of(func), {}).get("output_schema", {"type": "object"})


def get_supported_versions(func: Callable[..., Any]) -> list[str]:
    """The swagger versions that can say all of the function's schemas."""
    return sorted(_versions.get(_name_of(func), set(ALL_VERSIONS)))


def get_schemas_dict() -> dict[str, dict[str, Schema]]:
    return copy.deepcopy(_schemas)


def is_schema_decorated(func: Callable[..., Any]) -> bool:
    return _name_of(func) in _schemas


# Inside ---------------------------------------------------------------------------------------------------------------


def _check(param_type: object) -> None:
    if not isinstance(param_type, AbstractParameterType):
        raise TypeError("The type of a schema must be a subclass of AbstractParameterType")


def _remember_input(function: Callable[..., Any], names: list[str], name: str, kind: AbstractParameterType) -> None:
    schema = copy.deepcopy(kind.input_to_swagger())
    example = schema.pop("example")
    whole = _schemas.setdefault(_name_of(function), {}).setdefault(
        "input_schema", {"type": "object", "properties": {one: {} for one in names}, "example": dict.fromkeys(names, "")}
    )
    whole["properties"][name] = schema
    whole["example"][name] = example
    _limit_versions(function, kind)


def _limit_versions(function: Callable[..., Any], kind: AbstractParameterType) -> None:
    versions = _versions.setdefault(_name_of(function), set(ALL_VERSIONS))
    versions &= set(kind.supported_versions())


def _name_of(function: Callable[..., Any]) -> str:
    """Module and name of the innermost function; decorators of the user's may lie around it, with functools.wraps or without."""
    inner = inspect.unwrap(function)
    while (below := _closed_over(inner)) is not None:
        inner = inspect.unwrap(below)
    return f"{getattr(inner, '__module__', '')}.{getattr(inner, '__name__', '')}"


def _closed_over(function: object) -> FunctionType | None:
    for cell in getattr(function, "__closure__", None) or ():
        if isinstance(cell.cell_contents, FunctionType):
            return cell.cell_contents
    return None
