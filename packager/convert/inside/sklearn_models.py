"""scikit-learn estimators and pipelines, those around XGBoost and LightGBM included, for skl2onnx."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

from .agreement import Array
from .double_trees import with_double_thresholds, with_missing_branches
from .failures import Failure
from .opened import ML_DOMAIN, ML_OPSET, Attempt, Job, Opened
from .rows import SEED, Terrain, check_rows
from .samples import matrix_of
from .thresholds import inner_trees, plain_trees, sklearn_thresholds

_TABLE_ROWS = 256


def open_sklearn(model: Any, sample: dict[str, Array] | None, job: Job) -> Opened:  # noqa: ANN401 - any estimator
    """Raises Failure `no_predict`, `sample_needed`, `sample_unfit`."""
    if not any(hasattr(model, name) for name in ("predict", "transform")):
        raise Failure("no_predict", found=_kind(model))
    columns = _text_columns(model, sample)
    if columns is not None:
        return _by_column(model, columns, sample, job)
    return _by_matrix(model, sample, job)


def _by_matrix(model: Any, sample: dict[str, Array] | None, job: Job) -> Opened:  # noqa: ANN401 - any estimator
    features = getattr(model, "n_features_in_", None)
    if features is None:
        raise Failure("sample_needed", why=f"{_kind(model)} does not say how many values a row has")
    names = [str(name) for name in getattr(model, "feature_names_in_", [])] or None
    given = None if sample is None else matrix_of(sample, int(features), names)
    thresholds = sklearn_thresholds(model)
    # Trees branch on gaps by what they saw; converters forget it. That matters only to whom rows with gaps are.
    with_gaps = _takes_nan(model) and (not inner_trees(model) or (given is not None and bool(np.isnan(given).any())))
    terrain = Terrain(int(features), *_center(model, int(features)), thresholds, with_gaps)
    name = job.input_names[0] if len(job.input_names) == 1 else "X"

    def answer(rows: dict[str, Array]) -> list[Array]:
        return answers(model, _frame(rows[name], names))

    def accepted(values: Array) -> bool:
        return _answers(lambda: answer({name: values}))

    rows = check_rows(terrain, given, accepted)

    def converted(tensor_type: str) -> Any:  # noqa: ANN401 - onnx.ModelProto
        return _convert(model, [(name, _type(tensor_type)([None, int(features)]))], job)

    attempts = [Attempt("", lambda: converted("FloatTensorType"))]
    if thresholds:
        remedy = "thresholds and input in FP64"
        attempts.append(Attempt(remedy, lambda: with_double_thresholds(converted("FloatTensorType"), thresholds)))
    if with_gaps and plain_trees(model):
        remedy = "the branch of missing values as trained"
        attempts.append(Attempt(remedy, lambda: with_missing_branches(converted("FloatTensorType"), plain_trees(model))))
    attempts.append(Attempt("all numbers in FP64", lambda: converted("DoubleTensorType")))
    notes = []
    if _takes_nan(model) and not with_gaps:
        notes.append("Rows with missing values (NaN) were not compared: the sample input has none.")
    return Opened(_kind(model), {name: rows.values}, rows.from_sample, answer, attempts, _labels(model), notes)


def _by_column(model: Any, columns: dict[str, Array], sample: dict[str, Array] | None, job: Job) -> Opened:  # noqa: ANN401 - any estimator
    """One input [rows, 1] for each column: text and numbers do not fit one tensor."""
    random = np.random.default_rng(SEED)
    own = len(next(iter(columns.values()))) if sample is not None else _TABLE_ROWS
    rows = {name: _mixed(values, own, random) for name, values in columns.items()}
    single = list(rows) == [""]
    if single:
        rows = {job.input_names[0] if job.input_names else "text": rows[""]}

    def answer(given: dict[str, Array]) -> list[Array]:
        if single:
            return answers(model, next(iter(given.values())).ravel())
        return answers(model, _table_frame(given))

    try:
        answer(rows)
    except Exception as problem:
        raise Failure("sample_unfit", problem=f"{type(problem).__name__}: {problem}") from problem

    def converted(numbers: str) -> Any:  # noqa: ANN401 - onnx.ModelProto
        kinds = {name: "StringTensorType" if values.dtype.kind == "U" else numbers for name, values in rows.items()}
        return _convert(model, [(name, _type(kind)([None, 1])) for name, kind in kinds.items()], job)

    attempts = [
        Attempt("", lambda: converted("FloatTensorType")),
        Attempt("all numbers in FP64", lambda: converted("DoubleTensorType")),
    ]
    return Opened(_kind(model), rows, min(own, _TABLE_ROWS), answer, attempts, _labels(model))


def answers(model: Any, rows: Any) -> list[Array]:  # noqa: ANN401 - any estimator, any table
    """What the original says, in the order in which its conversion does: label and scores, or values."""
    if not hasattr(model, "predict"):
        transformed = model.transform(rows)
        return [np.asarray(transformed.toarray() if hasattr(transformed, "toarray") else transformed)]
    first = np.asarray(model.predict(rows))
    for name in _scores(model):
        second = getattr(model, name)(rows)
        if not isinstance(second, list):
            return [first, np.asarray(second)]
    return [first]


def _scores(model: Any) -> list[str]:  # noqa: ANN401 - any estimator
    kind = getattr(model, "_estimator_type", None) or _tagged_kind(model)
    wanted = {"classifier": ["predict_proba", "decision_function"], "outlier_detector": ["decision_function"]}
    wanted["clusterer"] = ["transform"]
    return [name for name in wanted.get(str(kind), []) if hasattr(model, name)][:1]


def _tagged_kind(model: Any) -> object:  # noqa: ANN401 - any estimator
    try:
        return importlib.import_module("sklearn.utils").get_tags(model).estimator_type
    except Exception:  # noqa: BLE001 - foreign code; what it does not say is not known
        return None


def _takes_nan(model: Any) -> bool:  # noqa: ANN401 - any estimator
    try:
        return bool(importlib.import_module("sklearn.utils").get_tags(model).input_tags.allow_nan)
    except Exception:  # noqa: BLE001 - older generations say it otherwise, or not at all
        return "HistGradientBoosting" in type(model).__name__


def _convert(model: Any, initial_types: list[tuple[str, Any]], job: Job) -> Any:  # noqa: ANN401 - any estimator, a ModelProto
    skl2onnx = importlib.import_module("skl2onnx")
    if any(np.isinf(tree.threshold).any() for tree in inner_trees(model)):
        # skl2onnx looks for the next smaller number of infinity, for ever.
        raise Failure("unsupported", what="a tree that branches on missing values alone", problem="its threshold is infinite")
    _know_boosters()
    flattened = [step for step in _steps(model) if getattr(step, "flatten_transform", False)]
    for step in flattened:
        step.flatten_transform = False  # it only shapes what `transform` gives, and stops the converter
    target = {"": job.target_opset, ML_DOMAIN: ML_OPSET}
    plain: dict[str, object] = {"initial_types": initial_types, "target_opset": target}
    try:
        for options in _wishes(model):
            try:
                given = {"options": {id(model): options}} if options else {}
                return _in_any_locale(skl2onnx.convert_sklearn(model, **plain, **given))
            except (NameError, ValueError):
                if not options:
                    raise
        raise AssertionError("the last wish is none")
    finally:
        for step in flattened:
            step.flatten_transform = True


def _wishes(model: Any) -> list[dict[str, bool]]:  # noqa: ANN401 - any estimator
    """Options that a converter may know: tensors instead of a sequence of maps, and scores with their own sign."""
    scores = _scores(model)
    if scores == ["predict_proba"]:
        return [{"zipmap": False}, {}]
    if scores == ["decision_function"]:
        return [{"zipmap": False, "raw_scores": True}, {"raw_scores": True}, {"zipmap": False}, {}]
    return [{}]


def _in_any_locale(model: Any) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """Lower case by a locale that small systems have: with the usual one (en_US) the model does not even load there."""
    from onnx import helper

    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("locale", "C.UTF-8")])
    return model


def _steps(model: Any) -> list[Any]:  # noqa: ANN401 - any estimator
    return [model, *(step for _, step in getattr(model, "steps", []))]


def _type(name: str) -> Any:  # noqa: ANN401 - one of skl2onnx's types
    return getattr(importlib.import_module("skl2onnx.common.data_types"), name)


def _know_boosters() -> None:
    """Pipelines may hold estimators of other libraries, whose converters onnxmltools has. Without it they stay unknown."""
    if not {"xgboost", "lightgbm"} & set(sys.modules):
        return
    try:
        shapes = importlib.import_module("skl2onnx.common.shape_calculator")
        update = importlib.import_module("skl2onnx").update_registered_converter
        makers = "onnxmltools.convert.{0}.operator_converters.{1}"
    except ImportError:
        return
    table = (
        ("xgboost", "XGBClassifier", makers.format("xgboost", "XGBoost"), "convert_xgboost"),
        ("xgboost", "XGBRegressor", makers.format("xgboost", "XGBoost"), "convert_xgboost"),
        ("lightgbm", "LGBMClassifier", makers.format("lightgbm", "LightGbm"), "convert_lightgbm"),
        ("lightgbm", "LGBMRegressor", makers.format("lightgbm", "LightGbm"), "convert_lightgbm"),
    )
    for library, name, module, function in table:
        if library not in sys.modules:
            continue
        try:
            estimator = getattr(importlib.import_module(library), name)
            convert = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError):
            continue
        is_classifier = name.endswith("Classifier")
        kind = "classifier" if is_classifier else "regressor"
        shape = getattr(shapes, f"calculate_linear_{kind}_output_shapes")
        options: dict[str, object] = {"nocl": [True, False], "zipmap": [True, False, "columns"]} if is_classifier else {}
        update(estimator, f"{library}{name}", shape, convert, options={**options, "split": None})


def _text_columns(model: Any, sample: dict[str, Array] | None) -> dict[str, Array] | None:  # noqa: ANN401 - any estimator
    """The columns of a model that takes text (or a table by column names), or None: one matrix of numbers does."""
    if sample is not None and len(sample) == 1:
        only = next(iter(sample.values()))
        return {"": np.asarray(only).astype(str)} if only.dtype.kind in "US" else None
    if sample is not None and any(values.dtype.kind in "US" for values in sample.values()):
        names = [str(name) for name in getattr(model, "feature_names_in_", sample)]
        missing = [name for name in names if name not in sample]
        if missing:
            raise Failure("sample_unfit", problem=f"the model takes a column {missing[0]!r}, the sample has none")
        return {name: np.asarray(sample[name]) for name in names}
    made = _known_columns(model)
    if made is not None and sample is not None and set(made) <= set(sample):
        return {name: np.asarray(sample[name]) for name in made}
    if made is None and sample is None and _first(model, "vocabulary_") is not None:
        words = sorted(_first(model, "vocabulary_"))
        random = np.random.default_rng(SEED)
        lines = [" ".join(random.choice(words, size=6)) for _ in range(_TABLE_ROWS)]
        return {"": np.array(lines)}
    return made


def _known_columns(model: Any) -> dict[str, Array] | None:  # noqa: ANN401 - any estimator
    """Values that the encoders of a ColumnTransformer have seen, by column name; numbers for the other columns."""
    names = [str(name) for name in getattr(model, "feature_names_in_", [])]
    parts = _first(model, "transformers_")
    if not names or parts is None:
        return None
    random = np.random.default_rng(SEED)
    found = {name: random.standard_normal(_TABLE_ROWS) for name in names}
    for _, step, where in parts:
        categories = _first(step, "categories_")
        if isinstance(where, str) or categories is None:
            continue
        for position, seen in enumerate(categories):
            name = names[where[position]] if isinstance(where[position], int | np.integer) else str(where[position])
            found[name] = np.asarray(seen)[random.integers(0, len(seen), _TABLE_ROWS)]
    return {name: values.astype(str) if values.dtype.kind in "OUS" else values for name, values in found.items()}


def _mixed(values: Array, own: int, random: np.random.Generator) -> Array:
    """[n, 1]: the user's own rows, then as many with the columns' values combined anew."""
    kept = values.reshape(-1)[:own]
    more = kept[random.integers(0, len(kept), min(len(kept), _TABLE_ROWS))]
    joined = np.concatenate([kept, more]).reshape(-1, 1)
    return joined if joined.dtype.kind == "U" else joined.astype(np.float64)


def _first(model: Any, attribute: str) -> Any:  # noqa: ANN401 - any estimator
    """The attribute of the model or of the first step of a pipeline that has it."""
    for step in _steps(model):
        if hasattr(step, attribute):
            return getattr(step, attribute)
    return None


def _center(model: Any, features: int) -> tuple[Array | None, Array | None]:  # noqa: ANN401 - any estimator
    for center, spread in (("mean_", "scale_"), ("center_", "scale_"), ("data_min_", "data_range_"), ("cluster_centers_", "")):
        middle = _first(model, center)
        if middle is None:
            continue
        middle = np.asarray(middle, dtype=np.float64)
        if middle.ndim == 2 and middle.shape[1] == features:
            return middle.mean(axis=0), middle.std(axis=0) + 1e-3
        if middle.shape == (features,):
            scale = _first(model, spread) if spread else None
            return middle, np.asarray(scale, dtype=np.float64) if scale is not None and np.shape(scale) == (features,) else None
    return None, None


def _frame(values: Array, names: list[str] | None) -> Any:  # noqa: ANN401 - an array or a data frame
    if names is None:
        return values
    try:
        return importlib.import_module("pandas").DataFrame(values, columns=names)
    except ImportError:
        return values


def _table_frame(rows: dict[str, Array]) -> Any:  # noqa: ANN401 - a data frame
    pandas = importlib.import_module("pandas")
    return pandas.DataFrame(
        {name: values.ravel().astype(object) if values.dtype.kind == "U" else values.ravel() for name, values in rows.items()}
    )


def _answers(ask: Any) -> bool:  # noqa: ANN401 - a callable
    try:
        ask()
    except Exception:  # noqa: BLE001 - foreign code; rows that it refuses are not its inputs
        return False
    return True


def _labels(model: Any) -> list[str] | None:  # noqa: ANN401 - any estimator
    classes = getattr(model, "classes_", None)
    if classes is None or (isinstance(classes, list) and classes and not np.isscalar(classes[0])):
        return None
    return [str(label) for label in np.asarray(classes).tolist()]


def _kind(model: Any) -> str:  # noqa: ANN401 - any object
    steps = getattr(model, "steps", None)
    inner = f"({', '.join(type(step).__name__ for _, step in steps)})" if steps else ""
    return type(model).__name__ + inner
