"""Between JSON values, the Open Inference Protocol's datatypes and numpy arrays. Pure; nothing is converted by guess.

JSON carries no type, so a value is taken only where nothing is lost: 1.0 may fill an integer, 1.5 may not; text never
becomes a number; null is NaN in a float tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.contracts.model import Datatype, TensorSpec
from runtime.errors import BadTensor

Array = NDArray[Any]
# numpy's own limit, and what an axis may count even where another is empty.
_MOST_AXES = 64
_LONGEST_AXIS = 2**31
# From here on a float64 does not hold every whole number.
_EXACT_FLOATS = 2.0**53
# Up to so many values, asking each for its type is quicker than asking numpy about all.
_LOOK_AT_EACH = 256

DTYPES: dict[Datatype, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}

# By dtype.char; both of int64's letters, since which one numpy uses differs by platform.
DATATYPES: dict[str, Datatype] = {
    **{dtype.char: name for name, dtype in DTYPES.items()},
    "l": "INT64",
    "q": "INT64",
    "L": "UINT64",
    "Q": "UINT64",
}

ORT_DATATYPES: dict[str, Datatype] = {
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
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}


def describe(spec: TensorSpec) -> str:
    """A spec in words, for error messages: ``FP32 of shape [-1, 9] (-1 is any length)``."""
    note = " (-1 is any length)" if -1 in spec.shape else ""
    return f"{spec.datatype} of shape {spec.shape}{note}" if spec.shape else f"one {spec.datatype} value (a scalar)"


def array_from_json(spec: TensorSpec, data: object, shape: Sequence[int] | None = None) -> Array:
    """The array for one input. ``data`` is a nested list, or a flat one when ``shape`` is given (row-major).

    Raises BadTensor when the values do not fit the datatype or the shape does not fit the model.
    """
    array = _typed(spec, _loose(spec, data))
    if shape is not None:
        if math.prod(shape) != array.size or any(length < 0 for length in shape):
            raise _bad(spec, f"shape {_shown(shape)} does not hold {array.size} values")
        return in_shape(spec, array, shape)
    if array.shape == (0,) and len(spec.shape) > 1 and spec.shape[0] == -1:
        # An empty list of rows says nothing of what a row would hold.
        array = array.reshape([0, *[max(length, 0) for length in spec.shape[1:]]])
    check_shape(spec, array.shape)
    return array


def in_shape(spec: TensorSpec, array: Array, shape: Sequence[int]) -> Array:
    """``array`` with as many values in ``shape``, which the model must take. Raises BadTensor."""
    # Before numpy sees it: it knows neither 65 axes nor lengths beyond 63 bits.
    check_shape(spec, shape)
    if len(shape) > _MOST_AXES or max(shape, default=0) > _LONGEST_AXIS:
        raise _bad(spec, f"its shape {_shown(shape)} is larger than any tensor's")
    return array.reshape(shape)


def check_shape(spec: TensorSpec, shape: Sequence[int]) -> None:
    """Raises BadTensor unless ``shape`` has the model's rank and its fixed lengths.

    onnxruntime says ``[]`` both for a scalar and for an unknown rank: there it judges the shape itself.
    """
    if not spec.shape:
        return
    fits = len(shape) == len(spec.shape) and all(want in (-1, have) for want, have in zip(spec.shape, shape, strict=True))
    if not fits:
        raise _bad(spec, f"it has shape {_shown(shape)}")


def values_of(output: object) -> object:
    """An output as JSON values: arrays become nested lists, bytes become text; maps and sequences stay what they are."""
    if isinstance(output, np.ndarray):
        values: object = output.tolist()
        return _texts(values) if output.dtype == np.object_ else values
    if isinstance(output, list):
        return [values_of(item) for item in output]
    if isinstance(output, dict):
        return {key: values_of(value) for key, value in output.items()}
    return output.item() if isinstance(output, np.generic) else output


def rows_of(array: Array) -> int:
    """How many rows an input counts as: its leading length; 1 for a scalar."""
    return int(array.shape[0]) if array.ndim else 1


def _shown(shape: Sequence[int]) -> str:
    return str(list(shape)) if len(shape) <= 8 else f"of {len(shape)} axes"


def _loose(spec: TensorSpec, data: object) -> Array:
    if spec.datatype == "BYTES":
        return _loose_texts(spec, data)
    try:
        loose = np.asarray(data)
    except (ValueError, OverflowError, TypeError):
        raise _uneven(spec, data) from None
    if loose.dtype == np.object_:
        return _with_nan_for_null(spec, loose)
    if loose is not data and loose.dtype.kind in "fiu" and _holds_bool(data, loose):
        raise _bad(spec, "it has true or false among its numbers")
    if loose.dtype.kind == "f" and DTYPES[spec.datatype].kind in "iu" and _beyond_exact(loose):
        return _exact(spec, data)
    # An empty list has no type of its own; numpy calls it float.
    return loose if loose.size else loose.astype(DTYPES[spec.datatype])


def _holds_bool(data: object, loose: Array) -> bool:
    """Whether one of the numbers was true or false: numpy takes those for 1 and 0, so elsewhere there is nothing to look for."""
    if loose.size > _LOOK_AT_EACH and not np.any((loose == 0) | (loose == 1)):
        return False
    return _any_bool(data)


def _any_bool(data: object) -> bool:
    if not isinstance(data, list):
        return isinstance(data, bool)
    if data and isinstance(data[0], list):
        return any(map(_any_bool, data))
    return bool in set(map(type, data))


def _uneven(spec: TensorSpec, data: object) -> BadTensor:
    """Why lists are no array. numpy's own words ("inhomogeneous shape after 1 dimensions") say little to a caller."""
    depth = 0
    while isinstance(data, list) and data:
        data, depth = data[0], depth + 1
    if depth > _MOST_AXES:
        return _bad(spec, f"its lists are nested {depth} deep; a tensor has {_MOST_AXES} axes at most")
    return _bad(spec, "its rows have different lengths")


