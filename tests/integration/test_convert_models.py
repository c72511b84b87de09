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
    model_selection,
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
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, PowerTransformer, StandardScaler

from packager.convert.inside.agreement import compare
from packager.convert.inside.failures import Failure
from packager.convert.inside.finish import finish
from packager.convert.inside.finish_material import FinishJob
from packager.convert.inside.graphs import plain_session, run_session
from packager.convert.inside.open_model import FACTS, _ask, _convert, _wrong, adapt, convert_opened, write_candidate
from packager.convert.inside.opened import Attempt, Job
from packager.convert.inside.samples import MATRIX

_one_thread = importlib.import_module("threadpoolctl").threadpool_limits
_IRIS = datasets.load_iris(return_X_y=True)
_NAMED = np.array(["setosa", "versicolor", "virginica"])[_IRIS[1]]
_CANCER = datasets.load_breast_cancer(return_X_y=True)
_DIABETES = datasets.load_diabetes(return_X_y=True)
_FP64 = "input in FP64"
_ANEW = "its trees written anew"
_DIGITS = datasets.load_digits(return_X_y=True)
_CATEGORIES = (np.c_[_DIABETES[0][:, :2], np.arange(442) % 7 * 3], _DIABETES[1] + 50.0 * (np.arange(442) % 7 == 2))
_TWO_LABELS = np.c_[_IRIS[1], _IRIS[0][:, 0] > 5.5]
# Seconds since 1970: FP32 holds one in 128.
_TIMES = (1.7e9 + np.arange(500.0)[:, None] * 3, np.arange(500) % 50)


@pytest.fixture(autouse=True)
def _foreign_warnings() -> Any:
    """Libraries warn about each other; in the sandbox nobody listens either. One thread, as there."""
    with warnings.catch_warnings(), _one_thread(1):
        warnings.simplefilter("ignore")
        yield


