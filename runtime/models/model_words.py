"""A loaded model in the words of its documents: JSON Schemas of what ``/score`` takes and answers, an example that scores. Pure.

The example is an input that the model was seen to take while it was tried out (warm_up.py), and the answer that it gave. Models
whose examples would be long (images) have none; their documents say how to make one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hedgerow.contracts.model import TensorSpec
from runtime.models.loaded_model import LoadedModel
from runtime.tensors import Array, values_of

_MOST_VALUES = 4096
# Made-up inputs have three (sample_inputs.py).
_DECIMALS = 6
_KINDS: Mapping[str, Mapping[str, object]] = {
    "BOOL": {"type": "boolean"},
    "BYTES": {"type": "string"},
    "FP16": {"type": "number", "format": "float"},
    "FP32": {"type": "number", "format": "float"},
    "FP64": {"type": "number", "format": "double"},
    "INT64": {"type": "integer", "format": "int64"},
    "UINT64": {"type": "integer", "minimum": 0},
    "UINT32": {"type": "integer", "format": "int64", "minimum": 0},
}
_SMALL_WHOLE: Mapping[str, object] = {"type": "integer", "format": "int32"}


def model_declares(model: LoadedModel) -> dict[str, object]:
    """Input and output as aml/swagger.py wants them declared."""
    return {"input": input_schema(model), "output": output_schema(model)}


def input_schema(model: LoadedModel) -> dict[str, object]:
    """One of the forms that ``/score`` takes, the one that the example has."""
    if len(model.inputs) == 1 and not model.optional:
        key, values = "data", _tensor(model.inputs[0])
    else:
        key = "inputs"
        values = {"type": "object", "properties": {spec.name: _tensor(spec) for spec in model.specs.values()}}
        if model.inputs:
            values["required"] = [spec.name for spec in model.inputs]
    schema: dict[str, object] = {"type": "object", "properties": {key: values}, "required": [key]}
    body = score_example(model)
    if body is not None:
        schema["example"] = body
    else:
        schema["description"] = how_to_make_one(model)
    return schema


def output_schema(model: LoadedModel) -> dict[str, object]:
    """A list where the model has one output, else an object of them."""
    kinds = {spec.name: _output(model, spec) for spec in model.outputs}
    schema: dict[str, object] = {"type": "object", "properties": kinds}
    if len(kinds) == 1:
        schema = next(iter(kinds.values()))
    outputs = model.example_outputs
    if outputs is not None and _count(outputs) <= _MOST_VALUES:
        values = {name: values_of(value) for name, value in outputs.items()}
        schema["example"] = _plain_json(next(iter(values.values())) if len(values) == 1 else values)
    return schema


def score_example(model: LoadedModel) -> dict[str, object] | None:
    """A body for ``/score``; None when none is known or it would be long."""
    if model.example is None or _count(model.example) > _MOST_VALUES:
        return None
    values = {name: _written(array) for name, array in model.example.items()}
    if len(values) == 1 and not model.optional:
        return {"data": next(iter(values.values()))}
    return {"inputs": values}


def infer_example(model: LoadedModel) -> dict[str, object] | None:
    """The same for ``/v2/models/NAME/infer``; None as well where a tensor has no form in JSON (runtime/oip/messages.py)."""
    if model.example is None or _count(model.example) > _MOST_VALUES:
        return None
    if any(spec.datatype == "FP16" for spec in (*model.inputs, *model.outputs)):
        return None
    return {"inputs": [_infer_input(model.specs[name], array) for name, array in model.example.items()]}


def how_to_make_one(model: LoadedModel) -> str:
    """In words, where an example would be too long or none was found."""
    if model.example is None:
        return "No input is known that this model takes: none was recorded, and it refused those that were made up."
    arrays = ", ".join(f"{name!r}: numpy.zeros({array.shape}, {array.dtype.name!r})" for name, array in model.example.items())
    return f"An example would be long. Make one with {{{arrays}}}; sent as binary tensors to /v2 it is several times quicker."


def _infer_input(spec: TensorSpec, array: Array) -> dict[str, object]:
    return {"name": spec.name, "shape": list(array.shape), "datatype": spec.datatype, "data": _written(array.reshape(-1))}


def _written(array: Array) -> object:
    """An input as a person would write it: 1.02, not 1.0199999809265137, its nearest 32-bit float. Read again, it is the same."""
    return values_of(array.astype(np.float64).round(_DECIMALS) if array.dtype.kind == "f" else array)


def _tensor(spec: TensorSpec) -> dict[str, object]:
    schema: dict[str, object] = dict(_KINDS.get(spec.datatype, _SMALL_WHOLE))
    for length in reversed(spec.shape):
        schema = {"type": "array", "items": schema}
        if length != -1:
            schema |= {"minItems": length, "maxItems": length}
    return schema


def _output(model: LoadedModel, spec: TensorSpec) -> dict[str, object]:
    if spec.name in model.maps:
        return {"type": "array", "items": {"type": "object"}}
    # No shape means a scalar or any shape, and NaN and infinities have no type in a schema.
    return _tensor(spec) if spec.shape and spec.name not in model.no_tensors else {}


def _count(values: Mapping[str, object]) -> int:
    return sum(_size(value) for value in values.values())


def _size(value: object) -> int:
    if isinstance(value, Mapping):
        return _count(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return sum(_size(item) for item in value)
    return int(getattr(value, "size", 1))


def _plain_json(value: object) -> object:
    """Documents are strict JSON: no NaN, no infinities, and names that are text."""
    if isinstance(value, list):
        return [_plain_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain_json(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
