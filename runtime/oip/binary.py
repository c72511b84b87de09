"""The binary tensor data extension of the Open Inference Protocol: JSON first, then raw little-endian tensors in order."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from hedgerow.contracts.model import TensorSpec
from runtime.errors import BadBody, BadTensor
from runtime.exchange import Request
from runtime.tensors import DTYPES, Array, describe, in_shape

HEADER_LENGTH = "inference-header-content-length"
_HINT = "Send the JSON part, its length in Inference-Header-Content-Length, then the tensors in the order of the inputs."


class BinaryPart:
    """The raw bytes after the JSON; inputs take their share in order."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self._at = 0

    def take(self, spec: TensorSpec, shape: Sequence[int], size: object) -> Array:
        """The next ``size`` bytes as an array of ``shape``. Raises BadBody or BadTensor."""
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(self.data) - self._at:
            raise BadBody(problem=f"input {spec.name!r} has a binary_data_size that the body does not hold", hint=_HINT)
        part = self.data[self._at : self._at + size]
        self._at += size
        return _array(spec, part, shape)

    def check_used_up(self) -> None:
        """Raises BadBody when bytes are left that no input took."""
        if self._at != len(self.data):
            raise BadBody(problem=f"{len(self.data) - self._at} bytes belong to no input", hint=_HINT)


def split_body(request: Request) -> tuple[bytes | None, BinaryPart]:
    """The JSON part (None: a raw binary request, the body is the tensor) and the rest. Raises BadBody."""
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return request.body, BinaryPart(memoryview(b""))
    # isdigit alone would let through other scripts' digits, which int() reads too.
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) <= len(request.body)):
        raise BadBody(problem="Inference-Header-Content-Length is not a length within it", hint=_HINT)
    view, length = memoryview(request.body), int(text)
    return (bytes(view[:length]) if length else None), BinaryPart(view[length:])


def raw_array(spec: TensorSpec, part: BinaryPart) -> Array:
    """The whole body as the one input of a model; its free length follows from the number of bytes. Raises BadTensor."""
    if spec.datatype == "BYTES":
        return _one_text(spec, part)
    count, left = divmod(len(part.data), DTYPES[spec.datatype].itemsize)
    free = [place for place, length in enumerate(spec.shape) if length == -1]
    # With several free lengths the first is taken for the rows and the others cannot be known.
    fixed = math.prod(length for length in spec.shape if length != -1)
    if left or len(free) > 1 or (free and (not fixed or count % fixed)):
        raise BadTensor(tensor=spec.name, problem=f"{len(part.data)} bytes do not say its shape", wanted=describe(spec))
    shape = [count // fixed if length == -1 else length for length in spec.shape]
    return _array(spec, part.data, shape)


def pack(array: Array) -> bytes:
    """The bytes of an output tensor."""
    if array.dtype != np.object_:
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    items = [item.encode() if isinstance(item, str) else bytes(item) for item in array.flat]
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def _array(spec: TensorSpec, part: memoryview, shape: Sequence[int]) -> Array:
    wanted = DTYPES[spec.datatype]
    flat = _texts(spec, part) if spec.datatype == "BYTES" else None
    count = len(flat) if flat is not None else len(part) / wanted.itemsize
    if any(length < 0 for length in shape) or math.prod(shape) != count:
        raise BadTensor(tensor=spec.name, problem=f"{len(part)} bytes do not fill shape {list(shape)}", wanted=describe(spec))
    if flat is not None:
        return in_shape(spec, np.array(flat, dtype=np.object_), shape)
    given = np.frombuffer(part, dtype=wanted.newbyteorder("<"))
    # onnxruntime wants aligned memory; read-only is no hindrance.
    fits = given.dtype == wanted and given.flags.aligned
    return in_shape(spec, given if fits else given.astype(wanted), shape)


def _one_text(spec: TensorSpec, part: BinaryPart) -> Array:
    """A raw body is one text, without a length before it."""
    if any(length not in (-1, 1) for length in spec.shape):
        raise BadTensor(tensor=spec.name, problem="only one text can be sent raw", wanted=describe(spec))
    try:
        text = bytes(part.data).decode()
    except UnicodeDecodeError:
        raise BadTensor(tensor=spec.name, problem="its text is not UTF-8", wanted=describe(spec)) from None
    return in_shape(spec, np.array([text], dtype=np.object_), [1] * len(spec.shape))


def _texts(spec: TensorSpec, part: memoryview) -> list[str]:
    found, at = [], 0
    try:
        while at < len(part):
            (length,) = struct.unpack_from("<I", part, at)
            if at + 4 + length > len(part):
                raise ValueError("a text ends after the tensor")
            found.append(bytes(part[at + 4 : at + 4 + length]).decode())
            at += 4 + length
    except (struct.error, ValueError):
        raise BadTensor(tensor=spec.name, problem="its texts are not lengths and UTF-8 bytes", wanted=describe(spec)) from None
    return found
