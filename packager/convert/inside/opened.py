"""A model that was opened: what to ask it, and the ways in which it can be converted. One adapter per library makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .agreement import Array

# The newest opset that every onnxruntime of the last years reads (1.12, 2022); its companion for classic models.
DEFAULT_OPSET = 17
ML_DOMAIN, ML_OPSET = "ai.onnx.ml", 3


@dataclass(frozen=True)
class Job:
    """What the packager asks for. ``kind``: how the entry is to be opened (packager/convert/formats.py)."""

    entry: Path
    kind: str
    sample: Path | None = None
    input_names: tuple[str, ...] = ()
    opset: int | None = None
    atol: float = 1e-4
    rtol: float = 1e-3

    @property
    def target_opset(self) -> int:
        return self.opset or DEFAULT_OPSET


@dataclass(frozen=True)
class Attempt:
    """One way to convert; ``remedy`` says in a phrase what is not the usual in it. ``make`` gives an onnx.ModelProto.

    ``narrow``: it is asked in FP32, and must say to those numbers what the original says to them. It counts only where the
    original answers ordinary rows the same before and after they are rounded to FP32.
    """

    remedy: str
    make: Callable[[], Any]
    narrow: bool = False


@dataclass(frozen=True)
class Opened:
    """``rows`` by input name, exact (FP64 where a conversion may have FP32); ``answer`` is the original's, in the order of
    the conversion's outputs: label first, then its scores. The first ``ordinary`` rows are such as may come.
    ``gaps_named``: False where the user's sample has no missing values; then rows with them may differ, and that is told.
    """

    estimator: str
    rows: dict[str, Array]
    from_sample: int
    answer: Callable[[dict[str, Array]], list[Array]]
    attempts: list[Attempt]
    labels: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    has_rows: bool = True
    ordinary: int = 0
    gaps_named: bool = True
