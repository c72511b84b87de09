"""Rows of numbers for a model that takes just these: kept as they were read until the run, then made one array for all.

Making an array costs about the same for one row as for thirty, so requests that share a run share that, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np

from hedgerow.contracts.model import Datatype, TensorSpec
from runtime.tensors import DTYPES, Array

# One request's rows: their numbers one row after another, or little-endian bytes of the model's own datatype.
Values = list[float] | list[int] | memoryview

# Of the others, FP16 has no JSON form in one of the contracts, and 64 bits without a sign are beyond msgspec's limits.
_FLOATS: frozenset[Datatype] = frozenset({"FP32", "FP64"})
_WHOLE: frozenset[Datatype] = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32"})


@dataclass(frozen=True)
class RowForm:
    """The one input of a model, rows of ``width`` numbers each."""

    name: str
    datatype: Datatype
    width: int

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.datatype]

    @cached_property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    def array(self, requests: Sequence[Values]) -> Array:
        """The rows of all requests, in order: shape [rows, width]."""
        first = requests[0]
        kinds = {type(values) for values in requests} if len(requests) > 1 else {type(first)}
        if len(kinds) > 1:
            return np.concatenate([self.array([values]) for values in requests])
        if isinstance(first, memoryview):
            # Copied even where there is one: it stands behind JSON of any length, and onnxruntime wants aligned memory.
            data = b"".join(requests)  # type: ignore[arg-type]  # all of one kind
            return np.frombuffer(data, self.dtype.newbyteorder("<")).reshape(-1, self.width)
        numbers = first if len(requests) == 1 else list(chain.from_iterable(requests))
        if self.datatype != "FP32":
            return np.array(numbers, self.dtype).reshape(-1, self.width)
        with np.errstate(over="ignore"):
            return np.array(numbers, np.float64).astype(np.float32).reshape(-1, self.width)


def number_of(datatype: Datatype) -> Any:  # noqa: ANN401 - a type for msgspec, which has no type for types
    """What msgspec reads one number of JSON as: nothing but what the datatype holds."""
    if datatype in _FLOATS:
        return float
    limits = np.iinfo(DTYPES[datatype])
    return Annotated[int, msgspec.Meta(ge=int(limits.min), le=int(limits.max))]


def row_form(inputs: Sequence[TensorSpec]) -> RowForm | None:
    """The form of a model's rows; None where it takes something else."""
    if len(inputs) != 1:
        return None
    spec = inputs[0]
    if spec.datatype not in _FLOATS | _WHOLE or len(spec.shape) != 2 or spec.shape[0] != -1 or spec.shape[1] < 1:
        return None
    return RowForm(spec.name, spec.datatype, spec.shape[1])
