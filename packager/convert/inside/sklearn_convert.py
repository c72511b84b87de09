"""skl2onnx over one estimator or pipeline: the options that its converters know, and what they trip over."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .double_trees import with_missing_branches
from .opened import ML_DOMAIN, ML_OPSET, Job
from .thresholds import inner_trees

# Attributes of operators that are written otherwise: what was there (None: nothing) and what comes instead.
_REPLACED: dict[str, dict[str, dict[bytes | None, str]]] = {
    "StringNormalizer": {"locale": {None: "C.UTF-8"}},
    "Tokenizer": {
        "tokenexp": {
            b"[a-zA-Z0-9_]+": r"[\pL\pN_]{2,}",
            rb"(?u)\b\w\w+\b": r"[\pL\pN_]{2,}",
            rb"(?u)\b\w+\b": r"[\pL\pN_]+",
            rb"\b\w+\b": r"[\pL\pN_]+",
            rb"\w+": r"[\pL\pN_]+",
        }
    },
}
# How many pipelines and column transformers inside each other are looked into.
_DEPTH = 4


def convert(model: Any, initial_types: list[tuple[str, Any]], job: Job) -> Any:  # noqa: ANN401 - any estimator, a ModelProto
    """An onnx.ModelProto with tensors only, in which missing values take the branches that trees have learned for them.

    Raises whatever skl2onnx does, Failure `opset`.
    """
    _know_boosters()
    flattened = [step for step in steps_of(model) if getattr(step, "flatten_transform", False)]
    for step in flattened:
        step.flatten_transform = False  # it only shapes what `transform` gives, and stops the converter
    try:
        made = _as_wished(model, initial_types, job.target_opset)
    finally:
        for step in flattened:
            step.flatten_transform = True
    return with_missing_branches(_without_sequences(_with_wide_imputers(_in_any_place(made), model), model), inner_trees(model))


def _as_wished(model: Any, initial_types: list[tuple[str, Any]], opset: int) -> Any:  # noqa: ANN401 - any estimator, a ModelProto
    skl2onnx = importlib.import_module("skl2onnx")
    plain: dict[str, object] = {"initial_types": initial_types, "target_opset": {"": opset, ML_DOMAIN: ML_OPSET}}
    for options in _wishes(model):
        try:
            given = {"options": {id(model): options}} if options else {}
            return skl2onnx.convert_sklearn(model, **plain, **given)
        except (NameError, ValueError):
            if not options:
                raise
    raise AssertionError("the last wish is none")


def _without_sequences(made: Any, model: Any) -> Any:  # noqa: ANN401 - a ModelProto, any estimator
    """The scores of several targets come as a sequence of tensors: each becomes an output of its own."""
    classes = getattr(model, "classes_", None)
    count = len(classes) if isinstance(classes, list) else len(getattr(model, "estimators_", []))
    for output in [one for one in made.graph.output if one.type.WhichOneof("value") == "sequence_type"]:
        element = output.type.sequence_type.elem_type
        if element.HasField("tensor_type"):
            _take_apart(made, output, element.tensor_type.elem_type, [None] * count)
    if isinstance(classes, list) and hasattr(model, "predict_proba"):
        for output in [one for one in made.graph.output if one.name == "probabilities" and one.type.HasField("tensor_type")]:
            _take_apart(made, output, output.type.tensor_type.elem_type, [len(one) for one in classes])
    return made


def _take_apart(made: Any, output: Any, kind: int, widths: Sequence[int | None]) -> None:  # noqa: ANN401 - messages of onnx
    """``output`` is replaced by its parts, one for each target: a sequence's (no width), or those along a tensor's first axis,
    which are filled up to the widest."""
    from onnx import helper, numpy_helper

    made.graph.output.remove(output)
    for number, width in enumerate(widths):
        name, at, part = f"{output.name}_{number}", f"{output.name}_at_{number}", f"{output.name}_part_{number}"
        made.graph.initializer.append(numpy_helper.from_array(np.array(number, dtype=np.int64), at))
        made.graph.output.append(helper.make_tensor_value_info(name, kind, [None, width]))
        if width is None:
            made.graph.node.append(helper.make_node("SequenceAt", [output.name, at], [name]))
            continue
        bounds = {f"{part}_{key}": [value] for key, value in (("first", 0), ("last", width), ("axis", 1))}
        made.graph.initializer.extend(
            numpy_helper.from_array(np.array(value, dtype=np.int64), key) for key, value in bounds.items()
        )
        made.graph.node.append(helper.make_node("Gather", [output.name, at], [part], axis=0))
        made.graph.node.append(helper.make_node("Slice", [part, *bounds], [name]))


def _wishes(model: Any) -> list[dict[str, bool]]:  # noqa: ANN401 - any estimator
    """Options that a converter may know: tensors instead of a sequence of maps, and scores with their own sign."""
    scores = scores_of(model)
    if scores == ["predict_proba"]:
        return [{"zipmap": False}, {}]
    if scores == ["decision_function"]:
        return [{"zipmap": False, "raw_scores": True}, {"raw_scores": True}, {"zipmap": False}, {}]
    return [{"zipmap": False}, {}] if hasattr(model, "classes_") else [{}]


def _in_any_place(model: Any) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """Lower case by a locale that small systems have (with the usual one, en_US, the model does not even load there), and words
    of all letters that Python knows, not of English ones only; of two letters at least, as scikit-learn's own pattern says."""
    from onnx import helper

    for node in model.graph.node:
        changed = _REPLACED.get(node.op_type, {})
        found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        for name, values in changed.items():
            if (value := values.get(found.get(name))) is not None:
                kept = [attribute for attribute in node.attribute if attribute.name != name]
                del node.attribute[:]
                node.attribute.extend([*kept, helper.make_attribute(name, value)])
    return model


