"""A model's outputs as the answer to an infer request: JSON, the binary tensor extension, the classification extension. Pure.

NaN and infinities are written as null (JSON has no word for them). Sequences of maps are told as a tensor rows x keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from runtime.errors import BadBody
from runtime.exchange import Response
from runtime.large_json.writing import flat_values
from runtime.models.errors import ModelFailed
from runtime.models.loaded_model import LoadedModel
from runtime.models.outputs import RunOutputs, Share
from runtime.oip.binary import HEADER_LENGTH, pack
from runtime.oip.messages import InferRequest
from runtime.tensors import DATATYPES, Array

BINARY_TYPE = "application/octet-stream"
_HALF, _TEXTS = np.dtype(np.float16).char, np.dtype(np.object_).char


def infer_answer(model: LoadedModel, asked: InferRequest, share: Share) -> Response:
    """The whole answer, of a request's share of a run. Raises ModelFailed or BadBody."""
    # Requests that ask in the same words and bring as many rows differ in nothing but their tensors' bytes. ``asked`` lives as
    # long as whoever shares the run, so nothing else has its identity.
    key = (id(asked), share.rows)
    if (known := share.whole.forms.get(key)) is not None:
        return _in_form(known, share)
    if _classifies(asked) or not all(map(_is_tensor, share.whole.values.values())):
        share = Share(RunOutputs(arrays_of(model.name, asked, share.values())))
    arrays: Mapping[str, Array] = share.whole.values  # type: ignore[assignment]  # see above
    default = asked.parameters.get("binary_data_output") is True
    in_binary = {wanted.name: wanted.parameters.get("binary_data", default) is True for wanted in asked.outputs}
    outputs, binary = [], []
    for name, array in arrays.items():
        kind = array.dtype.char
        output: dict[str, object] = {"name": name, "datatype": DATATYPES[kind], "shape": share.shape(array)}
        if in_binary.get(name, default):
            binary.append(share.raw(name, array) if kind != _TEXTS else pack(share.part(array)))
            output["parameters"] = {"binary_data_size": len(binary[-1])}
        elif kind == _HALF:
            raise BadBody(problem=f"output {name!r} is FP16, which has no form in JSON", hint="Ask for it with binary_data.")
        else:
            output["data"] = flat_values(share.part(array)) if share.whole.large else share.flat(name, array)
        outputs.append(output)
    body: dict[str, object] = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    if asked.id is not None:
        body["id"] = asked.id
    head = _encoded(model.name, body)
    if not binary:
        return Response(200, head)
    headers = {HEADER_LENGTH: str(len(head))}
    if len(binary) == len(outputs) and all(array.dtype.char != _TEXTS for array in arrays.values()):
        share.whole.forms[key] = (head, headers, arrays)
    return Response(200, b"".join((head, *binary)), BINARY_TYPE, headers)


def _in_form(form: tuple[bytes, dict[str, str], Mapping[str, Array]], share: Share) -> Response:
    head, headers, arrays = form
    return Response(200, head + b"".join([share.raw(name, array) for name, array in arrays.items()]), BINARY_TYPE, headers)


def _classifies(asked: InferRequest) -> bool:
    return any(wanted.parameters.get("classification") for wanted in asked.outputs)


def _is_tensor(value: object) -> bool:
    return type(value) is np.ndarray and value.dtype.char in DATATYPES


def arrays_of(model: str, asked: InferRequest, values: Mapping[str, object]) -> dict[str, Array]:
    """The outputs as arrays, classified where that was asked for. Raises ModelFailed or BadBody."""
    arrays = {name: tensor_of(model, value) for name, value in values.items()}
    for wanted in asked.outputs:
        if wanted.parameters and (count := wanted.parameters.get("classification", 0)):
            arrays[wanted.name] = classified(wanted.name, arrays[wanted.name], count)
    return arrays


def tensor_of(model: str, value: object) -> Array:
    """An output as one array. A list of maps becomes rows x keys (in the order of the first row's keys).

    Raises ModelFailed for a sequence whose parts do not fit together.
    """
    if _is_tensor(value):
        return value  # type: ignore[return-value]  # an array, then
    try:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            keys = list(value[0])
            value = np.array([[row[key] for key in keys] for row in value], dtype=np.float32)
        elif isinstance(value, list):
            value = np.stack([np.asarray(item) for item in value]) if value else np.array([], dtype=np.float32)
        array = np.asarray(value)
    except (KeyError, TypeError, ValueError):
        raise ModelFailed(model=model) from None
    return array if array.dtype.char in DATATYPES else array.astype(np.object_)


def classified(name: str, array: Array, count: int) -> Array:
    """The ``count`` largest values of each row as texts ``value:index``, largest first. Raises BadBody."""
    if array.dtype.kind not in "fiub" or not array.ndim:
        raise BadBody(problem=f"output {name!r} has no classes", hint="Ask for it without classification.")
    classes = math.prod(array.shape[1:]) if array.ndim > 1 else len(array)
    rows = array.reshape(len(array) if array.ndim > 1 else 1, classes)
    # Sorted from the end, so that of equal values the first comes first.
    places = classes - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    shown = "{:f}:{}" if array.dtype.kind == "f" else "{:d}:{}"
    texts = [[shown.format(row[place], place) for place in best] for row, best in zip(rows, places.tolist(), strict=True)]
    shape = (len(array), min(count, classes)) if array.ndim > 1 else (min(count, classes),)
    return np.array(texts, dtype=np.object_).reshape(shape)


def _encoded(model: str, body: Mapping[str, object]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, UnicodeError, msgspec.MsgspecError):
        # Texts that are no UTF-8, or an output of a kind that no tensor has.
        raise ModelFailed(model=model) from None
