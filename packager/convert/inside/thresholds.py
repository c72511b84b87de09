"""Where the trees of a model branch: feature → thresholds, exact. Only trees that see the model's own inputs count."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .agreement import Array

Split = tuple[int, float]
# How many estimators inside each other are looked into.
_DEPTH = 4
# What stands for infinity: branches that only missing values do not take.
_BEYOND = 1e37


def sklearn_thresholds(model: Any) -> dict[int, Array]:  # noqa: ANN401 - of any library
    return _grouped(_sklearn_splits(model, depth=0))


def plain_trees(model: Any) -> list[Any]:  # noqa: ANN401 - any estimator
    """The `tree_` of a scikit-learn tree or of all trees of a forest, in the order in which they are converted."""
    if hasattr(getattr(model, "tree_", None), "children_left"):
        return [model.tree_]
    parts = np.array(getattr(model, "estimators_", []), dtype=object).ravel().tolist()
    return [part.tree_ for part in parts if hasattr(getattr(part, "tree_", None), "children_left")]


def inner_trees(model: Any, depth: int = 0) -> list[Any]:  # noqa: ANN401 - any estimator
    """scikit-learn's own trees wherever they are in the model, behind other steps too."""
    own = plain_trees(model)
    if own or depth == _DEPTH:
        return own
    parts = [step for _, step in getattr(model, "steps", [])]
    for name in ("estimators_", "calibrated_classifiers_"):
        parts += np.array(getattr(model, name, []), dtype=object).ravel().tolist()
    parts += [getattr(model, name, None) for name in ("estimator_", "estimator", "best_estimator_", "final_estimator_")]
    return [tree for part in parts if part is not None for tree in inner_trees(part, depth + 1)]


def xgboost_thresholds(booster: Any) -> dict[int, Array]:  # noqa: ANN401 - xgboost.Booster
    names = {name: index for index, name in enumerate(booster.feature_names or [])}
    return _grouped(split for tree in booster.get_dump(dump_format="json") for split in _xgboost_splits(json.loads(tree), names))


def lightgbm_thresholds(dumped: dict[str, Any]) -> dict[int, Array]:
    """``dumped``: Booster.dump_model()."""
    return _grouped(split for tree in dumped["tree_info"] for split in _lightgbm_splits(tree["tree_structure"]))


def _grouped(splits: Iterable[Split]) -> dict[int, Array]:
    found: dict[int, set[float]] = {}
    for feature, value in splits:
        if abs(value) < _BEYOND:
            found.setdefault(int(feature), set()).add(float(value))
    return {feature: np.array(sorted(values)) for feature, values in sorted(found.items())}


def _sklearn_splits(model: Any, depth: int) -> Iterator[Split]:  # noqa: ANN401 - any estimator
    tree = getattr(model, "tree_", None)
    if tree is not None and hasattr(tree, "threshold") and hasattr(tree, "children_left"):
        inner = np.asarray(tree.children_left) >= 0
        yield from zip(np.asarray(tree.feature)[inner].tolist(), np.asarray(tree.threshold)[inner].tolist(), strict=True)
        return
    for stage in getattr(model, "_predictors", None) or []:
        for predictor in stage:
            for node in predictor.nodes:
                if not node["is_leaf"] and not node["is_categorical"]:
                    yield int(node["feature_idx"]), float(node["num_threshold"])
    if depth < _DEPTH:
        for part in _parts(model):
            yield from _sklearn_splits(part, depth + 1)


def _parts(model: Any) -> Iterator[Any]:  # noqa: ANN401 - any estimator
    steps = getattr(model, "steps", None)
    if steps:
        # Behind another step the values are no longer those of the inputs.
        yield from [step for _, step in steps if step not in (None, "passthrough")][:1]
        return
    if hasattr(model, "estimators_features_"):
        return  # a bag whose trees see a choice of the columns under other numbers
    for name in ("estimators_", "calibrated_classifiers_"):
        yield from np.array(getattr(model, name, []), dtype=object).ravel().tolist()
    for name in ("estimator_", "estimator", "best_estimator_"):
        if hasattr(model, name) and not hasattr(model, "estimators_"):
            yield getattr(model, name)


def _xgboost_splits(node: dict[str, Any], names: dict[str, int]) -> Iterator[Split]:
    if "split_condition" not in node:
        return
    name = str(node["split"])
    feature = names[name] if name in names else int(name.lstrip("f")) if name.lstrip("f").isdigit() else -1
    if feature >= 0 and isinstance(node["split_condition"], int | float):
        yield feature, float(node["split_condition"])
    for child in node.get("children", []):
        yield from _xgboost_splits(child, names)


def _lightgbm_splits(node: dict[str, Any]) -> Iterator[Split]:
    if "split_feature" not in node:
        return
    if node.get("decision_type") == "<=":
        yield int(node["split_feature"]), float(node["threshold"])
    for side in ("left_child", "right_child"):
        yield from _lightgbm_splits(node[side])
