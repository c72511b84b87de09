"""What the trained model answered for the recorded rows, and whether an endpoint says the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.cli.quickstart.errors import WrongAnswer
from hedgerow.contracts.document import decode
from hedgerow.contracts.proof import PARITY_INDEX_FILE, ParityIndex


@dataclass(frozen=True)
class Expectations:
    """``rows`` float32[N, 9]; ``answers`` by output name, each [N, 1]."""

    input_name: str
    rows: Any
    answers: dict[str, Any]
    atol: float
    rtol: float

    @property
    def anomalies(self) -> int:
        return int((self.answers["label"] < 0).sum())

    def aml_body(self) -> dict[str, object]:
        """Body of ``POST /score``."""
        return {"data": self.rows.tolist()}

    def oip_body(self) -> dict[str, object]:
        """Body of ``POST /v2/models/NAME/infer``."""
        shape = list(self.rows.shape)
        tensor = {"name": self.input_name, "shape": shape, "datatype": "FP32", "data": self.rows.ravel().tolist()}
        return {"inputs": [tensor]}

    def check_aml(self, answer: Any, where: str) -> None:  # noqa: ANN401 - decoded JSON
        """``{"label": [[…]], "scores": [[…]]}``; raises WrongAnswer."""
        self._check({name: np.asarray(answer[name]) for name in self.answers}, where)

    def check_oip(self, answer: Any, where: str) -> None:  # noqa: ANN401 - decoded JSON
        """Outputs of the Open Inference Protocol; raises WrongAnswer."""
        outputs = {output["name"]: np.asarray(output["data"]).reshape(output["shape"]) for output in answer["outputs"]}
        self._check(outputs, where)

    def _check(self, got: dict[str, Any], where: str) -> None:
        for name, wanted in self.answers.items():
            found = got[name].reshape(wanted.shape)
            if not np.allclose(found, wanted, atol=self.atol, rtol=self.rtol):
                raise WrongAnswer(where=where, error=float(np.abs(found - wanted).max()), allowed=self.atol)


def load_expectations(folder: Path) -> Expectations:
    """From the ``parity.json`` and ``parity.npz`` that the training script left."""
    index = decode((folder / PARITY_INDEX_FILE).read_bytes(), ParityIndex)
    with np.load(folder / "parity.npz", allow_pickle=False) as arrays:
        answers = {name: arrays[f"output_{number}"] for number, name in enumerate(index.outputs)}
        return Expectations(index.inputs[0], arrays["input_0"], answers, index.atol, index.rtol)
