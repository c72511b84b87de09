"""Makes the rows that a tabular model and its conversion are compared on: the sample's, ordinary ones, rows on and around the
thresholds of trees, both sides of jumps, extremes, and gaps where the model takes them. Seeded: the same model and sample give
the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from .agreement import Array
from .edges import Ask, edge_rows
from .failures import Failure

T = TypeVar("T")
SEED = 20_070
_SAMPLE_ROWS = 512
_MADE_ROWS = 96
_THRESHOLD_ROWS = 768


@dataclass(frozen=True)
class Terrain:
    """What a model says of its own inputs. ``thresholds``: feature → the values at which its trees branch; ``known``: rows that
    it carries in itself; ``jumps``: whether it may jump elsewhere too; ``whole``: columns that hold numbers of categories."""

    features: int
    center: Array | None = None
    spread: Array | None = None
    thresholds: dict[int, Array] = field(default_factory=dict)
    takes_nan: bool = False
    known: Array | None = None
    jumps: bool = False
    whole: frozenset[int] = frozenset()


@dataclass(frozen=True)
class CheckRows:
    """``values`` [n, features] FP64; the first ``from_sample`` rows are the user's own (or ordinary ones where there is none),
    the first ``ordinary`` are such as may come."""

    values: Array
    from_sample: int
    ordinary: int


def check_rows(terrain: Terrain, sample: Array | None, ask: Ask) -> CheckRows:
    """``ask`` is the original; kinds of rows that it refuses are left out. Raises Failure `sample_needed`."""
    random = np.random.default_rng(SEED)
    kept = [sample[:_SAMPLE_ROWS]] if sample is not None else []
    kept.append(_accepted_ordinary(terrain, sample, random, ask))
    from_sample = len(kept[0])
    pool = np.concatenate(kept)
    known = np.empty((0, terrain.features)) if terrain.known is None else terrain.known
    offers = [known, _on_thresholds(terrain, pool, random), _extremes(pool), _gaps(terrain, pool, random)]
    if terrain.jumps and not terrain.whole:
        offers.append(edge_rows(ask, np.concatenate([pool, known]), random))
    kept.extend(more for more in (_whole(terrain, offer) for offer in offers) if len(more) and takes(ask, more))
    return CheckRows(np.concatenate(kept), from_sample, len(pool))


def _accepted_ordinary(terrain: Terrain, sample: Array | None, random: np.random.Generator, ask: Ask) -> Array:
    """Models of counts, shares and categories refuse ordinary numbers: these are offered first, others after."""
    rows = _whole(terrain, _ordinary(terrain, sample, random))
    if sample is not None:
        return rows if takes(ask, rows) else sample[: len(rows)]
    offers = [rows, np.abs(rows), np.floor(np.abs(rows) * 2)]
    if terrain.known is not None:
        offers.append(terrain.known[random.integers(0, len(terrain.known), len(rows))])
    problem: Exception | None = None
    for offer in offers:
        try:
            ask(offer)
        except Exception as found:  # noqa: BLE001 - foreign code; rows that it refuses are not its inputs
            problem = problem or found
            continue
        return offer
    why = f"it refuses made-up rows ({type(problem).__name__}: {str(problem).strip().splitlines()[0][:300]})"
    raise Failure("sample_needed", why=why)


def takes(ask: Callable[[T], object], rows: T) -> bool:
    """Whether the original answers ``rows`` at all."""
    try:
        ask(rows)
    except Exception:  # noqa: BLE001 - foreign code; rows that it refuses are not its inputs
        return False
    return True


def _whole(terrain: Terrain, rows: Array) -> Array:
    rows = rows.copy()
    for column in terrain.whole:
        rows[:, column] = np.abs(np.round(rows[:, column]))
    return rows


def _ordinary(terrain: Terrain, sample: Array | None, random: np.random.Generator) -> Array:
    noise = random.standard_normal((_MADE_ROWS, terrain.features))
    if sample is not None:
        with np.errstate(all="ignore"):
            spread = np.nan_to_num(np.nanstd(sample, axis=0)) if len(sample) > 1 else np.abs(np.nan_to_num(sample[0])) * 0.1
        base = np.nan_to_num(sample[random.integers(0, len(sample), _MADE_ROWS)])
        return np.asarray(base + noise * spread * 0.3)
    center = np.zeros(terrain.features) if terrain.center is None else terrain.center
    spread = np.ones(terrain.features) if terrain.spread is None else terrain.spread
    made = center + noise * spread
    for feature, values in terrain.thresholds.items():
        margin = (values.max() - values.min()) * 0.2 or 1.0
        made[:, feature] = random.uniform(values.min() - margin, values.max() + margin, _MADE_ROWS)
    return np.asarray(made)


def _on_thresholds(terrain: Terrain, pool: Array, random: np.random.Generator) -> Array:
    """Exactly on a threshold, on its nearest FP32, and on that one's neighbours: there a rounded threshold shows."""
    if not terrain.thresholds:
        return np.empty((0, terrain.features))
    around = {feature: _around(values) for feature, values in terrain.thresholds.items()}
    rows = min(_THRESHOLD_ROWS, max(len(values) for values in around.values()))
    together = np.nan_to_num(pool)[random.integers(0, len(pool), rows)]
    alone = [together.copy()]
    for feature, values in around.items():
        picked = values[np.linspace(0, len(values) - 1, rows).astype(int)]
        together[:, feature] = random.permutation(picked)
    order = sorted(around)
    for row in range(rows):
        feature = order[row % len(order)]
        alone[0][row, feature] = around[feature][(row // len(order)) % len(around[feature])]
    return np.concatenate([together, *alone])


def _around(values: Array) -> Array:
    unique = np.unique(values)
    if len(unique) > _THRESHOLD_ROWS // 4:
        unique = unique[np.linspace(0, len(unique) - 1, _THRESHOLD_ROWS // 4).astype(int)]
    with np.errstate(over="ignore"):
        nearest = unique.astype(np.float32)
        beside = [np.nextafter(nearest, np.float32(way * np.inf)).astype(np.float64) for way in (-1, 1)]
    found = np.unique(np.concatenate([unique, nearest.astype(np.float64), *beside]))
    return found[np.isfinite(found)]


def _extremes(pool: Array) -> Array:
    low, high = np.nan_to_num(np.nanmin(pool, axis=0)), np.nan_to_num(np.nanmax(pool, axis=0))
    reach = np.maximum(high - low, 1e-3)
    return np.stack([np.zeros_like(low), low, high, low - 5 * reach, high + 5 * reach])


def _gaps(terrain: Terrain, pool: Array, random: np.random.Generator) -> Array:
    if not terrain.takes_nan:
        return np.empty((0, terrain.features))
    rows = pool[random.integers(0, len(pool), 24)].copy()
    rows[random.random(rows.shape) < 0.3] = np.nan
    return np.concatenate([rows, np.full((1, terrain.features), np.nan)])
