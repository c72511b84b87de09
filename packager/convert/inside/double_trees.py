"""Remedies for trees, on the converted graph.

Thresholds: converters write them in FP32, and a value between the exact threshold and its FP32 takes the other branch
(microsoft/onnxruntime#4130, onnx/sklearn-onnx#1192); the operators of ai.onnx.ml 3 take thresholds and input in FP64.
Gaps: where a missing value (NaN) goes was learned, and skl2onnx forgets it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .agreement import Array
from .failures import Failure

_TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
_AS_TENSOR = ("nodes_values", "class_weights", "target_weights", "base_values", "nodes_hitrates")


def with_double_thresholds(model: Any, thresholds: dict[int, Array]) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """``model`` rewritten in place and returned. Raises Failure `unsupported` where trees do not read the input itself."""
    from onnx import TensorProto

    (graph_input,) = model.graph.input
    trees = [node for node in model.graph.node if node.op_type in _TREES]
    readers = [node for node in model.graph.node if graph_input.name in node.input]
    if not trees or any(node.op_type not in _TREES for node in readers) or len(readers) != len(trees):
        raise Failure("unsupported", what="trees behind other steps", problem="their thresholds cannot be written as FP64")
    for node in trees:
        _rewrite(node, thresholds)
    graph_input.type.tensor_type.elem_type = TensorProto.DOUBLE
    for opset in model.opset_import:
        if opset.domain == "ai.onnx.ml":
            opset.version = max(opset.version, 3)
    return model


def with_missing_branches(model: Any, trees: list[Any]) -> Any:  # noqa: ANN401 - onnx.ModelProto; sklearn's Tree
    """``model`` changed in place: a missing value takes the branch that training gave it.

    ``trees`` in the order in which they were converted; an ensemble that is not made of the next of them stays as it is.
    """
    from onnx import helper

    waiting = list(trees)
    for node in [one for one in model.graph.node if one.op_type in _TREES]:
        found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        sizes = _sizes(found["nodes_treeids"])
        own = waiting[: len(sizes)]
        if [tree.node_count for tree in own] != sizes or not all(
            "missing_go_to_left" in _nodes(tree).dtype.names for tree in own
        ):
            continue
        del waiting[: len(sizes)]
        _set_tracks(node, found, [_nodes(tree)["missing_go_to_left"] for tree in own])
    return model


def _nodes(tree: Any) -> Array:  # noqa: ANN401 - sklearn's Tree
    return tree.__getstate__()["nodes"]


def _sizes(tree_ids: list[int]) -> list[int]:
    """How many nodes each tree has."""
    return [int(count) for count in np.unique(np.asarray(tree_ids), return_counts=True)[1]]


def _set_tracks(node: Any, found: dict[str, Any], go_left: list[Array]) -> None:  # noqa: ANN401 - onnx.NodeProto
    from onnx import helper

    first = min(found["nodes_treeids"])
    tracks = [
        0 if mode in (b"LEAF", "LEAF") else int(go_left[tree - first][number])
        for mode, tree, number in zip(found["nodes_modes"], found["nodes_treeids"], found["nodes_nodeids"], strict=True)
    ]
    kept = [one for one in node.attribute if one.name != "nodes_missing_value_tracks_true"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("nodes_missing_value_tracks_true", tracks)])


def _rewrite(node: Any, thresholds: dict[int, Array]) -> None:  # noqa: ANN401 - onnx.NodeProto
    from onnx import helper, numpy_helper

    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    values = _exact(attributes, thresholds)
    kept = [one for one in node.attribute if one.name not in _AS_TENSOR]
    arrays = {"nodes_values": values}
    for name in ("class_weights", "target_weights", "base_values"):
        if attributes.get(name):
            arrays[name] = np.array(attributes[name], dtype=np.float64)
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(
        helper.make_attribute(f"{name}_as_tensor", numpy_helper.from_array(array, name)) for name, array in arrays.items()
    )


def _exact(attributes: dict[str, Any], thresholds: dict[int, Array]) -> Array:
    by_feature = {feature: {np.float32(value): float(value) for value in values} for feature, values in thresholds.items()}
    for feature, values in thresholds.items():
        if len(by_feature[feature]) < len(values):
            raise Failure("unsupported", what=f"thresholds of feature {feature}", problem="several fall on one FP32 value")
    nodes = zip(attributes["nodes_modes"], attributes["nodes_featureids"], attributes["nodes_values"], strict=True)
    return np.array(
        [
            value if mode in (b"LEAF", "LEAF") else by_feature.get(feature, {}).get(np.float32(value), value)
            for mode, feature, value in nodes
        ],
        dtype=np.float64,
    )
