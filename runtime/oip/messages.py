"""What an infer request asks, in the words of the Open Inference Protocol: read, checked, and turned into arrays.

JSON here is msgspec's, strict; null in a float input is NaN. FP16 has no JSON form, as in Triton: it is sent in binary.
Pure, but for the JSON parts of binary requests, which are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from hedgerow.contracts.model import Datatype, TensorSpec
from runtime.errors import BadBody, BadTensor
from runtime.exchange import Request
from runtime.large_json.reading import read_large
from runtime.models.errors import NoSharedMemory
from runtime.models.loaded_model import LoadedModel
from runtime.models.model_lane import INLINE_BYTES
from runtime.models.row_form import RowForm, Values, number_of
from runtime.oip.binary import HEADER_LENGTH, BinaryPart, raw_array, split_body
from runtime.tensors import Array, array_from_json, describe

_HINT = 'Send {"inputs": [{"name", "shape", "datatype", "data"}]}.'
_MOST_CLASSES = 1_000_000


class InferInput(msgspec.Struct):
    """One input of a request; without ``data`` its values are in the binary part."""

    name: str
    datatype: str
    shape: list[int]
    data: Any = msgspec.UNSET
    parameters: dict[str, Any] = {}


class InferWanted(msgspec.Struct):
    """One output that a request asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """The JSON part of an infer request."""

    inputs: list[InferInput]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[InferWanted] = []


_decoder = msgspec.json.Decoder(InferRequest)
# The JSON part of a binary request says names and shapes: the same again and again. Nobody changes what was read.
_read_before: dict[bytes, InferRequest] = {}
_MOST_READ = 1024
_MOST_READ_BYTES = 1024


