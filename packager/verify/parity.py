"""Parity vectors: recorded inputs and the trained model's answers to them, and how ours are compared with those."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hedgerow.contracts.document import decode
from hedgerow.contracts.image import PARITY_FILE
from hedgerow.contracts.proof import PARITY_INDEX_FILE, ParityIndex
from hedgerow.errors import HedgerowError
from packager.errors import VerificationFailed

Array = npt.NDArray[Any]
_DATATYPES = {
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "bool": "BOOL",
}


@dataclass(frozen=True)
class Parity:
    """Arrays by tensor name; the first axis of each counts the rows."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    atol: float
    rtol: float

    @property
    def rows(self) -> int:
        """How many there are; a scalar input counts for all of them."""
        arrays = (*self.inputs.values(), *self.outputs.values())
        return min((len(array) for array in arrays if array.ndim), default=0)


@dataclass(frozen=True)
class Difference:
    """The largest absolute difference of numbers (None: nothing numeric was compared), and whether all was in tolerance."""

    max_abs_error: float | None
    within: bool


def read_parity(folder: Path) -> Parity:
    """The vectors in a model's folder; arrays are never unpickled. Raises VerificationFailed when they cannot be used."""
    try:
        index = decode((folder / PARITY_INDEX_FILE).read_bytes(), ParityIndex)
        with np.load(folder / PARITY_FILE, allow_pickle=False) as arrays:
            inputs = {name: arrays[f"input_{number}"] for number, name in enumerate(index.inputs)}
            outputs = {name: arrays[f"output_{number}"] for number, name in enumerate(index.outputs)}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, HedgerowError) as problem:
        raise VerificationFailed(problem=f"its parity vectors in {folder} cannot be read ({problem})") from problem
    return Parity(inputs, outputs, index.atol, index.rtol)


def request_body(parity: Parity, first: int, last: int) -> dict[str, object]:
    """The rows from ``first`` up to ``last`` as a request of the Open Inference Protocol."""
    inputs = []
    for name, array in parity.inputs.items():
        one = array[first:last] if array.ndim else array
        datatype = _DATATYPES.get(str(one.dtype), "BYTES")
        inputs.append({"name": name, "shape": list(one.shape), "datatype": datatype, "data": one.ravel().tolist()})
    return {"inputs": inputs}


def compare_answer(parity: Parity, first: int, last: int, answer: dict[str, list[object]]) -> Difference:
    """Compare the flat outputs of one answer with the recorded ones of its rows.

    Raises VerificationFailed for an output that is missing, has another number of values, or others than numbers.
    """
    largest: float | None = None
    within = True
    for name, array in parity.outputs.items():
        expected = array[first:last].ravel()
        found = answer.get(name)
        if found is None or len(found) != expected.size:
            count = "none" if found is None else str(len(found))
            raise VerificationFailed(problem=f"output {name!r} should have {expected.size} values and has {count}")
        if expected.dtype.kind in "biufc":
            numbers = _numbers(name, found)
            wanted = expected.astype(np.float64)
            close = np.isclose(numbers, wanted, rtol=parity.rtol, atol=parity.atol, equal_nan=True)
            largest = max(largest or 0.0, _largest_error(numbers, wanted, close))
            within &= bool(close.all())
        else:
            within &= [str(value) for value in found] == [str(value) for value in expected.tolist()]
    return Difference(largest, within)


def _numbers(name: str, found: list[object]) -> Array:
    """JSON has no NaN, so null stands for it."""
    for value in found:
        if value is not None and not isinstance(value, int | float):
            raise VerificationFailed(problem=f"output {name!r} should be numbers and has {str(value)[:100]!r} in it")
    try:
        return np.asarray(found, dtype=np.float64)
    except OverflowError as problem:
        raise VerificationFailed(problem=f"output {name!r} has a number that no model answers ({problem})") from problem


def _largest_error(numbers: Array, wanted: Array, close: npt.NDArray[np.bool_]) -> float:
    """Two NaN or two equal infinities agree; one alone is an error without a size, told as the largest number there is."""
    with np.errstate(invalid="ignore"):
        errors = np.abs(numbers - wanted)
    sizes = np.where(close & ~np.isfinite(errors), 0.0, np.nan_to_num(errors, nan=np.inf))
    return min(float(np.max(sizes, initial=0.0)), float(np.finfo(np.float64).max))
