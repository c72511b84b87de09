"""What a model is proven on: recorded parity vectors, or made-up ones where none were recorded."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hedgerow.contracts.document import decode
from hedgerow.contracts.image import PARITY_FILE
from hedgerow.contracts.model import TensorSpec
from hedgerow.contracts.proof import PARITY_INDEX_FILE, ParityIndex
from hedgerow.errors import HedgerowError, UserError
from runtime.models.batchability import has_rows
from runtime.models.sample_inputs import AxisNames, made_up_feeds
from runtime.tensors import Array

_MADE_UP_ROWS = 8


class VectorsUnusable(UserError):
    """Parity vectors are there but cannot be read."""

    key = "vectors_unusable"
    message = "The parity vectors in {folder} cannot be used: {problem}"
    remedy = "Record them again: parity.json names the arrays of parity.npz, and all have as many rows."


@dataclass(frozen=True)
class Vectors:
    """Inputs and, when recorded, reference outputs, by tensor name; first axis = rows. Scalars repeat for each row.

    ``whole``: the inputs are one batch that cannot be cut into rows.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    rows: int
    index: ParityIndex
    recorded: bool
    whole: bool = False

    def parts(self, size: int) -> list[dict[str, Array]]:
        """The inputs in pieces of ``size`` rows."""
        if self.whole:
            return [dict(self.inputs)]
        return [
            {name: array[first : first + size] if array.ndim else array for name, array in self.inputs.items()}
            for first in range(0, max(self.rows, 1), size)
        ]


def read_vectors(folders: Sequence[Path]) -> Vectors | None:
    """The vectors of the first folder that has some; None when none has. Raises VectorsUnusable."""
    for folder in folders:
        if (folder / PARITY_INDEX_FILE).is_file():
            return _read(folder)
    return None


def made_up_vectors(specs: Sequence[TensorSpec], axis_names: AxisNames | None = None) -> Iterator[Vectors]:
    """Offers of inputs that were never recorded (runtime/models/sample_inputs.py), the likeliest first."""
    index = ParityIndex(inputs=[spec.name for spec in specs], outputs=[])
    cut = has_rows(specs)
    rows = _MADE_UP_ROWS if cut else 1
    for inputs in made_up_feeds(specs, rows, axis_names):
        yield Vectors(inputs, {}, rows, index, recorded=False, whole=not cut)


def _read(folder: Path) -> Vectors:
    try:
        index = decode((folder / PARITY_INDEX_FILE).read_bytes(), ParityIndex)
        # Never unpickled: an object array raises ValueError here.
        with (folder / PARITY_FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            inputs = {name: _usable(arrays[f"input_{number}"]) for number, name in enumerate(index.inputs)}
            outputs = {name: _usable(arrays[f"output_{number}"]) for number, name in enumerate(index.outputs)}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, HedgerowError) as problem:
        raise VectorsUnusable(folder=folder, problem=problem) from None
    counts = {len(array) for array in (*inputs.values(), *outputs.values()) if array.ndim}
    if counts == {0}:
        raise VectorsUnusable(folder=folder, problem="they have no rows")
    if len(counts) != 1 or not all(array.ndim for array in outputs.values()):
        raise VectorsUnusable(folder=folder, problem="its arrays have different numbers of rows")
    return Vectors(inputs, outputs, counts.pop(), index, recorded=True)


def _usable(array: Array) -> Array:
    """Text is stored with a fixed width; onnxruntime wants objects."""
    return array.astype(np.object_) if array.dtype.kind == "U" else array
