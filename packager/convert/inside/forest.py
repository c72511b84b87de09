"""Boosted trees written as ONNX by us, exactly: thresholds in FP64, missing values and categories as the library treats them.

The readers (boosted_trees.py) say what a library has learned in the words of this file; here it becomes one TreeEnsembleRegressor
with what comes before it and after it. Others' converters round thresholds to FP32 and know only some objectives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .agreement import Array
from .opened import ML_DOMAIN, ML_OPSET

_OPSET, _IR = 13, 7
_FLOAT, _DOUBLE = 1, 11  # onnx.TensorProto.FLOAT, DOUBLE
Link = Literal["identity", "sigmoid", "sigmoids", "softmax", "exp", "square", "softplus", "step"]


@dataclass(frozen=True)
class Split:
    """Numbers (``members`` None): at most ``threshold`` goes left (``strict``: below it).

    Categories: ``members`` go left, all else right; where ``others`` names those that go right, what neither names goes the way
    of a missing value. ``left`` and ``right`` are indices in the tree.
    """

    feature: int
    left: int
    right: int
    missing_left: bool
    threshold: float = 0.0
    strict: bool = False
    members: tuple[float, ...] | None = None
    others: tuple[float, ...] = ()


@dataclass(frozen=True)
class Leaf:
    value: float


Tree = list["Split | Leaf"]


@dataclass(frozen=True)
class Forest:
    """``trees``: those of each target. ``base`` is added to each target's sum; ``link`` turns sums into answers.

    ``zero_width``: numbers no larger count as zero; ``zero_missing``: features whose zeros count as missing; ``missing``: a
    number that does; ``whole``: features whose numbers lose their fraction first; ``reads_float``: the library rounds what it
    reads to FP32. ``classes``: labels (numbers or text) where it is a classifier.
    """

    features: int
    trees: list[tuple[int, Tree]]
    base: list[float]
    link: Link = "identity"
    scale: float = 1.0
    classes: Array | None = None
    zero_missing: frozenset[int] = frozenset()
    zero_width: float = 0.0
    missing: float | None = None
    whole: frozenset[int] = frozenset()
    reads_float: bool = False


def forest_model(forest: Forest, name: str) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """The model with one FP64 input ``name`` [rows, features] and the outputs label and probabilities, or variable."""
    return _Writer(forest, name).model()


class _Writer:
    """Collects nodes and constants of one graph."""

    def __init__(self, forest: Forest, name: str) -> None:
        from onnx import helper, numpy_helper

        self._forest, self._input = forest, name
        self._helper, self._numpy_helper = helper, numpy_helper
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self) -> Any:  # noqa: ANN401 - onnx.ModelProto
        from onnx import TensorProto

        forest, helper = self._forest, self._helper
        raw = self._sums(self._prepared())
        targets = len(forest.base)
        if forest.classes is None:
            self._node("Identity", [self._linked(raw)], output="variable")
            outputs = [helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, targets])]
        else:
            text = forest.classes.dtype.kind in "OSU"
            self._labels(self._linked(raw), text=text)
            label = TensorProto.STRING if text else TensorProto.INT64
            count = len(forest.classes)
            outputs = [
                helper.make_tensor_value_info("label", label, [None]),
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, count]),
            ]
        given = helper.make_tensor_value_info(self._input, TensorProto.DOUBLE, [None, forest.features])
        graph = helper.make_graph(self._nodes, "forest", [given], outputs, self._constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR)

    def _node(
        self,
        operator: str,
        inputs: list[str],
        output: str | None = None,
        *,
        domain: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> str:
        made = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(operator, inputs, [made], domain=domain, **(attributes or {})))
        return made

    def _constant(self, values: Any) -> str:  # noqa: ANN401 - numbers or text
        made = f"constant_{len(self._constants)}"
        array = np.asarray(values)
        self._constants.append(self._numpy_helper.from_array(array.astype(object) if array.dtype.kind in "OSU" else array, made))
        return made

    def _prepared(self) -> str:
        """The input with what counts as missing made so, and categories without fractions."""
        forest, found = self._forest, self._input
        if forest.reads_float:
            found = self._node("Cast", [self._node("Cast", [found], attributes={"to": _FLOAT})], attributes={"to": _DOUBLE})
        if forest.missing is not None:
            same = self._node("Equal", [found, self._constant(np.float64(forest.missing))])
            found = self._node("Where", [same, self._constant(np.float64("nan")), found])
        if forest.zero_width:
            near = self._node("LessOrEqual", [self._node("Abs", [found]), self._constant(np.float64(forest.zero_width))])
            instead = [float("nan") if index in forest.zero_missing else 0.0 for index in range(forest.features)]
            found = self._node("Where", [near, self._constant(np.array(instead)), found])
        if forest.whole:
            cut = self._node("Mul", [self._node("Sign", [found]), self._node("Floor", [self._node("Abs", [found])])])
            found = self._node("Where", [self._mask(forest.whole), cut, found])
        return found

    def _mask(self, features: frozenset[int]) -> str:
        return self._constant(np.array([index in features for index in range(self._forest.features)]))

    def _sums(self, given: str) -> str:
        columns = _Columns()
        for number, (target, tree) in enumerate(self._forest.trees):
            columns.add(number, target, tree)
        base = np.array(self._forest.base, dtype=np.float64)
        # Of a target without any tree the operator forgets the base.
        bare = sorted(set(range(len(base))) - {target for target, _ in self._forest.trees})
        for more, target in enumerate(bare):
            columns.add(len(self._forest.trees) + more, target, [Leaf(0.0)])
        tensors = {
            "nodes_values_as_tensor": np.array(columns.thresholds, dtype=np.float64),
            "target_weights_as_tensor": np.array(columns.weights, dtype=np.float64),
            "base_values_as_tensor": base,
        }
        made = {key: self._numpy_helper.from_array(values, key) for key, values in tensors.items()}
        attributes = {"n_targets": len(base), **columns.lists(), **made}
        return self._node("TreeEnsembleRegressor", [given], domain=ML_DOMAIN, attributes=attributes)

    def _linked(self, raw: str) -> str:
        scale = self._forest.scale
        if scale != 1.0:
            raw = self._node("Mul", [raw, self._constant(np.float32(scale))])
        match self._forest.link:
            case "identity":
                return raw
            case "sigmoid" | "sigmoids":
                return self._node("Sigmoid", [raw])
            case "softmax":
                return self._node("Softmax", [raw], attributes={"axis": 1})
            case "exp":
                return self._node("Exp", [raw])
            case "square":
                return self._node("Mul", [raw, self._node("Abs", [raw])])
            case "softplus":
                return self._node("Softplus", [raw])
            case "step":
                above = self._node("Greater", [raw, self._constant(np.float32(0))])
                return self._node("Cast", [above], attributes={"to": _FLOAT})

    def _labels(self, scores: str, *, text: bool) -> None:
        classes = self._forest.classes
        assert classes is not None  # noqa: S101 - the caller asked
        if len(self._forest.base) == 1:
            other = self._node("Sub", [self._constant(np.float32(1)), scores])
            scores = self._node("Concat", [other, scores], attributes={"axis": 1})
        self._node("Identity", [scores], output="probabilities")
        largest = self._node("ArgMax", [scores], attributes={"axis": 1, "keepdims": 0})
        named = classes.astype(str) if text else classes.astype(np.int64)
        self._node("Gather", [self._constant(named), largest], output="label")


class _Columns:
    """The nodes of all trees in the lists that the operator takes."""

    def __init__(self) -> None:
        self.thresholds: list[float] = []
        self.weights: list[float] = []
        self._rows: list[tuple[int, int, int, str, int, int, int]] = []
        self._leaves: list[tuple[int, int, int]] = []

    def add(self, number: int, target: int, tree: Tree) -> None:
        following = len(tree)
        for index, part in enumerate(tree):
            if isinstance(part, Leaf):
                self._row((number, index, 0, "LEAF", 0, 0, 0), 0.0)
                self._leaves.append((number, index, target))
                self.weights.append(part.value)
            elif part.members is None:
                mode = "BRANCH_LT" if part.strict else "BRANCH_LEQ"
                self._row((number, index, part.feature, mode, part.left, part.right, int(part.missing_left)), part.threshold)
            else:
                following = self._choice(number, index, part, following)

    def _choice(self, number: int, index: int, split: Split, following: int) -> int:
        """Categories are asked for one by one; the last answer no stands for all that were not named, missing ones too."""
        turned = split.missing_left and bool(split.others)
        named = split.others if turned else split.members or ()
        hit, miss = (split.right, split.left) if turned else (split.left, split.right)
        missing_hits = int(split.missing_left and not turned)
        if not named:
            named, hit = (0.0,), miss
        for position, value in enumerate(named):
            here = index if position == 0 else following + position - 1
            otherwise = miss if position == len(named) - 1 else following + position
            self._row((number, here, split.feature, "BRANCH_EQ", hit, otherwise, missing_hits if position == 0 else 0), value)
        return following + len(named) - 1

    def _row(self, row: tuple[int, int, int, str, int, int, int], threshold: float) -> None:
        self._rows.append(row)
        self.thresholds.append(threshold)

    def lists(self) -> dict[str, list[Any]]:
        # The operator wants each tree's nodes together, its root first.
        trees, nodes, features, modes, yes, no, tracks = (list(column) for column in zip(*self._rows, strict=True))
        leaf_trees, leaf_nodes, targets = (list(column) for column in zip(*self._leaves, strict=True))
        return {
            "nodes_treeids": trees,
            "nodes_nodeids": nodes,
            "nodes_featureids": features,
            "nodes_modes": modes,
            "nodes_truenodeids": yes,
            "nodes_falsenodeids": no,
            "nodes_missing_value_tracks_true": tracks,
            "target_treeids": leaf_trees,
            "target_nodeids": leaf_nodes,
            "target_ids": targets,
        }
