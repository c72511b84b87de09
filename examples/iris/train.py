"""Trains a classifier on the iris data, records what it is worth and leaves an ONNX model with its proof in outputs/model."""

from __future__ import annotations

import json

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import hedgerow


def main() -> None:
    run = hedgerow.current_run()
    rows, labels = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    train_rows, test_rows, train_labels, test_labels = train_test_split(rows, labels, test_size=0.3, random_state=0)
    model = LogisticRegression(max_iter=500).fit(train_rows, train_labels)
    run.log("accuracy", model.score(test_rows, test_labels))

    # Without zipmap the probabilities are a tensor, not a list of dictionaries.
    converted = to_onnx(model, rows[:1], options={"zipmap": False})
    folder = run.outputs / "model"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(converted.SerializeToString())
    names = [output.name for output in converted.graph.output]
    np.savez(folder / "parity.npz", input_0=test_rows, output_0=model.predict(test_rows), output_1=model.predict_proba(test_rows))
    (folder / "parity.json").write_text(json.dumps({"inputs": [converted.graph.input[0].name], "outputs": names}))


if __name__ == "__main__":
    main()