def rows_from(model: LoadedModel, form: RowForm, request: Request) -> tuple[InferRequest, Values, int] | None:
    """What most callers send, read with one call: one input with all its rows, and the outputs they want.

    The JSON part, the numbers and how many rows. None where it is anything else: that is not wrong, :func:`understand` reads it.
    """
    if HEADER_LENGTH in request.headers:
        return _binary_rows(model, form, request)
    try:
        asked: InferRequest = _row_decoder(form.datatype).decode(request.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if len(asked.inputs) != 1 or asked.outputs:
        return None
    given = asked.inputs[0]
    rows = _rows_of(form, given)
    if not rows or given.parameters or len(given.data) != rows * form.width:
        return None
    return asked, given.data, rows


def _binary_rows(model: LoadedModel, form: RowForm, request: Request) -> tuple[InferRequest, Values, int] | None:
    length, body = request.headers[HEADER_LENGTH], request.body
    if not (length.isascii() and length.isdigit() and 0 < len(length) < 8):
        return None
    asked = _read_before.get(body[: int(length)])
    if asked is None or len(asked.inputs) != 1:
        return None
    given = asked.inputs[0]
    rows, size = _rows_of(form, given), len(body) - int(length)
    if not rows or size != rows * form.row_bytes or given.data is not msgspec.UNSET:
        return None
    if given.parameters.get("binary_data_size") != size or len(given.parameters) != 1:
        return None
    for wanted in asked.outputs:
        # It was another model's, perhaps.
        if wanted.name not in model.output_names or wanted.parameters.keys() - {"binary_data"}:
            return None
    return asked, memoryview(body)[int(length) :], rows


def _rows_of(form: RowForm, given: InferInput) -> int:
    """How many rows an input says that it has; 0 when it is not what the form takes."""
    shape = given.shape
    fits = len(shape) == 2 and shape[1] == form.width and given.name == form.name and given.datatype == form.datatype
    return shape[0] if fits and shape[0] > 0 else 0


@lru_cache(maxsize=16)
def _row_decoder(datatype: Datatype) -> msgspec.json.Decoder[Any]:
    number: Any = number_of(datatype)
    given: Any = msgspec.defstruct("RowsInput", [("data", list[number])], bases=(InferInput,), kw_only=True)
    asked = msgspec.defstruct("RowsRequest", [("inputs", list[given])], bases=(InferRequest,), kw_only=True)
    return msgspec.json.Decoder(asked)


def understand(model: LoadedModel, request: Request) -> tuple[InferRequest, dict[str, Array]]:
    """The JSON part and the inputs. Raises BadBody, BadTensor, BadTensorNames or NoSharedMemory."""
    head, binary = split_body(request)
    if head is None:
        if len(model.inputs) != 1:
            raise BadBody(problem="a raw binary request has one tensor", hint=f"Model {model.name} has several inputs.")
        spec = model.inputs[0]
        return InferRequest([], parameters={"binary_data_output": True}), {spec.name: raw_array(spec, binary)}
    asked = _read(model, head)
    feeds = feeds_from(model, asked.inputs, binary)
    if asked.outputs:
        model.check_names(feeds, [wanted.name for wanted in asked.outputs])
        check_wanted(asked.outputs)
    if len(head) <= _MOST_READ_BYTES and HEADER_LENGTH in request.headers:
        if len(_read_before) >= _MOST_READ:
            _read_before.clear()
        _read_before[head] = asked
    return asked, feeds


def feeds_from(model: LoadedModel, inputs: Sequence[InferInput], binary: BinaryPart) -> dict[str, Array]:
    """Arrays by input name. Raises BadTensorNames, BadTensor, BadBody or NoSharedMemory."""
    specs = model.specs
    if len(specs) != 1 or len(inputs) != 1 or inputs[0].name not in specs:
        model.check_names([given.name for given in inputs])
    feeds = {given.name: _array(specs[given.name], given, binary) for given in inputs}
    binary.check_used_up()
    return feeds


def check_wanted(wanted: Sequence[InferWanted]) -> None:
    """Raises BadBody or NoSharedMemory for parameters of outputs that cannot be followed."""
    for output in wanted:
        parameters = output.parameters
        if not parameters:
            continue
        if "shared_memory_region" in parameters:
            raise NoSharedMemory
        count = parameters.get("classification", 0)
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= _MOST_CLASSES:
            raise BadBody(problem=f"output {output.name!r} has classification {count!r}", hint="It is a number of classes.")


def check_datatype(spec: TensorSpec, datatype: str) -> None:
    """Raises BadTensor when an input is sent as another type than the model takes."""
    if datatype != spec.datatype:
        raise BadTensor(tensor=spec.name, problem=f"it is sent as {datatype}", wanted=describe(spec))


def _read(model: LoadedModel, head: bytes) -> InferRequest:
    if len(head) > INLINE_BYTES and (asked := _read_large(model, head)) is not None:
        return asked
    try:
        return _decoder.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:  # ValidationError is one of the first
        raise BadBody(problem=problem, hint=_HINT) from None
    except RecursionError:
        raise BadBody(problem="it is nested too deep", hint=_HINT) from None


def _read_large(model: LoadedModel, head: bytes) -> InferRequest | None:
    """The same, with arrays for long lists of data; None when it is not as regular as that."""
    found = read_large(head, _decoder.decode, (b"null",) if model.all_floats else ())
    if found is None:
        return None
    asked, lists = found
    for given in asked.inputs:
        if isinstance(given.data, str):
            given.data = lists.pop(given.data, given.data)
    return None if lists else asked


def _array(spec: TensorSpec, given: InferInput, binary: BinaryPart) -> Array:
    check_datatype(spec, given.datatype)
    if given.parameters:
        if "binary_data_size" in given.parameters:
            return binary.take(spec, given.shape, given.parameters["binary_data_size"])
        if "shared_memory_region" in given.parameters:
            raise NoSharedMemory
    if given.data is msgspec.UNSET:
        raise BadTensor(tensor=spec.name, problem="it has no data", wanted=describe(spec))
    if spec.datatype == "FP16":
        problem = "FP16 has no form in JSON, send it as binary data"
        raise BadTensor(tensor=spec.name, problem=problem, wanted=describe(spec))
    return array_from_json(spec, given.data, given.shape)
