"""The converters on models trained here: which agree as they are, which need a remedy, which are refused. In this process."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn import (
    calibration,
    cluster,
    datasets,
    ensemble,
    linear_model,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    semi_supervised,
    svm,
    tree,
)
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from packager.convert.inside.agreement import compare
from packager.convert.inside.failures import Failure
from packager.convert.inside.finish import FinishJob, finish
from packager.convert.inside.graphs import plain_session, run_session
from packager.convert.inside.open_model import FACTS, _ask, _convert, _wrong, adapt, write_candidate
from packager.convert.inside.opened import Attempt, Job
from packager.convert.inside.samples import MATRIX

_one_thread = importlib.import_module("threadpoolctl").threadpool_limits
_IRIS = datasets.load_iris(return_X_y=True)
_NAMED = np.array(["setosa", "versicolor", "virginica"])[_IRIS[1]]
_CANCER = datasets.load_breast_cancer(return_X_y=True)
_DIABETES = datasets.load_diabetes(return_X_y=True)
_FP64 = "thresholds and input in FP64"


@pytest.fixture(autouse=True)
def _foreign_warnings() -> Any:
    """Libraries warn about each other; in the jail nobody listens either. One thread, as there."""
    with warnings.catch_warnings(), _one_thread(1):
        warnings.simplefilter("ignore")
        yield


def _convert_here(model: object, folder: Path, sample: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Open and finish as the jail's two steps do; the facts of both."""
    opened_folder, out = folder / "opened", folder / "out"
    opened_folder.mkdir()
    out.mkdir()
    job = Job(Path("model.pkl"), "pickle")
    opened = adapt(model, sample, job)
    best, errors = _convert(opened, _ask(opened), job)
    if not best.compared.agrees:
        raise _wrong(opened, best, errors)
    write_candidate(opened_folder, opened, best, errors)
    finish(FinishJob(**changes), opened_folder, out)
    found: dict[str, Any] = json.loads((opened_folder / FACTS).read_text())
    return {**found, "final": json.loads((out / FACTS).read_text()), "out": out}


def _fit(model: Any, data: tuple[Any, Any] = _IRIS) -> Any:
    return model.fit(*data)


_TABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "logistic, labels as text": (lambda: _fit(linear_model.LogisticRegression(max_iter=2000), (_IRIS[0], _NAMED)), ""),
    "scaler and logistic": (lambda: _fit(make_pipeline(StandardScaler(), linear_model.LogisticRegression())), ""),
    "scaler alone": (lambda: StandardScaler().fit(_IRIS[0]), ""),
    "random forest": (lambda: _fit(ensemble.RandomForestClassifier(10, random_state=0), _CANCER), ""),
    "gradient boosting": (lambda: _fit(ensemble.GradientBoostingRegressor(n_estimators=10, random_state=0), _DIABETES), ""),
    "histogram classifier": (lambda: _fit(ensemble.HistGradientBoostingClassifier(max_iter=10), _CANCER), _FP64),
    "histogram regressor": (lambda: _fit(ensemble.HistGradientBoostingRegressor(max_iter=10), _DIABETES), _FP64),
    "forest behind a scaler": (
        lambda: _fit(make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(5, random_state=0))),
        "",
    ),
    "isolation forest": (lambda: ensemble.IsolationForest(n_estimators=10, random_state=0).fit(_IRIS[0]), ""),
    "decision tree": (lambda: _fit(tree.DecisionTreeRegressor(max_depth=4, random_state=0), _DIABETES), ""),
    "adaboost": (lambda: _fit(ensemble.AdaBoostClassifier(n_estimators=4, random_state=0)), ""),
    "voting": (
        lambda: _fit(
            ensemble.VotingClassifier([("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())], voting="soft")
        ),
        "",
    ),
    "k-means": (lambda: cluster.KMeans(3, random_state=0, n_init=1).fit(_IRIS[0]), ""),
    "calibrated": (lambda: _fit(calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2)), ""),
    "two classes by sign": (lambda: _fit(svm.SVC(), (_CANCER[0][:, :5], _CANCER[1])), ""),
    "ridge classifier": (lambda: _fit(linear_model.RidgeClassifier(), _CANCER), ""),
    "neighbours": (lambda: _fit(neighbors.KNeighborsClassifier(3)), ""),
    "several targets": (lambda: multioutput.MultiOutputRegressor(linear_model.Ridge()).fit(_IRIS[0][:, :2], _IRIS[0][:, 2:]), ""),
    "xgboost": (lambda: _fit(xgboost.XGBClassifier(n_estimators=10), _CANCER), ""),
    "xgboost, part of the columns": (
        lambda: _fit(xgboost.XGBRegressor(n_estimators=10, colsample_bytree=0.5, base_score=0.3), _DIABETES),
        "",
    ),
    "xgboost booster": (lambda: _fit(xgboost.XGBClassifier(n_estimators=5)).get_booster(), ""),
    "xgboost in a pipeline": (lambda: _fit(make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=3))), ""),
    "lightgbm": (lambda: _fit(lightgbm.LGBMClassifier(n_estimators=5, verbose=-1), (_IRIS[0], _NAMED)), _FP64),
    "lightgbm booster": (lambda: _fit(lightgbm.LGBMRegressor(n_estimators=20, verbose=-1), _DIABETES).booster_, _FP64),
    "lightgbm, categories": (
        lambda: lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(
            np.c_[_DIABETES[0][:, :2], np.arange(442) % 11], _DIABETES[1], categorical_feature=[2]
        ),
        _FP64,
    ),
}


