"""Made-up inputs for a model that came without recorded ones: the same on every machine, by the shapes that it declares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hedgerow.contracts.model import TensorSpec
from runtime.tensors import DTYPES, Array

# Lengths tried for free axes behind the first: some models need a minimum (audio, time series), none a maximum.
_FREE_LENGTHS = (1, 16, 256, 4096, 16_000)


def made_up_feeds(specs: Sequence[TensorSpec], rows: int) -> Iterator[dict[str, Array]]:
    """One offer per length of the free axes, smallest first. Whole numbers are 0 or 1, because they are often indices."""
    lengths = _FREE_LENGTHS if any(-1 in spec.shape[1:] for spec in specs) else _FREE_LENGTHS[:1]
    for length in lengths:
        random = np.random.default_rng(20_240_229)
        yield {spec.name: made_up(spec, rows, length, random) for spec in specs}


def made_up(spec: TensorSpec, rows: int, length: int, random: np.random.Generator) -> Array:
    """One input of ``rows`` rows, or of the model's own fixed leading length."""
    shape = [] if not spec.shape else [rows if spec.shape[0] == -1 else spec.shape[0]]
    shape += [length if axis == -1 else axis for axis in spec.shape[1:]]
    if spec.datatype == "BYTES":
        return np.full(shape, "a", dtype=np.object_)
    dtype = DTYPES[spec.datatype]
    if dtype.kind == "f":
        return np.asarray(random.standard_normal(shape)).astype(dtype)
    return np.asarray(random.integers(0, 2, shape)).astype(dtype)
