"""Which file of a model is converted."""

from __future__ import annotations

import pytest

from packager.convert.errors import NoSuchEntry, SeveralModelFiles, UnknownModelFormat
from packager.convert.formats import Entry, choose_entry

_BEGINNINGS = {
    "booster.json": b'{"learner":{"attributes"',
    "notes.json": b'{"a": 1}',
    "trees.txt": b"tree\nversion=v4\n",
    "requirements.txt": b"scikit-learn==1.5.2\n",
}


def _choose(files: list[str], *, entry: str | None = None, framework: str = "") -> Entry:
    return choose_entry("wine:1", files, lambda path: _BEGINNINGS.get(path, b""), entry=entry, framework=framework)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("model.onnx", "onnx"),
        ("a/model.PKL", "pickle"),
        ("model.joblib", "pickle"),
        ("model.ubj", "xgboost"),
        ("booster.json", "xgboost"),
        ("trees.txt", "lightgbm"),
        ("net.pt2", "torch"),
    ],
)
def test_a_file_is_known_by_its_name_or_beginning(file: str, kind: str) -> None:
    assert _choose([file, "notes.json", "requirements.txt", "MLmodel"]) == Entry(file, kind)  # type: ignore[arg-type]  # a parameter


def test_the_framework_decides_between_several() -> None:
    files = ["model.pkl", "model.onnx", "booster.json"]
    assert _choose(files, framework="onnx").path == "model.onnx"
    assert _choose(files, framework="sklearn").path == "model.pkl"
    assert _choose(files, framework="XGBoost").path == "booster.json"


def test_of_several_the_one_called_model_is_meant() -> None:
    assert _choose(["model.pkl", "scaler.pkl"]).path == "model.pkl"
    with pytest.raises(SeveralModelFiles, match=r"a\.pkl, b\.pkl"):
        _choose(["b.pkl", "a.pkl"])


def test_what_was_named_is_taken_or_missed() -> None:
    assert _choose(["a.pkl", "b.pkl"], entry="b.pkl").path == "b.pkl"
    with pytest.raises(NoSuchEntry):
        _choose(["a.pkl"], entry="c.pkl")
    with pytest.raises(UnknownModelFormat, match=r"notes\.json"):
        _choose(["notes.json"], entry="notes.json")


def test_nothing_that_fits_says_what_was_found() -> None:
    with pytest.raises(UnknownModelFormat, match=r"model\.keras, notes\.json"):
        _choose(["notes.json", "model.keras"])
    with pytest.raises(UnknownModelFormat, match="found: nothing"):
        _choose([])
