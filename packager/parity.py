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

    Raises VerificationFailed for an output that is missing or has another number of values.
    """
    largest, within = None, True
    for name, array in parity.outputs.items():
        expected = array[first:last].ravel()
        found = answer.get(name)
        if found is None or len(found) != expected.size:
            count = "none" if found is None else str(len(found))
            raise VerificationFailed(problem=f"output {name!r} should have {expected.size} values and has {count}")
        if expected.dtype.kind in "biufc":
            numbers = np.asarray(found, dtype=np.float64)
            wanted = expected.astype(np.float64)
            error = float(np.max(np.abs(numbers - wanted), initial=0.0))
            largest = error if largest is None else max(largest, error)
            within &= bool(np.isclose(numbers, wanted, rtol=parity.rtol, atol=parity.atol, equal_nan=True).all())
        else:
            within &= [str(value) for value in found] == [str(value) for value in expected.tolist()]
    return Difference(largest, within)