@pytest.mark.parametrize("name", list(_TABLE))
def test_a_conversion_agrees_or_takes_its_remedy(name: str, tmp_path: Path) -> None:
    make, remedy = _TABLE[name]
    facts = _convert_here(make(), tmp_path)
    assert facts["remedy"] == remedy
    assert facts["final"]["agreement"]["rows"] >= 96
    assert facts["final"]["opsets"].get("ai.onnx", 0) <= 17
    assert (facts["out"] / "parity.npz").is_file()
    if remedy:
        assert "rows differ" in facts["final"]["notes"][0]


def test_text_and_numbers_become_an_input_for_each_column(tmp_path: Path) -> None:
    table = pd.DataFrame({"city": np.array(["x", "y", "z"])[_IRIS[1]], "a": _IRIS[0][:, 0], "b": _IRIS[0][:, 1]})
    columns = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), ["city"]), ("n", StandardScaler(), ["a", "b"])])
    model = make_pipeline(columns, linear_model.LogisticRegression()).fit(table, _NAMED)
    facts = _convert_here(
        model, tmp_path, {name: table[name].to_numpy() if name != "city" else table[name].to_numpy(dtype=str) for name in table}
    )
    assert [(spec["name"], spec["datatype"]) for spec in facts["final"]["inputs"]] == [
        ("city", "BYTES"),
        ("a", "FP32"),
        ("b", "FP32"),
    ]
    assert facts["labels"] == ["setosa", "versicolor", "virginica"]
    assert json.loads((facts["out"] / "io.json").read_text())["labels"] == facts["labels"]


def test_a_text_model_loads_where_there_is_no_american_locale(tmp_path: Path) -> None:
    texts = ["a good film", "a bad film", "Very good indeed", "very bad"] * 4
    model = make_pipeline(TfidfVectorizer(), linear_model.LogisticRegression()).fit(texts, [1, 0, 1, 0] * 4)
    facts = _convert_here(model, tmp_path, {MATRIX: np.array(texts)})
    assert facts["final"]["inputs"][0]["datatype"] == "BYTES"


def test_gaps_take_the_branch_that_was_trained(tmp_path: Path) -> None:
    rows = _CANCER[0].copy()
    rows[::7, 20] = np.nan
    model = tree.DecisionTreeClassifier(max_depth=4, random_state=0).fit(rows, _CANCER[1])
    facts = _convert_here(model, tmp_path, {MATRIX: rows})
    assert facts["remedy"] == "the branch of missing values as trained"


def test_gaps_that_a_conversion_gets_wrong_are_refused(tmp_path: Path) -> None:
    rows = _CANCER[0].copy()
    rows[::7, 20] = np.nan
    model = make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(5, random_state=0)).fit(rows, _CANCER[1])
    with pytest.raises(Failure) as refused:
        _convert_here(model, tmp_path, {MATRIX: rows})
    assert refused.value.kind == "wrong"
    assert "nan" in str(refused.value.fields["row"]).lower()


def test_a_tree_that_the_converter_never_ends_on_is_refused(tmp_path: Path) -> None:
    rows = _CANCER[0].copy()
    rows[_CANCER[1] == 1, 3] = np.nan
    model = tree.DecisionTreeClassifier(max_depth=2, random_state=0).fit(rows, _CANCER[1])
    assert np.isinf(model.tree_.threshold).any()
    with pytest.raises(Failure) as refused:
        _convert_here(model, tmp_path)
    assert "infinite" in str(refused.value.fields["problem"])


