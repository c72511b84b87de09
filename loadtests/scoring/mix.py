"""The mixed load of the soak: five sizes in three encodings, small ones most, a look at health and metrics now and then."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.scoring import contests, heads, models
from loadtests.scoring.models import Sent
from loadtests.scoring.open_loop import Asked
from loadtests.scoring.peers import INFER

# Rows of a request, and how often such a one comes: each size brings half as many requests as the one before.
SIZES = {1: 16, 4: 8, 16: 4, 64: 2, 256: 1}
_BODIES = 16
_PAGES = ("/v2/health/ready", "/metrics")
# One request in so many is for a page; at full load that is more than anybody scrapes.
_PAGES_OF = 500


@dataclass(frozen=True)
class Encoding:
    name: str
    path: str
    encode: Callable[[NDArray[Any]], Sent]


ENCODINGS = (
    Encoding("/score JSON", "/score", models.as_score),
    Encoding("/v2 JSON", INFER, lambda rows: models.as_v2(rows, "X")),
    Encoding("/v2 binary", INFER, lambda rows: models.as_v2_binary(rows, "X")),
)


@dataclass(frozen=True)
class Scored:
    """A request that scores, what it is called and what its answer must mean."""

    kind: str
    path: str
    sent: Sent
    wanted: NDArray[Any]


def scored(model: Path) -> Iterator[Scored]:
    """Each kind with several different bodies, answers by onnxruntime."""
    rows = np.concatenate(list(models.tiny_rows(4096)))
    chance = np.random.default_rng(4)
    for size in SIZES:
        batches = [rows[chance.integers(0, len(rows), size)] for _ in range(_BODIES)]
        answers = contests.answers(model, batches)
        for encoding in ENCODINGS:
            for batch, wanted in zip(batches, answers, strict=True):
                yield Scored(f"{encoding.name}, rows {size}", encoding.path, encoding.encode(batch), wanted)


def pages(port: int) -> list[Asked]:
    return [Asked(path, heads.get(path, port)) for path in _PAGES]


def order(asked: list[Asked], chance: random.Random) -> list[int]:
    """Places in ``asked`` to send in turn, again and again: every body as often as its size says, shuffled, pages in between."""
    places: list[int] = []
    for place, one in enumerate(asked):
        size = one.kind.partition(", rows ")[2]
        places += [place] * SIZES[int(size)] if size else []
    chance.shuffle(places)
    own = [place for place, one in enumerate(asked) if one.kind in _PAGES]
    for turn, at in enumerate(range(_PAGES_OF, len(places) + len(places) // _PAGES_OF, _PAGES_OF)):
        places.insert(at, own[turn % len(own)])
    return places
