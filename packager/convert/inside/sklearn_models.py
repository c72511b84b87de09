"""scikit-learn estimators and pipelines, those around XGBoost and LightGBM included, for skl2onnx."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .agreement import Array
from .failures import Failure
from .landmarks import known_rows, whole_columns
from .odd_rows import with_odd_rows
from .opened import Job, Opened
from .rows import SEED, Terrain, check_rows
from .samples import matrix_of
from .sklearn_convert import scores_of, steps_of, tensor_type
from .sklearn_ways import Ways, jumps_somewhere
from .thresholds import inner_trees, sklearn_thresholds

_TABLE_ROWS = 256
_ONLY_WHOLE = "Columns {columns} are numbers of categories: only whole numbers were compared, send no others."
_AROUND_ZERO = (
    "It was compared on made-up numbers around zero, as the model does not say what its inputs are like: "
    "a sample input would bring rows as they come."
)
_CENTERS = (
    ("mean_", "scale_"),
    ("center_", "scale_"),
    ("data_min_", "data_range_"),
    ("cluster_centers_", ""),
    ("statistics_", ""),
)


def open_sklearn(model: Any, sample: dict[str, Array] | None, job: Job) -> Opened:  # noqa: ANN401 - any estimator
    """Raises Failure `no_predict`, `sample_needed`, `sample_unfit`."""
    model = getattr(model, "best_estimator_", model)  # a search answers as the best that it found
    if not any(hasattr(model, name) for name in ("predict", "transform")):
        raise Failure("no_predict", found=_kind(model))
    _make_convertible(model)
    columns = _text_columns(model, sample)
    if columns is not None:
        return _by_column(model, columns, sample, job)
    return _by_matrix(model, sample, job)


def _make_convertible(model: Any) -> None:  # noqa: ANN401 - any estimator
    """Rewrites what says the same otherwise, and stops the converter: an infinite threshold (all but missing values are below
    it), weights as a list."""
    for tree in inner_trees(model):
        tree.threshold[np.isposinf(tree.threshold)] = np.finfo(np.float32).max
    for step in steps_of(model):
        if isinstance(getattr(step, "weights", None), list):
            step.weights = np.asarray(step.weights)


def _by_matrix(model: Any, sample: dict[str, Array] | None, job: Job) -> Opened:  # noqa: ANN401 - any estimator
    features = getattr(model, "n_features_in_", None)
    if features is None:
        raise Failure("sample_needed", why=f"{_kind(model)} does not say how many values a row has")
    names = [str(name) for name in getattr(model, "feature_names_in_", [])] or None
    given = None if sample is None else matrix_of(sample, int(features), names)
    name = job.input_names[0] if len(job.input_names) == 1 else "X"

    def answer(rows: dict[str, Array]) -> list[Array]:
        return answers(model, _frame(rows[name], names))

    thresholds = sklearn_thresholds(model)
    terrain = _terrain(model, int(features), thresholds)
    rows = check_rows(terrain, given, lambda values: answer({name: values}))

    def typed(kind: str) -> list[tuple[str, Any]]:
        return [(name, tensor_type(kind)([None, int(features)]))]

    return Opened(
        _kind(model),
        {name: rows.values},
        rows.from_sample,
        answer,
        Ways(model, thresholds, typed, job).attempts(),
        _labels(model),
        _told(terrain, sampled=given is not None),
        ordinary=rows.ordinary,
        gaps_named=given is None or bool(np.isnan(given).any()),
    )


def _told(terrain: Terrain, *, sampled: bool) -> list[str]:
    notes = []
    if terrain.whole:
        notes.append(_ONLY_WHOLE.format(columns=", ".join(str(column) for column in sorted(terrain.whole))))
    if not sampled and terrain.center is None and terrain.known is None and not terrain.thresholds:
        notes.append(_AROUND_ZERO)
    return notes


def _terrain(model: Any, features: int, thresholds: dict[int, Array]) -> Terrain:  # noqa: ANN401 - any estimator
    return Terrain(
        features,
        *_center(model, features),
        thresholds,
        takes_nan=_takes_nan(model),
        known=known_rows(steps_of(model), features),
        jumps=not thresholds and jumps_somewhere(model),
        whole=whole_columns(steps_of(model)[:2], features),
    )


def _by_column(model: Any, columns: dict[str, Array], sample: dict[str, Array] | None, job: Job) -> Opened:  # noqa: ANN401 - any estimator
    """One input [rows, 1] for each column: text and numbers do not fit one tensor."""
    random = np.random.default_rng(SEED)
    unused = _unused_columns(model)
    columns = {name: values for name, values in columns.items() if name not in unused}
    own = len(next(iter(columns.values()))) if sample is not None else _TABLE_ROWS
    rows = {name: _mixed(values, own, random) for name, values in columns.items()}
    single = list(rows) == [""]
    if single:
        rows = {job.input_names[0] if job.input_names else "text": rows[""]}

    def answer(given: dict[str, Array]) -> list[Array]:
        if single:
            return answers(model, next(iter(given.values())).ravel())
        return answers(model, _table_frame(given, unused))

    _check_taken(lambda: answer(rows), sampled=sample is not None)
    ordinary = len(next(iter(rows.values())))
    rows = with_odd_rows(rows, answer, random, edges=jumps_somewhere(model))

    def typed(numbers: str) -> list[tuple[str, Any]]:
        kinds = {name: "StringTensorType" if values.dtype.kind == "U" else numbers for name, values in rows.items()}
        return [(name, tensor_type(kind)([None, 1])) for name, kind in kinds.items()]

    gaps_named = sample is None or any(np.isnan(values).any() for values in columns.values() if values.dtype.kind == "f")
    return Opened(
        _kind(model),
        rows,
        min(own, _TABLE_ROWS),
        answer,
        Ways(model, {}, typed, job).attempts(),
        _labels(model),
        ordinary=ordinary,
        gaps_named=bool(gaps_named),
    )


def _check_taken(ask: Callable[[], object], *, sampled: bool) -> None:
    """Raises Failure `sample_needed` or `sample_unfit` where the original refuses its first rows."""
    try:
        ask()
    except Exception as problem:
        words = f"{type(problem).__name__}: {problem}"
        if not sampled:
            raise Failure("sample_needed", why=f"it refuses made-up rows ({words[:300]})") from problem
        raise Failure("sample_unfit", problem=words) from problem


def answers(model: Any, rows: Any) -> list[Array]:  # noqa: ANN401 - any estimator, any table
    """What the original says, in the order in which its conversion does: label and scores, or values."""
    if not hasattr(model, "predict") or hasattr(model, "get_support"):
        transformed = model.transform(rows)
        return [np.asarray(transformed.toarray() if hasattr(transformed, "toarray") else transformed)]
    first = np.asarray(model.predict(rows))
    for name in scores_of(model):
        second = getattr(model, name)(rows)
        return [first, *(np.asarray(one) for one in (second if isinstance(second, list) else [second]))]
    return [first]


def _takes_nan(model: Any) -> bool:  # noqa: ANN401 - any estimator
    try:
        return bool(importlib.import_module("sklearn.utils").get_tags(model).input_tags.allow_nan)
    except Exception:  # noqa: BLE001 - older generations say it otherwise, or not at all
        return "HistGradientBoosting" in type(model).__name__


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
    if parts is None and names and _has_text(_first(model, "categories_")):
        parts = [("", next(step for step in steps_of(model) if hasattr(step, "categories_")), names)]
    if not names or parts is None:
        return None
    random = np.random.default_rng(SEED)
    found = {name: random.standard_normal(_TABLE_ROWS) for name in names}
    for _, step, where in parts:
        if isinstance(where, str) or isinstance(step, str):
            continue
        own = [names[one] if isinstance(one, int | np.integer) else str(one) for one in where]
        middle, spread = _center(step, len(own))
        if middle is not None and spread is not None:
            made = middle + random.standard_normal((_TABLE_ROWS, len(own))) * spread
            found |= dict(zip(own, made.T, strict=True))
        for name, seen in zip(own, _first(step, "categories_") or [], strict=False):
            found[name] = np.asarray(seen)[random.integers(0, len(seen), _TABLE_ROWS)]
    return {name: values.astype(str) if values.dtype.kind in "OUS" else values for name, values in found.items()}


def _has_text(categories: Any) -> bool:  # noqa: ANN401 - a list of arrays, or None
    return categories is not None and any(np.asarray(column).dtype.kind in "OUS" for column in categories)


def _unused_columns(model: Any) -> set[str]:  # noqa: ANN401 - any estimator
    """Columns that the model was trained with and never looks at."""
    names = [str(name) for name in getattr(model, "feature_names_in_", [])]
    dropped: set[str] = set()
    for _, step, where in _first(model, "transformers_") or []:
        if isinstance(step, str) and step == "drop" and not isinstance(where, str):
            chosen = list(np.flatnonzero(where)) if np.asarray(where).dtype.kind == "b" else list(where)
            dropped |= {names[one] if isinstance(one, int | np.integer) else str(one) for one in chosen}
    return dropped


def _mixed(values: Array, own: int, random: np.random.Generator) -> Array:
    """[n, 1]: the user's own rows, then as many with the columns' values combined anew."""
    kept = values.reshape(-1)[:own]
    more = kept[random.integers(0, len(kept), min(len(kept), _TABLE_ROWS))]
    joined = np.concatenate([kept, more]).reshape(-1, 1)
    return joined if joined.dtype.kind == "U" else joined.astype(np.float64)


def _first(model: Any, attribute: str) -> Any:  # noqa: ANN401 - any estimator
    """The attribute of the model or of the first step of a pipeline that has it."""
    for step in steps_of(model):
        if hasattr(step, attribute):
            return getattr(step, attribute)
    return None


def _center(model: Any, features: int) -> tuple[Array | None, Array | None]:  # noqa: ANN401 - any estimator
    for center, spread in _CENTERS:
        middle = _first(model, center)
        if middle is None:
            continue
        middle = np.asarray(middle)
        if middle.dtype.kind not in "biuf":
            continue
        middle = middle.astype(np.float64)
        if middle.ndim == 2 and middle.shape[1] == features:
            return middle.mean(axis=0), middle.std(axis=0) + 1e-3
        if middle.shape == (features,):
            scale = _first(model, spread) if spread else None
            if scale is not None and np.shape(scale) == (features,):
                return middle, np.asarray(scale, dtype=np.float64)
            return middle, np.abs(middle) * 0.3 + 1e-3
    return _center_of_inverse(steps_of(model), features)


def _center_of_inverse(steps: list[Any], features: int) -> tuple[Array | None, Array | None]:
    """Where the middle of what the first step makes comes from."""
    for step in steps:
        if not hasattr(step, "inverse_transform") or getattr(step, "n_features_in_", 0) != features or hasattr(step, "steps"):
            continue
        try:
            found = np.asarray(
                step.inverse_transform(np.array([[-0.5], [0.0], [0.5]]) * np.ones((1, features))), dtype=np.float64
            )
        except Exception:  # noqa: BLE001 - foreign code; what it does not say is not known
            return None, None
        if found.shape == (3, features) and np.isfinite(found).all():
            return found[1], np.abs(found[2] - found[0]) + 1e-3
        return None, None
    return None, None


def _frame(values: Array, names: list[str] | None) -> Any:  # noqa: ANN401 - an array or a data frame
    if names is None:
        return values
    try:
        return importlib.import_module("pandas").DataFrame(values, columns=names)
    except ImportError:
        return values


def _table_frame(rows: dict[str, Array], unused: set[str]) -> Any:  # noqa: ANN401 - a data frame
    pandas = importlib.import_module("pandas")
    columns = {
        name: values.ravel().astype(object) if values.dtype.kind == "U" else values.ravel() for name, values in rows.items()
    }
    return pandas.DataFrame(columns | dict.fromkeys(sorted(unused), np.nan))


def _labels(model: Any) -> list[str] | None:  # noqa: ANN401 - any estimator
    classes = getattr(model, "classes_", None)
    if classes is None or (isinstance(classes, list) and classes and not np.isscalar(classes[0])):
        return None
    return [str(label) for label in np.asarray(classes).tolist()]


def _kind(model: Any) -> str:  # noqa: ANN401 - any object
    steps = getattr(model, "steps", None)
    inner = f"({', '.join(type(step).__name__ for _, step in steps)})" if steps else ""
    return type(model).__name__ + inner
