"""Between the tensors of gRPC messages and arrays. Pure.

Raw contents are the bytes of the binary tensor extension. Typed contents have a field for each family of types; FP16 has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from hedgerow.contracts.model import TensorSpec
from runtime.errors import BadBody, BadTensor
from runtime.models.loaded_model import LoadedModel
from runtime.oip.binary import BinaryPart
from runtime.oip.messages import check_datatype
from runtime.tensors import DATATYPES, DTYPES, Array, describe, in_shape

Message = Any
# Which field of typed contents a datatype is in.
FIELDS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def feeds_from(model: LoadedModel, request: Message) -> dict[str, Array]:
    """The inputs of a ModelInferRequest by name. Raises BadTensorNames, BadTensor or BadBody."""
    given, raw = request.inputs, request.raw_input_contents
    model.check_names([one.name for one in given])
    if raw and len(raw) != len(given):
        hint = "Send one for each input, in their order, or none at all."
        raise BadBody(problem=f"it has {len(given)} inputs and {len(raw)} raw_input_contents", hint=hint)
    specs = model.specs
    feeds = {}
    for place, one in enumerate(given):
        spec, shape = specs[one.name], list(one.shape)
        check_datatype(spec, one.datatype)
        if raw:
            if one.HasField("contents"):
                raise BadBody(problem=f"input {one.name!r} has both contents and raw_input_contents", hint="Send one of them.")
            feeds[one.name] = BinaryPart(memoryview(raw[place])).take(spec, shape, len(raw[place]))
        else:
            feeds[one.name] = _typed(spec, one.contents, shape)
    return feeds


def fill_outputs(response: Message, arrays: dict[str, Array], pack: Any, *, raw: bool) -> None:  # noqa: ANN401 - oip_binary.pack
    """Add outputs to a ModelInferResponse: raw where the request was raw, or where a type has no typed field."""
    raw = raw or any(array.dtype == np.float16 for array in arrays.values())
    for name, array in arrays.items():
        datatype = DATATYPES[array.dtype.char]
        output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            response.raw_output_contents.append(pack(array))
        elif datatype == "BYTES":
            output.contents.bytes_contents.extend(_bytes(item) for item in array.flat)
        else:
            getattr(output.contents, FIELDS[datatype]).extend(array.ravel().tolist())


def _typed(spec: TensorSpec, contents: Message, shape: Sequence[int]) -> Array:
    if spec.datatype not in FIELDS:
        problem = f"{spec.datatype} has no typed contents, send it as raw_input_contents"
        raise BadTensor(tensor=spec.name, problem=problem, wanted=describe(spec))
    values = getattr(contents, FIELDS[spec.datatype])
    if any(length < 0 for length in shape) or math.prod(shape) != len(values):
        problem = f"shape {shape} does not hold the {len(values)} values of {FIELDS[spec.datatype]}"
        raise BadTensor(tensor=spec.name, problem=problem, wanted=describe(spec))
    wanted = DTYPES[spec.datatype]
    if spec.datatype == "BYTES":
        return in_shape(spec, _texts(spec, values), shape)
    # Small whole numbers travel in 32 bits.
    loose = np.array(values, dtype=np.int64 if wanted.kind in "iu" and wanted.itemsize < 8 else wanted)
    if wanted.kind in "iu" and loose.size:
        limits = np.iinfo(wanted)
        if not limits.min <= loose.min().item() <= loose.max().item() <= limits.max:
            problem = f"a number is out of range ({limits.min} to {limits.max})"
            raise BadTensor(tensor=spec.name, problem=problem, wanted=describe(spec))
    return in_shape(spec, loose.astype(wanted), shape)


def _texts(spec: TensorSpec, values: Sequence[bytes]) -> Array:
    try:
        return np.array([value.decode() for value in values], dtype=np.object_)
    except UnicodeDecodeError:
        raise BadTensor(tensor=spec.name, problem="its texts are not UTF-8", wanted=describe(spec)) from None


def _bytes(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()
