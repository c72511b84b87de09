"""MLflow signatures, column-based and tensor-based, in the words of the Open Inference Protocol. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from hedgerow.contracts.model import Datatype, TensorSpec

_MOST_SPECS = 10_000
_MOST_DIMENSIONS = 16
_LONGEST_NAME = 500
# https://mlflow.org: `mlflow.types.DataType`; its `datetime`, objects, maps and `any` have no counterpart.
_COLUMNS: dict[str, Datatype] = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
}
_TENSORS: dict[str, Datatype] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "str": "BYTES",
    "bytes": "BYTES",
    "object": "BYTES",
}
_TEXT_DTYPE = re.compile(r"(?:[<>|=]?[USO]\d*|(?:str|bytes)\d+)")


class SignatureInvalid(Exception):
    """Why a signature's JSON is none; whoever read the file says where it stands."""


def read_specs(text: str, side: str) -> tuple[list[TensorSpec], list[str]]:
    """The tensors of one side (``input`` or ``output``), and sentences about what has no counterpart and is left out.

    Entries without a name are called ``input_0``, ``input_1``…, by their place. Raises SignatureInvalid.
    """
    specs: dict[str, TensorSpec] = {}
    left_out: list[str] = []
    for number, entry in enumerate(_entries(text)):
        name = _name(entry, f"{side}_{number}")
        found = _tensor(entry) if entry["type"] == "tensor" else _column(entry)
        if found is None:
            left_out.append(f"The {side} {name!r} is left out: {_kind(entry)} has no counterpart in the Open Inference Protocol.")
        elif name in specs:
            left_out.append(f"The {side} {name!r} is left out: it is there twice.")
        else:
            specs[name] = TensorSpec(name=name, datatype=found[0], shape=found[1])
    return list(specs.values()), left_out


def _entries(text: str) -> list[dict[str, Any]]:
    try:
        entries = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise SignatureInvalid("it is no JSON text") from None
    if not isinstance(entries, list) or len(entries) > _MOST_SPECS:
        raise SignatureInvalid(f"it is no list of at most {_MOST_SPECS} entries")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise SignatureInvalid("an entry has no type")
    return entries


def _name(entry: dict[str, Any], otherwise: str) -> str:
    name = entry.get("name", otherwise)
    if isinstance(name, int):
        return str(name)[:_LONGEST_NAME]
    if not isinstance(name, str) or "\0" in name:
        raise SignatureInvalid("an entry's name is no text")
    return name[:_LONGEST_NAME] or otherwise


def _column(entry: dict[str, Any]) -> tuple[Datatype, list[int]] | None:
    """A column of a table: one value for each row; an array in it is one dimension more."""
    shape = [-1]
    inner: object = entry
    while isinstance(inner, dict) and inner.get("type") == "array" and len(shape) < _MOST_DIMENSIONS:
        inner = inner.get("items")
        shape.append(-1)
    kind = inner.get("type") if isinstance(inner, dict) else None
    datatype = _COLUMNS.get(kind) if isinstance(kind, str) else None
    return None if datatype is None else (datatype, shape)


def _tensor(entry: dict[str, Any]) -> tuple[Datatype, list[int]] | None:
    spec = entry.get("tensor-spec")
    if not isinstance(spec, dict):
        raise SignatureInvalid("a tensor has no tensor-spec")
    dtype, shape = spec.get("dtype"), spec.get("shape")
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS:
        raise SignatureInvalid("a tensor has no dtype, or no shape")
    if not all(isinstance(size, int) and not isinstance(size, bool) and -1 <= size < 2**31 for size in shape):
        raise SignatureInvalid("a tensor's shape is no list of sizes")
    datatype: Datatype | None = "BYTES" if _TEXT_DTYPE.fullmatch(dtype) else _TENSORS.get(dtype)
    return None if datatype is None else (datatype, shape)


def _kind(entry: dict[str, Any]) -> str:
    if entry["type"] == "tensor":
        return f"the dtype {str(entry['tensor-spec']['dtype'])[:40]!r}"
    if entry["type"] == "array":
        return "an array of that kind"
    return f"the type {entry['type'][:40]!r}"