def _with_wide_imputers(made: Any, model: Any) -> Any:  # noqa: ANN401 - a ModelProto, any estimator
    """onnxruntime's Imputer takes FP32 only; where numbers are FP64 the same is said with operators that take both, and with what
    was learned in full: it is the most frequent value of all, and lies on many a threshold."""
    from onnx import TensorProto, helper, numpy_helper

    if not any(one.type.tensor_type.elem_type == TensorProto.DOUBLE for one in made.graph.input):
        return made
    exact = {float(np.float32(value)): float(value) for value in _imputed(model)}
    nodes: list[Any] = []
    for node in made.graph.node:
        values = {one.name: helper.get_attribute_value(one) for one in node.attribute} if node.op_type == "Imputer" else {}
        if "imputed_value_floats" not in values or not np.isnan(values.get("replaced_value_float", 0.0)):
            nodes.append(node)
            continue
        given, found, filled = node.input[0], f"{node.output[0]}_missing", f"{node.output[0]}_filled"
        learned = np.array([exact.get(value, value) for value in values["imputed_value_floats"]], dtype=np.float64)
        made.graph.initializer.append(numpy_helper.from_array(learned, filled))
        nodes.append(helper.make_node("IsNaN", [given], [found]))
        nodes.append(helper.make_node("Where", [found, filled, given], [node.output[0]]))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def _imputed(model: Any, depth: int = 0) -> list[float]:  # noqa: ANN401 - any estimator
    """What the imputers in ``model`` have learned, in pipelines and column transformers too."""
    values = np.ravel(getattr(model, "statistics_", []))
    found = values.astype(np.float64).tolist() if values.dtype.kind in "biuf" else []
    if depth < _DEPTH:
        parts = [part[1] for name in ("steps", "transformers_", "transformer_list") for part in getattr(model, name, [])]
        found += [value for part in parts if not isinstance(part, str) for value in _imputed(part, depth + 1)]
    return found


def tensor_type(name: str) -> Any:  # noqa: ANN401 - one of skl2onnx's types
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


def scores_of(model: Any) -> list[str]:  # noqa: ANN401 - any estimator
    kind = getattr(model, "_estimator_type", None) or _tagged_kind(model)
    wanted = {"classifier": ["predict_proba", "decision_function"], "outlier_detector": ["decision_function"]}
    wanted |= {"clusterer": ["transform"], "density_estimator": ["predict_proba"]}
    return [name for name in wanted.get(str(kind), []) if hasattr(model, name)][:1]


def _tagged_kind(model: Any) -> object:  # noqa: ANN401 - any estimator
    try:
        return importlib.import_module("sklearn.utils").get_tags(model).estimator_type
    except Exception:  # noqa: BLE001 - foreign code; what it does not say is not known
        return None


def steps_of(model: Any) -> list[Any]:  # noqa: ANN401 - any estimator
    return [model, *(step for _, step in getattr(model, "steps", []))]