def _convert_here(model: object, folder: Path, sample: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Open and finish as the sandbox's two steps do; the facts of both."""
    opened_folder, out = folder / "opened", folder / "out"
    opened_folder.mkdir(parents=True)
    out.mkdir()
    job = Job(Path("model.pkl"), "pickle")
    opened = adapt(model, sample, job)
    best, errors = convert_opened(opened, _ask(opened), job)
    write_candidate(opened_folder, opened, best, errors)
    finish(FinishJob(**changes), opened_folder, out)
    found: dict[str, Any] = json.loads((opened_folder / FACTS).read_text())
    return {**found, "final": json.loads((out / FACTS).read_text()), "out": out}


def _fit(model: Any, data: tuple[Any, Any] = _IRIS) -> Any:
    return model.fit(*data)


def _lightgbm(kind: str, **more: Any) -> Callable[[], Any]:
    return lambda: _fit(lightgbm.LGBMClassifier(n_estimators=4, boosting_type=kind, verbose=-1, **more))


def _xgboost_categories() -> Any:
    table = pd.DataFrame({"a": _CATEGORIES[0][:, 0], "kind": pd.Categorical(np.arange(442) % 7)})
    return xgboost.XGBRegressor(n_estimators=4, enable_categorical=True, max_cat_to_onehot=1).fit(table, _CATEGORIES[1])


_TABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "logistic, labels as text": (lambda: _fit(linear_model.LogisticRegression(max_iter=2000), (_IRIS[0], _NAMED)), ""),
    "scaler and logistic": (lambda: _fit(make_pipeline(StandardScaler(), linear_model.LogisticRegression())), ""),
    "scaler alone": (lambda: StandardScaler().fit(_IRIS[0]), ""),
    "random forest": (lambda: _fit(ensemble.RandomForestClassifier(10, random_state=0), _CANCER), ""),
    "gradient boosting": (lambda: _fit(ensemble.GradientBoostingRegressor(n_estimators=10, random_state=0), _DIABETES), ""),
    "histogram classifier": (lambda: _fit(ensemble.HistGradientBoostingClassifier(max_iter=10), _CANCER), ""),
    "histogram regressor": (lambda: _fit(ensemble.HistGradientBoostingRegressor(max_iter=10, loss="poisson"), _DIABETES), ""),
    "histogram regressor, times of day": (lambda: _fit(ensemble.HistGradientBoostingRegressor(max_iter=5), _TIMES), _FP64),
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
    "lightgbm": (lambda: _fit(lightgbm.LGBMClassifier(n_estimators=5, verbose=-1), (_IRIS[0], _NAMED)), ""),
    "lightgbm booster": (lambda: _fit(lightgbm.LGBMRegressor(n_estimators=20, verbose=-1), _DIABETES).booster_, ""),
    "lightgbm, averaged": (_lightgbm("rf", bagging_freq=1, bagging_fraction=0.6), ""),
    "lightgbm, dart": (_lightgbm("dart"), ""),
    "lightgbm, one against all": (_lightgbm("gbdt", objective="multiclassova"), ""),
    "lightgbm, square root": (lambda: _fit(lightgbm.LGBMRegressor(n_estimators=4, reg_sqrt=True, verbose=-1), _DIABETES), ""),
    "lightgbm, zero as missing": (
        lambda: _fit(lightgbm.LGBMRegressor(n_estimators=4, zero_as_missing=True, verbose=-1), _DIGITS),
        "",
    ),
    "lightgbm behind a scaler": (
        lambda: _fit(make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(n_estimators=4, verbose=-1)), _CANCER),
        "",
    ),
    "xgboost, dart": (lambda: _fit(xgboost.XGBClassifier(n_estimators=4, booster="dart", rate_drop=0.3), _CANCER), _ANEW),
    "xgboost, zero is missing": (lambda: _fit(xgboost.XGBRegressor(n_estimators=4, missing=0.0), _DIGITS), _ANEW),
    "xgboost, categories": (_xgboost_categories, ""),
    "xgboost, ranks": (
        lambda: xgboost.XGBRanker(n_estimators=4).fit(_DIABETES[0], _DIABETES[1] // 100, qid=np.arange(442) // 40),
        _ANEW,
    ),
    "histogram, categories": (
        lambda: _fit(ensemble.HistGradientBoostingRegressor(max_iter=5, categorical_features=[2]), _CATEGORIES),
        "",
    ),
    "a search": (lambda: _fit(model_selection.GridSearchCV(linear_model.Ridge(), {"alpha": [1, 2]}, cv=2), _DIABETES), ""),
    "several labels": (
        lambda: ensemble.RandomForestClassifier(3, random_state=0).fit(_IRIS[0], _TWO_LABELS),
        "thresholds in FP64",
    ),
    "votes": (
        lambda: _fit(ensemble.VotingClassifier([("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())])),
        "",
    ),
    "counts of words": (lambda: _fit(naive_bayes.MultinomialNB(), _DIGITS), ""),
    "lightgbm, categories": (
        lambda: lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(
            np.c_[_DIABETES[0][:, :2], np.arange(442) % 11], _DIABETES[1], categorical_feature=[2]
        ),
        "",
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
        assert f"Converted with a remedy, {remedy}; without it: as usual: " in facts["final"]["notes"][0]


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


def _with_gaps() -> tuple[Any, Any]:
    rows = _CANCER[0].copy()
    rows[::7, 20] = np.nan
    rows[_CANCER[1] == 1, 3] = np.nan
    return rows, _CANCER[1]


@pytest.mark.parametrize("steps", [[], [StandardScaler()]], ids=["alone", "behind a scaler"])
@pytest.mark.parametrize(
    "trees",
    [
        tree.DecisionTreeClassifier(max_depth=2, random_state=0),
        ensemble.RandomForestClassifier(4, random_state=0),
        ensemble.BaggingClassifier(n_estimators=3, random_state=0),
        ensemble.HistGradientBoostingClassifier(max_iter=4),
        lightgbm.LGBMClassifier(n_estimators=4, verbose=-1),
        xgboost.XGBClassifier(n_estimators=4),
    ],
    ids=lambda trees: type(trees).__name__,
)
def test_missing_values_take_the_branch_that_was_trained(trees: Any, steps: list[Any], tmp_path: Path) -> None:
    rows, labels = _with_gaps()
    # A tree that branches on missing values alone has an infinite threshold, which skl2onnx never ends on.
    model = make_pipeline(*steps, trees).fit(rows, labels) if steps else trees.fit(rows, labels)
    out = _convert_here(model, tmp_path)["out"]
    asked = rows[:200].astype(np.float32)
    label, scores = run_session(plain_session((out / "model.onnx").read_bytes()), {"X": asked})
    assert label.tolist() == model.predict(asked.astype(np.float64)).tolist()
    assert np.allclose(scores, model.predict_proba(asked.astype(np.float64)), atol=1e-4)


def test_missing_values_that_a_conversion_gets_wrong_are_refused_or_told(tmp_path: Path) -> None:
    model = PowerTransformer().fit(_IRIS[0])
    with pytest.raises(Failure) as refused:
        _convert_here(model, tmp_path / "a")
    assert refused.value.kind == "wrong"
    assert "a sample input without any says that none will come" in str(refused.value.fields["tried"])
    notes = _convert_here(model, tmp_path / "b", {MATRIX: _IRIS[0]})["final"]["notes"]
    assert any("send none" in note for note in notes)


def test_bins_that_data_lies_on_are_compared_there(tmp_path: Path) -> None:
    model = _fit(make_pipeline(KBinsDiscretizer(encode="ordinal"), linear_model.LogisticRegression()))
    with pytest.raises(Failure) as refused:
        _convert_here(model, tmp_path)
    assert refused.value.kind == "wrong"


def test_trees_behind_a_scaler_answer_rows_on_their_thresholds(tmp_path: Path) -> None:
    model = _fit(make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(20, random_state=0)))
    asked = _IRIS[0].astype(np.float32)
    found = run_session(plain_session((_convert_here(model, tmp_path)["out"] / "model.onnx").read_bytes()), {"X": asked})
    assert np.allclose(found[1], model.predict_proba(asked.astype(np.float64)), atol=1e-5)


def test_words_of_all_languages_are_words(tmp_path: Path) -> None:
    texts = ["ein \u00fcbler film", "sch\u00f6n a n d gut", "don't like it", "\u0444\u0438\u043b\u044c\u043c"] * 4
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), linear_model.LogisticRegression()).fit(texts, [0, 1, 0, 1] * 4)
    facts = _convert_here(model, tmp_path)
    session = plain_session((facts["out"] / "model.onnx").read_bytes())
    asked = [*texts[:4], "SCH\u00d6N \u00dcBLER", "", "\u0444\u0438\u043b\u044c\u043c a film"]
    found = run_session(session, {"text": np.array(asked, dtype=object).reshape(-1, 1)})
    assert np.allclose(found[1], model.predict_proba(asked), atol=1e-5)


def test_models_without_fit_or_rows_are_named(tmp_path: Path) -> None:
    for model, kind in (
        (xgboost.XGBClassifier(), "no_predict"),
        (_fit(lightgbm.LGBMRegressor(linear_tree=True, verbose=-1), _DIABETES), "unsupported"),
    ):
        with pytest.raises(Failure) as refused:
            _convert_here(model, tmp_path / kind)
        assert refused.value.kind == kind


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
