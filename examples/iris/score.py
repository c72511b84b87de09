"""A scoring script in the style of Azure ML: `init` once per worker, `run` for each request."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime

SPECIES = ["setosa", "versicolor", "virginica"]
session: onnxruntime.InferenceSession


def init() -> None:
    global session
    model = next(Path(os.environ["AZUREML_MODEL_DIR"]).rglob("*.onnx"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def run(data: str) -> list[str]:
    rows = np.asarray(json.loads(data)["data"], dtype=np.float32)
    labels = session.run(None, {session.get_inputs()[0].name: rows})[0]
    return [SPECIES[label] for label in labels]
