"""What LightGBM, XGBoost and scikit-learn's histogram boosting have learned, read into the words of forest.py."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from .agreement import Array
from .failures import Failure
from .forest import Forest, Leaf, Link, Split, Tree

_LIGHTGBM_ZERO = float(np.float32(1e-35))
_LIGHTGBM_EXP = ("poisson", "gamma", "tweedie")
_LIGHTGBM_PLAIN = ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom", "")
_HISTOGRAM_LINKS: dict[str, Link] = {
    "IdentityLink": "identity",
    "LogLink": "exp",
    "LogitLink": "sigmoid",
    "MultinomialLogit": "softmax",
}
_XGBOOST_EXP = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")
_XGBOOST_SIGMOID = ("binary:logistic", "reg:logistic")


def forest_of(model: Any) -> Forest | None:  # noqa: ANN401 - any model
    """The forest of an estimator or booster of the three libraries; None for what is none. Raises Failure `unsupported`."""
    name, library = type(model).__name__, type(model).__module__.partition(".")[0]
    classes = getattr(model, "classes_", None) if hasattr(model, "predict_proba") else None
    classes = None if classes is None else np.asarray(classes)
    if name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
        return histogram_forest(model)
    if library == "lightgbm":
        return lightgbm_forest(getattr(model, "booster_", model).dump_model(), classes)
    if library == "xgboost" and hasattr(model, "get_booster"):
        best = getattr(model, "best_iteration", None) if getattr(model, "early_stopping_rounds", None) else None
        missing = model.missing if isinstance(model.missing, int | float) else math.nan
        return xgboost_forest(model.get_booster(), classes, float(missing), None if best is None else int(best) + 1)
    return xgboost_forest(model, None, math.nan, None) if library == "xgboost" else None


def lightgbm_forest(dumped: dict[str, Any], classes: Array | None) -> Forest:
    """``dumped``: Booster.dump_model(). Raises Failure `unsupported`."""
    words = str(dumped.get("objective", "")).split()
    objective, options = (words or [""])[0], words[1:]
    targets = int(dumped["num_tree_per_iteration"])
    link, scale = _lightgbm_link(objective, options)
    trees = dumped["tree_info"]
    share = 1.0 / max(1, len(trees) // targets) if dumped.get("average_output") else 1.0
    if classes is None and link in ("sigmoid", "softmax", "sigmoids") and objective in ("binary", "multiclass", "multiclassova"):
        classes = np.arange(max(2, targets))
    zeros, whole, near_zero = _lightgbm_columns(trees)
    return Forest(
        features=int(dumped["max_feature_idx"]) + 1,
        trees=[(number % targets, _lightgbm_tree(tree["tree_structure"], share)) for number, tree in enumerate(trees)],
        base=[0.0] * targets,
        link=link,
        scale=scale,
        classes=classes,
        zero_missing=zeros,
        zero_width=_LIGHTGBM_ZERO if near_zero or zeros else 0.0,
        whole=whole,
    )


def _lightgbm_link(objective: str, options: list[str]) -> tuple[Link, float]:
    named = dict(option.split(":", 1) for option in options if ":" in option)
    scale = float(named.get("sigmoid", 1.0))
    if objective in ("binary", "multiclassova"):
        return ("sigmoid" if objective == "binary" else "sigmoids"), scale
    if objective in ("cross_entropy", "xentropy"):
        return "sigmoid", 1.0
    if objective in ("cross_entropy_lambda", "xentlambda"):
        return "softplus", 1.0
    if objective == "multiclass":
        return "softmax", 1.0
    if objective in _LIGHTGBM_EXP:
        return "exp", 1.0
    if objective in _LIGHTGBM_PLAIN:
        return ("square" if "sqrt" in options else "identity"), 1.0
    raise Failure("unsupported", what=f"LightGBM's objective {objective}", problem="what it makes of its sums is not known")


def _lightgbm_nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    found, waiting = [], [node]
    while waiting:
        one = waiting.pop()
        found.append(one)
        if "split_feature" in one:
            waiting += [one["right_child"], one["left_child"]]
    return found


def _lightgbm_columns(trees: list[dict[str, Any]]) -> tuple[frozenset[int], frozenset[int], bool]:
    """Features whose zeros count as missing, those of categories, and whether it matters that numbers near zero count as zero."""
    splits = [node for tree in trees for node in _lightgbm_nodes(tree["tree_structure"]) if "split_feature" in node]
    zeros = {int(node["split_feature"]) for node in splits if node["missing_type"] == "Zero" and node["decision_type"] == "<="}
    whole = {int(node["split_feature"]) for node in splits if node["decision_type"] == "=="}
    near_zero = any(node["decision_type"] == "<=" and -_LIGHTGBM_ZERO <= node["threshold"] < _LIGHTGBM_ZERO for node in splits)
    return frozenset(zeros - whole), frozenset(whole), near_zero


def _lightgbm_tree(root: dict[str, Any], share: float) -> Tree:
    nodes = _lightgbm_nodes(root)
    places = {id(node): index for index, node in enumerate(nodes)}
    tree: Tree = []
    for node in nodes:
        if "split_feature" not in node:
            if node.get("leaf_coeff"):
                raise Failure("unsupported", what="LightGBM's linear trees", problem="ONNX has constant leaves only")
            tree.append(Leaf(float(node["leaf_value"]) * share))
            continue
        feature, left, right = int(node["split_feature"]), places[id(node["left_child"])], places[id(node["right_child"])]
        if node["decision_type"] == "==":
            members = tuple(float(value) for value in str(node["threshold"]).split("||"))
            tree.append(Split(feature, left, right, missing_left=False, members=members))
            continue
        threshold = float(node["threshold"])
        # Where training saw no missing value, one counts as zero.
        missing_left = threshold >= 0.0 if node["missing_type"] == "None" else bool(node["default_left"])
        tree.append(Split(feature, left, right, missing_left, threshold))
    return tree


def histogram_forest(model: Any) -> Forest:  # noqa: ANN401 - HistGradientBoosting
    """Raises Failure `unsupported`."""
    try:
        link = _HISTOGRAM_LINKS[type(model._loss.link).__name__]  # noqa: SLF001 - nothing public tells it
    except (AttributeError, KeyError) as problem:
        raise Failure("unsupported", what="its loss", problem="what it makes of its sums is not known") from problem
    columns, categories = histogram_columns(model)
    trees: list[tuple[int, Tree]] = []
    for stage in model._predictors:  # noqa: SLF001 - nothing public tells it
        for target, predictor in enumerate(stage):
            trees.append((target, _histogram_tree(predictor, columns, categories)))
    base = np.asarray(model._baseline_prediction, dtype=np.float64).ravel().tolist()  # noqa: SLF001 - nothing public tells it
    classes = np.asarray(model.classes_) if hasattr(model, "classes_") else None
    return Forest(int(model.n_features_in_), trees, base, link, classes=classes)


def histogram_columns(model: Any) -> tuple[list[int], dict[int, list[float]]]:  # noqa: ANN401 - HistGradientBoosting
    """Which input column each of its own is (categories come first inside), and what the numbers of categories stand for.

    Raises Failure `unsupported` for categories that are text.
    """
    features = int(model.n_features_in_)
    preprocessor = getattr(model, "_preprocessor", None)
    if preprocessor is None:
        return list(range(features)), {}
    first = np.asarray(preprocessor.transformers_[0][2])
    chosen = np.flatnonzero(first) if first.dtype.kind == "b" else first
    rest = [index for index in range(features) if index not in set(chosen.tolist())]
    columns = [*chosen.tolist(), *rest]
    categories = {}
    for position, values in enumerate(preprocessor.named_transformers_["encoder"].categories_):
        if np.asarray(values).dtype.kind not in "biuf":
            raise Failure("unsupported", what="categories that are text", problem="trees take numbers")
        categories[position] = [float(value) for value in values]
    return columns, categories


def _histogram_tree(predictor: Any, columns: list[int], categories: dict[int, list[float]]) -> Tree:  # noqa: ANN401 - TreePredictor
    tree: Tree = []
    for node in predictor.nodes:
        if node["is_leaf"]:
            tree.append(Leaf(float(node["value"])))
            continue
        own, left, right = int(node["feature_idx"]), int(node["left"]), int(node["right"])
        missing_left = bool(node["missing_go_to_left"])
        if not node["is_categorical"]:
            tree.append(Split(columns[own], left, right, missing_left, float(node["num_threshold"])))
            continue
        bits = predictor.raw_left_cat_bitsets[int(node["bitset_idx"])]
        values = [value for value in categories[own] if not math.isnan(value)]
        inside = [bool((int(bits[code // 32]) >> (code % 32)) & 1) for code in range(len(values))]
        members = tuple(value for value, is_in in zip(values, inside, strict=True) if is_in)
        others = tuple(value for value, is_in in zip(values, inside, strict=True) if not is_in)
        tree.append(Split(columns[own], left, right, missing_left, members=members, others=others))
    return tree


def xgboost_forest(booster: Any, classes: Array | None, missing: float, iterations: int | None) -> Forest:  # noqa: ANN401 - xgboost.Booster
    """``iterations``: how many of them answer, None: all. Raises Failure `unsupported`."""
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    booster_part = learner["gradient_booster"]
    drop = booster_part.get("weight_drop")
    model = booster_part.get("gbtree", booster_part).get("model")
    if model is None or "trees" not in model:
        raise Failure("unsupported", what=f"the booster {booster_part.get('name')}", problem="it has no trees")
    parameters = learner["learner_model_param"]
    targets = max(
        1, int(parameters["num_class"]), int(parameters.get("num_target", "1")), *(int(one) + 1 for one in model["tree_info"])
    )
    count = len(model["trees"]) if iterations is None else int(model["iteration_indptr"][iterations])
    trees = [
        (int(target), _xgboost_tree(tree, 1.0 if drop is None else float(drop[number])))
        for number, (tree, target) in enumerate(zip(model["trees"][:count], model["tree_info"], strict=False))
    ]
    objective = learner["objective"]["name"]
    link = _xgboost_link(objective)
    base = [_margin(value, link) for value in _base_scores(str(parameters["base_score"]), targets)]
    if classes is None and objective.startswith(("binary:logistic", "multi:")):
        classes = np.arange(max(2, targets))
    return Forest(
        int(parameters["num_feature"]),
        trees,
        base,
        link,
        classes=classes,
        missing=None if math.isnan(missing) else float(missing),
        reads_float=True,
    )


def _xgboost_link(objective: str) -> Link:
    if objective in _XGBOOST_SIGMOID:
        return "sigmoid"
    if objective.startswith("multi:"):
        return "softmax"
    if objective in _XGBOOST_EXP:
        return "exp"
    return "step" if objective == "binary:hinge" else "identity"


def _base_scores(text: str, targets: int) -> list[float]:
    values = [float(one) for one in text.strip("[]").split(",")]
    return values * targets if len(values) == 1 else values


def _margin(value: float, link: Link) -> float:
    if link == "sigmoid":
        return math.log(value / (1 - value))
    return math.log(value) if link == "exp" else value


def _xgboost_tree(tree: dict[str, Any], weight: float) -> Tree:
    if int(tree["tree_param"].get("size_leaf_vector", "1") or 1) > 1:
        raise Failure("unsupported", what="trees with several targets in a leaf", problem="they are not known here")
    sets = _xgboost_sets(tree)
    found: Tree = []
    for index, (left, right) in enumerate(zip(tree["left_children"], tree["right_children"], strict=True)):
        condition = float(np.float32(tree["split_conditions"][index]))
        if left < 0:
            found.append(Leaf(condition * weight))
            continue
        feature, missing_left = int(tree["split_indices"][index]), bool(tree["default_left"][index])
        if index in sets:
            # Here what is in the set goes right, and what nobody named left.
            found.append(Split(feature, right, left, missing_left=not missing_left, members=sets[index]))
            continue
        found.append(Split(feature, left, right, missing_left, condition, strict=True))
    return found


def _xgboost_sets(tree: dict[str, Any]) -> dict[int, tuple[float, ...]]:
    """Node → its categories."""
    sets = {}
    for node, begin, size in zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True):
        sets[int(node)] = tuple(float(value) for value in tree["categories"][begin : begin + size])
    return sets