def test_what_the_converter_does_not_know_is_named(tmp_path: Path) -> None:
    model = semi_supervised.LabelSpreading().fit(_IRIS[0][:50], np.arange(50) % 2)
    with pytest.raises(Failure) as refused:
        _convert_here(model, tmp_path)
    assert (refused.value.kind, refused.value.fields["what"]) == ("unsupported", "LabelSpreading")


def test_a_wrong_conversion_is_refused_with_numbers(tmp_path: Path) -> None:
    model = _fit(linear_model.LinearRegression(), _DIABETES)
    other = _fit(linear_model.LinearRegression(), (_DIABETES[0], _DIABETES[1] + 5))
    job = Job(Path("model.pkl"), "pickle")
    opened, wrong = adapt(model, None, job), adapt(other, None, job)
    cheat = [Attempt("another model's", wrong.attempts[0].make)]
    opened.attempts[:] = cheat
    best, errors = _convert(opened, _ask(opened), job)
    assert not best.compared.agrees
    failure = _wrong(opened, best, errors)
    assert failure.kind == "wrong"
    assert 90 < int(str(failure.fields["differing"])) <= best.compared.rows
    assert float(str(failure.fields["largest"])) == pytest.approx(5, rel=0.01)


def test_the_second_check_does_not_trust_the_first(tmp_path: Path) -> None:
    model = _fit(linear_model.LinearRegression(), _DIABETES)
    facts = _convert_here(model, tmp_path)
    with np.load(tmp_path / "opened" / "rows.npz") as arrays:
        changed = dict(arrays)
    changed["output_0"] = changed["output_0"] + 1
    np.savez(tmp_path / "opened" / "rows.npz", **changed)
    again = tmp_path / "again"
    again.mkdir()
    with pytest.raises(Failure) as refused:
        finish(FinishJob(), tmp_path / "opened", again)
    assert refused.value.kind == "wrong"
    assert facts["remedy"] == ""


def _network(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    rows = StandardScaler().fit_transform(_IRIS[0])
    model = neural_network.MLPClassifier((16,), max_iter=300, random_state=0).fit(rows, _IRIS[1])
    return _convert_here(model, tmp_path, {MATRIX: rows}, **changes)


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_what_int8_costs_is_told(mode: str, tmp_path: Path) -> None:
    facts = _network(tmp_path, quantize=mode, accuracy_loss_max=0.1)
    final = facts["final"]
    assert final["quantized"]["rows"] == 150
    assert f"Quantised to int8 ({mode})" in final["notes"][-1]
    assert {"MatMulInteger", "QuantizeLinear"} & {name.rpartition(".")[2] for name in final["operators"]}
    assert (facts["out"] / "model.float.onnx").is_file()


def test_int8_that_costs_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure) as refused:
        _network(tmp_path, quantize="static", accuracy_loss_max=-1.0)
    assert refused.value.kind == "costly"


def test_trees_stay_in_float(tmp_path: Path) -> None:
    facts = _convert_here(_fit(tree.DecisionTreeClassifier(max_depth=3)), tmp_path, quantize="dynamic")
    assert facts["final"]["quantized"] is None
    assert any("do not quantise" in note for note in facts["final"]["notes"])


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = _fit(ensemble.HistGradientBoostingClassifier(max_iter=5), _IRIS)
    outs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        outs.append(_convert_here(model, tmp_path / name)["out"])
    names = sorted(path.name for path in outs[0].iterdir())
    assert "parity.npz" in names
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name


def test_parity_rows_are_answered_as_the_trained_model_did(tmp_path: Path) -> None:
    model = _fit(ensemble.RandomForestClassifier(5, random_state=0), (_IRIS[0], _NAMED))
    out = _convert_here(model, tmp_path)["out"]
    with np.load(out / "parity.npz", allow_pickle=False) as arrays:
        rows, label, scores = arrays["input_0"], arrays["output_0"], arrays["output_1"]
    assert 32 <= len(rows) <= 64
    assert model.predict(rows).tolist() == label.tolist()
    ours = run_session(plain_session((out / "model.onnx").read_bytes()), {"X": rows})
    assert compare([label, scores], ours, 1e-4, 1e-3).agrees
