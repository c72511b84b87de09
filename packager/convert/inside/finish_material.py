"""What finishing works with: how it was asked for, and what the opener left, which is read with suspicion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .agreement import Array
from .failures import Failure
from .graphs import plain_session, run_session
from .open_model import FACTS, ROWS, as_rows

_CALIBRATION_ROWS = 200
_ARRAY_BYTES_MAX = 1 << 30


@dataclass(frozen=True)
class FinishJob:
    """``quantize``: none, dynamic or static. ``opset``: the newest that may come out, None: any that our onnxruntime reads."""

    quantize: str = "none"
    accuracy_loss_max: float = 0.01
    atol: float = 1e-4
    rtol: float = 1e-3
    opset: int | None = None


@dataclass(frozen=True)
class Material:
    """What the opener left."""

    rows: dict[str, Array]
    wanted: list[Array]
    output_names: list[str]
    ties: Array
    facts: dict[str, Any]

    def answers(self, model: bytes, rows: dict[str, Array] | None = None) -> list[Array]:
        """What ``model`` says to ``rows`` (all of them when None)."""
        given = self.rows if rows is None else rows
        return as_rows(run_session(plain_session(model), given), has_rows=bool(self.facts["has_rows"]))

    @property
    def own(self) -> slice:
        """The user's own rows (or ordinary ones), for calibration and for what quantisation costs."""
        if not self.facts["has_rows"]:
            return slice(0, None)
        count = int(self.facts["from_sample"]) or len(self.ties)
        return slice(0, min(count, _CALIBRATION_ROWS))


def read_material(opened: Path) -> Material:
    """Raises Failure."""
    try:
        facts = json.loads((opened / FACTS).read_text(encoding="utf-8"))
        with np.load(opened / ROWS, allow_pickle=False) as arrays:
            if sum(info.file_size for info in arrays.zip.infolist()) > _ARRAY_BYTES_MAX:
                raise ValueError("its arrays are too large")
            rows = {str(name): arrays[f"input_{number}"] for number, name in enumerate(facts["inputs"])}
            wanted = [arrays[f"output_{number}"] for number in range(len(facts["outputs"]))]
            ties = arrays["ties"]
        if not wanted or not rows or len(ties) != len(wanted[0]):
            raise ValueError("its arrays do not fit together")
    except Exception as problem:
        raise Failure("crashed", problem=f"what it handed back cannot be read ({problem})") from problem
    return Material(rows, wanted, [str(name) for name in facts["outputs"]], ties, facts)
