"""XGBoost and LightGBM: boosters and the estimators around them, for onnxmltools."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .agreement import Array
from .boosted_trees import forest_of
from .failures import Failure
from .forest import forest_model
from .opened import Attempt, Job, Opened
from .precision import with_float_inputs
from .rows import Terrain, check_rows
from .samples import matrix_of
from .thresholds import lightgbm_thresholds, xgboost_thresholds

# onnxmltools writes opsets up to here for boosters.
_OPSET_MOST = 15

Ask = Callable[[Array], "list[Array]"]


def open_xgboost(model: Any, sample: dict[str, Array] | None, job: Job) -> Opened:  # noqa: ANN401 - Booster or XGBModel
    """Raises Failure `sample_unfit`."""
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    names = list(booster.feature_names) if booster.feature_names else None
    features = int(booster.num_features())
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    thresholds = xgboost_thresholds(booster)
    ask = _xgboost_estimator(model) if hasattr(model, "get_booster") else _xgboost_booster(booster, objective, names)
    whole = frozenset(index for index, kind in enumerate(booster.feature_types or []) if kind in ("int", "c"))
    terrain = Terrain(features, thresholds=thresholds, takes_nan=True, whole=whole)

    def convert() -> Any:  # noqa: ANN401 - onnx.ModelProto
        # The converter reads features by number; names as the user gave them stop it.
        booster.feature_names = None
        try:
            return _onnxmltools(model, features, job)
        finally:
            booster.feature_names = names

    attempts = [Attempt("", convert), Attempt("its trees written anew", lambda: with_float_inputs(_own(model, "X")))]
    return _opened(model, ask, terrain, names, sample, job, attempts, _class_names(model))


def open_lightgbm(model: Any, sample: dict[str, Array] | None, job: Job) -> Opened:  # noqa: ANN401 - Booster or LGBMModel
    """Raises Failure `sample_unfit`."""
    booster = getattr(model, "booster_", model)
    dumped = booster.dump_model()
    names = [str(name) for name in dumped["feature_names"]]
    features = int(dumped["max_feature_idx"]) + 1
    thresholds = lightgbm_thresholds(dumped)
    ask = _estimator(model) if hasattr(model, "booster_") else _lightgbm_booster(booster, str(dumped.get("objective", "")))
    infos = dumped.get("feature_infos", {})
    whole = frozenset(index for index, name in enumerate(names) if infos.get(name, {}).get("values"))
    terrain = Terrain(features, thresholds=thresholds, takes_nan=True, whole=whole)

    attempts = [
        Attempt("", lambda: with_float_inputs(_own(model, "X")), narrow=True),
        Attempt("input in FP64", lambda: _own(model, "X")),
    ]
    return _opened(model, ask, terrain, names, sample, job, attempts, _class_names(model))


def _own(model: Any, name: str) -> Any:  # noqa: ANN401 - of either library, a ModelProto
    forest = forest_of(model)
    if forest is None:
        raise Failure("unsupported", what=type(model).__name__, problem="it has no trees")
    return forest_model(forest, name)


def _opened(
    model: Any,  # noqa: ANN401 - of either library
    ask: Ask,
    terrain: Terrain,
    names: list[str] | None,
    sample: dict[str, Array] | None,
    job: Job,
    attempts: list[Attempt],
    labels: list[str] | None,
) -> Opened:
    given = None if sample is None else matrix_of(sample, terrain.features, names)
    name = job.input_names[0] if len(job.input_names) == 1 else "X"
    job_rows = check_rows(terrain, given, ask)

    def answer(rows: dict[str, Array]) -> list[Array]:
        return ask(rows[name])

    renamed = [replace(one, make=lambda one=one: _rename_input(one.make(), name)) for one in attempts]  # type: ignore[misc]  # bound now
    kind = type(model).__name__
    return Opened(
        kind, {name: job_rows.values}, job_rows.from_sample, answer, renamed, labels, ordinary=job_rows.ordinary, gaps_named=True
    )


def _onnxmltools(model: Any, features: int, job: Job) -> Any:  # noqa: ANN401 - of XGBoost, a ModelProto
    onnxmltools = importlib.import_module("onnxmltools")
    types = importlib.import_module("onnxmltools.convert.common.data_types")
    opset = min(job.target_opset, _OPSET_MOST)
    return onnxmltools.convert_xgboost(model, initial_types=[("X", types.FloatTensorType([None, features]))], target_opset=opset)


def _rename_input(model: Any, name: str) -> Any:  # noqa: ANN401 - onnx.ModelProto
    old = model.graph.input[0].name
    for node in model.graph.node:
        for index, read in enumerate(node.input):
            if read == old:
                node.input[index] = name
    model.graph.input[0].name = name
    return model


def _estimator(model: Any) -> Ask:  # noqa: ANN401 - an estimator
    def ask(rows: Array) -> list[Array]:
        first = [np.asarray(model.predict(rows))]
        return [*first, np.asarray(model.predict_proba(rows))] if hasattr(model, "predict_proba") else first

    return ask


def _xgboost_estimator(model: Any) -> Ask:  # noqa: ANN401 - XGBModel
    names = model.get_booster().feature_names
    plain = _estimator(model)
    if "c" in (model.get_booster().feature_types or []):
        return _xgboost_categories(model)
    if not names:
        return plain

    def ask(rows: Array) -> list[Array]:
        return _estimator(model)(importlib.import_module("pandas").DataFrame(rows, columns=names))

    return ask


def _xgboost_categories(model: Any) -> Ask:  # noqa: ANN401 - XGBModel
    """Asked by the numbers of its categories, which the estimator takes from a data frame only."""
    matrix, booster = importlib.import_module("xgboost").DMatrix, model.get_booster()
    best = getattr(model, "best_iteration", None) if getattr(model, "early_stopping_rounds", None) else None
    span = (0, 0 if best is None else int(best) + 1)

    def ask(rows: Array) -> list[Array]:
        named = {"feature_names": booster.feature_names, "feature_types": booster.feature_types}
        scores = np.asarray(booster.predict(matrix(rows, enable_categorical=True, **named), iteration_range=span))
        if not hasattr(model, "predict_proba"):
            return [scores]
        scores = np.column_stack([1 - scores, scores]) if scores.ndim == 1 else scores
        return [np.asarray(model.classes_)[scores.argmax(axis=1)], scores]

    return ask


def _xgboost_booster(booster: Any, objective: str, names: list[str] | None) -> Ask:  # noqa: ANN401 - xgboost.Booster
    matrix, kinds = importlib.import_module("xgboost").DMatrix, booster.feature_types

    def ask(rows: Array) -> list[Array]:
        return _labelled(
            np.asarray(booster.predict(matrix(rows, feature_names=names, feature_types=kinds, enable_categorical=True))),
            objective,
        )

    return ask


def _lightgbm_booster(booster: Any, objective: str) -> Ask:  # noqa: ANN401 - lightgbm.Booster
    return lambda rows: _labelled(np.asarray(booster.predict(rows)), objective)


def _labelled(scores: Array, objective: str) -> list[Array]:
    """A booster gives scores only; its conversion says the label as well."""
    if objective.startswith(("binary:logistic", "binary sigmoid")) and scores.ndim == 1:
        return [(scores > 0.5).astype(np.int64), np.column_stack([1 - scores, scores])]
    if objective.startswith("multi") and scores.ndim == 2:
        return [scores.argmax(axis=1), scores]
    return [scores]


def _class_names(model: Any) -> list[str] | None:  # noqa: ANN401 - an estimator or a booster
    try:
        return [str(label) for label in model.classes_]
    except AttributeError:
        return None
