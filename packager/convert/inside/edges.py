"""Finds where a model's answer jumps, by asking it: two rows that differ in one number and in their answer are halved until they
are neighbours in FP32. So are the thresholds found that lie behind scalers, bins and encoders, and cannot be read from the model.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from .agreement import Array

_PAIRS = 160
_STEPS = 33
_JUMP = 1e-3

Ask = Callable[[Array], "list[Array]"]


def edge_rows(ask: Ask, pool: Array, random: np.random.Generator) -> Array:
    """[n, features] FP64 that FP32 holds: both sides of jumps between rows of ``pool``; none where the model refuses them."""
    low, high, columns = _pairs(pool, random)
    none = np.empty((0, pool.shape[1]))
    if not len(low):
        return none
    lines = np.arange(len(low))
    left, right = _ordinals(low[lines, columns]), _ordinals(high[lines, columns])
    try:
        at_left, at_right = _numbers(ask(low)), _numbers(ask(high))
        for _ in range(_STEPS):
            middle = left + (right - left) // 2
            rows = low.copy()
            rows[lines, columns] = _values(middle)
            found = _numbers(ask(rows))
            in_left = _distance(found, at_left) > _distance(at_right, found)
            right, at_right = np.where(in_left, middle, right), np.where(in_left[:, None], found, at_right)
            left, at_left = np.where(in_left, left, middle), np.where(in_left[:, None], at_left, found)
    except Exception:  # noqa: BLE001 - foreign code; rows that it refuses are not its inputs
        return none
    scale = np.abs(at_left).max(axis=1, initial=0.0) + 1.0
    jumps = (_distance(at_right, at_left) > _JUMP * scale) & (np.abs(right - left) <= 1)
    low[lines, columns], high[lines, columns] = _values(left), _values(right)
    return np.concatenate([low[jumps], high[jumps]])


def _pairs(pool: Array, random: np.random.Generator) -> tuple[Array, Array, Array]:
    with np.errstate(over="ignore", invalid="ignore"):
        usable = pool.astype(np.float32).astype(np.float64)
    usable = usable[np.isfinite(usable).all(axis=1)]
    if not len(usable):
        return usable, usable, np.empty(0, dtype=int)
    low = usable[random.integers(0, len(usable), _PAIRS)]
    other = usable[random.integers(0, len(usable), _PAIRS)]
    columns = random.integers(0, pool.shape[1], _PAIRS)
    high = low.copy()
    lines = np.arange(_PAIRS)
    high[lines, columns] = other[lines, columns]
    kept = low[lines, columns] != high[lines, columns]
    return low[kept], high[kept], columns[kept]


def _ordinals(values: Array) -> Array:
    """FP32 numbers as whole numbers in the same order, neighbours one apart."""
    bits = values.astype(np.float32).view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))


def _values(ordinals: Array) -> Array:
    bits = np.where(ordinals >= 0, ordinals, (-ordinals) | 0x80000000)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def _numbers(answers: list[Array]) -> Array:
    """Scores as [rows, n] numbers; where there are none, labels: where two are equally likely these jump, and scores do not."""
    scores = [one for one in map(np.asarray, answers) if one.dtype.kind == "f"]
    parts = [one.reshape(len(one), -1).astype(np.float64) for one in scores or [_as_numbers(np.asarray(one)) for one in answers]]
    return np.nan_to_num(np.concatenate(parts, axis=1))


def _as_numbers(labels: Array) -> Array:
    if labels.dtype.kind not in "OSU":
        return labels
    texts = labels.reshape(len(labels), -1).astype(str).tolist()
    return np.array([[zlib.crc32(text.encode()) % 9973 for text in row] for row in texts])


def _distance(one: Array, other: Array) -> Array:
    return np.abs(one - other).max(axis=1, initial=0.0)
