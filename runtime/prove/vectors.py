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
from runtime.tensors import DTYPES, Array

# Lengths tried for free axes behind the first: some models need a minimum (audio, time series), none a maximum.
_FREE_LENGTHS = (1, 16, 256, 4096, 16_000)
_MADE_UP_ROWS = 8


class VectorsUnusable(UserError):
    """Parity vectors are there but cannot be read."""

    key = "vectors_unusable"
    message = "The parity vectors in {folder} cannot be used: {problem}"
    remedy = "Record them again: parity.json names the arrays of parity.npz, and all have as many rows."


@dataclass(frozen=True)
class Vectors:
    """Inputs and, when recorded, reference outputs, by tensor name; first axis = rows. Scalars repeat for each row."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    rows: int
    index: ParityIndex
    recorded: bool


def read_vectors(folders: Sequence[Path]) -> Vectors | None:
    """The vectors of the first folder that has some; None when none has. Raises VectorsUnusable."""
    for folder in folders:
        if (folder / PARITY_INDEX_FILE).is_file():
            return _read(folder)
    return None


def made_up_vectors(specs: Sequence[TensorSpec]) -> Iterator[Vectors]:
    """Pseudo-random inputs, the same on every machine; one offer per length of the free axes, smallest first.

    Whole numbers are 0 or 1, because they are often indices.
    """
    index = ParityIndex(inputs=[spec.name for spec in specs], outputs=[])
    lengths = _FREE_LENGTHS if any(-1 in spec.shape[1:] for spec in specs) else _FREE_LENGTHS[:1]
    for length in lengths:
        random = np.random.default_rng(20_240_229)
        inputs = {spec.name: _made_up(spec, length, random) for spec in specs}
        yield Vectors(inputs, {}, _MADE_UP_ROWS, index, recorded=False)


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


def _made_up(spec: TensorSpec, length: int, random: np.random.Generator) -> Array:
    if not spec.shape:
        shape: list[int] = []
    else:
        inner = [length if axis == -1 else axis for axis in spec.shape[1:]]
        # A model of a fixed batch size is fed whole batches: rows here are then batches (measure.py cuts them).
        shape = [_MADE_UP_ROWS * max(spec.shape[0], 1), *inner]
    if spec.datatype == "BYTES":
        return np.full(shape, "a", dtype=np.object_)
    dtype = DTYPES[spec.datatype]
    if dtype.kind == "f":
        return np.asarray(random.standard_normal(shape)).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)