def _beyond_exact(loose: Array) -> bool:
    """Whether floats are so large that whole numbers beside them may have been rounded."""
    return bool(np.any(np.abs(loose) >= _EXACT_FLOATS))


def _exact(spec: TensorSpec, data: object) -> Array:
    """Whole numbers that no one type of numpy's holds together (0 and 2**64 - 1): told one by one."""
    loose = np.array(data, dtype=np.object_)
    items: list[int | float] = loose.ravel().tolist()
    if any(isinstance(item, float) and not item.is_integer() for item in items):
        raise _bad(spec, "it has numbers that are not whole")
    values = [int(item) for item in items]
    wanted = DTYPES[spec.datatype]
    limits = np.iinfo(wanted)
    if not all(limits.min <= value <= limits.max for value in values):
        raise _bad(spec, f"a number is out of range ({limits.min} to {limits.max})")
    return np.array(values, dtype=wanted).reshape(loose.shape)


def _loose_texts(spec: TensorSpec, data: object) -> Array:
    """Texts keep their exact type only in an object array; numpy would pad or turn 1 into '1'."""
    try:
        loose = np.array(data, dtype=np.object_)
    except ValueError:
        raise _uneven(spec, data) from None
    # Not by its flat: that knows 32 axes only.
    kinds: set[type] = set(map(type, loose.ravel().tolist()))
    if kinds - {str}:
        if list in kinds:
            raise _uneven(spec, data)
        raise _bad(spec, "it has values that are not text")
    return loose


def _with_nan_for_null(spec: TensorSpec, loose: Array) -> Array:
    """Also whole numbers beyond 64 bits: JavaScript and Go write 1e20 as one."""
    items = loose.ravel().tolist()
    kinds = set(map(type, items))
    if kinds <= {int, float, type(None)} and spec.datatype.startswith("FP"):
        try:
            floats = [math.nan if item is None else float(item) for item in items]
        except OverflowError:
            raise _bad(spec, "a number is out of range") from None
        return np.array(floats, dtype=np.float64).reshape(loose.shape)
    if list in kinds:
        raise _bad(spec, "its rows have different lengths")
    if kinds <= {int, float}:
        raise _bad(spec, "a number is out of range")
    names = sorted("null" if kind is type(None) else kind.__name__ for kind in kinds)
    raise _bad(spec, f"it has values of type {', '.join(names)}")


def _typed(spec: TensorSpec, loose: Array) -> Array:
    wanted = DTYPES[spec.datatype]
    if loose.dtype == wanted:
        return loose
    if wanted.kind == "f":
        if loose.dtype.kind not in "fiu":
            raise _bad(spec, f"it has {_kind_name(loose)} where numbers are wanted")
        with np.errstate(over="ignore"):
            # By way of float64, as every number of JSON: whoever reads them one by one (row_form.py) gets the same.
            return loose.astype(np.float64).astype(wanted)
    if wanted.kind == "b":
        raise _bad(spec, f"it has {_kind_name(loose)} where true or false is wanted")
    return _integers(spec, loose, wanted)


def _integers(spec: TensorSpec, loose: Array, wanted: np.dtype[Any]) -> Array:
    if loose.dtype.kind not in "fiu":
        raise _bad(spec, f"it has {_kind_name(loose)} where whole numbers are wanted")
    # Some JSON writers send 3.0 for 3; anything after the point would be lost.
    if loose.dtype.kind == "f" and not bool(np.all(np.isfinite(loose) & (np.trunc(loose) == loose))):
        raise _bad(spec, "it has numbers that are not whole")
    limits = np.iinfo(wanted)
    # Python's integers compare exactly with floats; numpy would round the limits of 64 bits up.
    if loose.size and not (limits.min <= loose.min().item() and loose.max().item() <= limits.max):
        raise _bad(spec, f"a number is out of range ({limits.min} to {limits.max})")
    return loose.astype(wanted)


def _kind_name(array: Array) -> str:
    return {"U": "text", "b": "true or false", "f": "numbers", "i": "numbers", "u": "numbers"}.get(
        array.dtype.kind, "other values"
    )


def _texts(values: object) -> object:
    if isinstance(values, list):
        return [_texts(value) for value in values]
    return values.decode("utf-8", "replace") if isinstance(values, bytes) else values


def _bad(spec: TensorSpec, problem: str) -> BadTensor:
    return BadTensor(tensor=spec.name, problem=problem, wanted=describe(spec))
