"""Which waiting requests are scored in one run. Pure; outputs.py cuts the answer into theirs.

A batch is what had to wait while the model was busy; nothing ever waits for a batch to fill. Only requests with the same key
(model, lengths behind the rows, outputs wanted) are merged, in the order in which they came, up to a limit of rows and bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from runtime.tensors import Array


class Mergeable(Protocol):
    """A request as far as merging goes. ``key`` None: always alone."""

    key: object
    rows: int
    size_bytes: int


T = TypeVar("T", bound=Mergeable)


@dataclass(frozen=True)
class BatchLimits:
    """The most that one run may take. ``requests`` 1 switches merging off."""

    rows: int = 256
    size_bytes: int = 16 * 1024 * 1024
    requests: int = 1024


def take_batch(waiting: deque[T], limits: BatchLimits) -> list[T]:
    """Remove and return the first request and whatever behind it may go along; others keep their places."""
    first = waiting.popleft()
    batch = [first]
    if first.key is None or not waiting or limits.requests <= 1:
        return batch
    rows, size_bytes = first.rows, first.size_bytes
    passed_over: list[T] = []
    while waiting and len(batch) < limits.requests and rows < limits.rows:
        candidate = waiting.popleft()
        fits = rows + candidate.rows <= limits.rows and size_bytes + candidate.size_bytes <= limits.size_bytes
        if candidate.key != first.key or not fits:
            passed_over.append(candidate)
            # Looking through a long queue of other shapes again and again would cost more than it gains.
            if len(passed_over) >= 32:
                break
            continue
        batch.append(candidate)
        rows += candidate.rows
        size_bytes += candidate.size_bytes
    waiting.extendleft(reversed(passed_over))
    return batch


def merge(feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """One set of inputs with all rows, in order."""
    return {name: np.concatenate([one[name] for one in feeds]) for name in feeds[0]}
