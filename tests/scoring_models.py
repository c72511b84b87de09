"""Real ONNX models for tests: trained and converted here, or built node by node where a trap needs an exact shape.

Everything is made once per test run, in one folder that goes when the run ends.
"""

from __future__ import annotations

import atexit
import gzip
import importlib.util
import os
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.models.onnx_model import silence_telemetry

silence_telemetry(os.environ)

import onnx  # noqa: E402 - see the line above
from onnx import TensorProto, helper  # noqa: E402 - see the line above - see above

Array = NDArray[Any]
_FLOAT, _INT64, _BOOL, _DOUBLE, _STRING, _INT32 = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.DOUBLE,
    TensorProto.STRING,
    TensorProto.INT32,
)


@cache
def folder() -> Path:
    place = Path(tempfile.mkdtemp(prefix="hedgerow-test-models-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


# Trained ---------------------------------------------------------------------------------------------------------------


def _converted(name: str, model: Any, rows: Array, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skl2onnx import to_onnx

        document = to_onnx(model, rows[:1], **options)
    file = folder() / f"{name}.onnx"
    file.write_bytes(document.SerializeToString())
    return file


@cache
def iris_rows() -> tuple[Array, Array]:
    from sklearn.datasets import load_iris

    rows, labels = load_iris(return_X_y=True)
    return rows.astype(np.float32), labels


@cache
def iris_classifier() -> Any:
    from sklearn.linear_model import LogisticRegression

    rows, labels = iris_rows()
    return LogisticRegression(max_iter=500).fit(rows, labels)


@cache
def iris() -> Path:
    """X f32[N,4] -> label i64[N], probabilities f32[N,3]."""
    model = iris_classifier()
    return _converted("iris", model, iris_rows()[0], options={"zipmap": False})


@cache
def iris_with_maps() -> Path:
    """The same with sklearn's usual output: a sequence of maps."""
    return _converted("iris-maps", iris_classifier(), iris_rows()[0])


@cache
def digits() -> tuple[Path, Any, Array]:
    """A small neural network on 8x8 images: file, trained model, rows."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    rows, labels = load_digits(return_X_y=True)
    rows = rows.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((16,), max_iter=30, random_state=0).fit(rows, labels)
    return _converted("digits", model, rows, options={"zipmap": False}), model, rows


@cache
def shuttle_rows() -> Array:
    """NASA's shuttle sensors out of river's wheel, which is not imported: its own imports are heavy."""
    spec = importlib.util.find_spec("river")
    assert spec is not None, "river is not installed"
    assert spec.origin is not None
    with gzip.open(Path(spec.origin).parent / "datasets" / "shuttle.csv.gz", "rt") as lines:
        table = np.genfromtxt(lines, delimiter=",", skip_header=1, max_rows=4000)
    return table[:, :9].astype(np.float32)


@cache
def shuttle_anomalies() -> tuple[Path, Any]:
    """IsolationForest: label i64[N,1], scores f32[N,1]."""
    from sklearn.ensemble import IsolationForest

    model = IsolationForest(n_estimators=20, random_state=0).fit(shuttle_rows())
    return _converted("shuttle", model, shuttle_rows(), target_opset={"": 17, "ai.onnx.ml": 3}), model


# Built for a trap ------------------------------------------------------------------------------------------------------


def build(
    name: str,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    initializers: list[Any] | None = None,
    *,
    opset: int = 17,
) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers or [])
    document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    file = folder() / f"{name}.onnx"
    onnx.save(document, file)
    return file


def value(name: str, kind: int, shape: list[Any] | None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


@cache
def echo() -> Path:
    """x f32[N,2] -> y: the same."""
    return build(
        "echo", [helper.make_node("Identity", ["x"], ["y"])], [value("x", _FLOAT, ["N", 2])], [value("y", _FLOAT, ["N", 2])]
    )


@cache
def echo_text() -> Path:
    return build(
        "echo-text", [helper.make_node("Identity", ["x"], ["y"])], [value("x", _STRING, ["N"])], [value("y", _STRING, ["N"])]
    )


@cache
def splits_text() -> Path:
    """x text[N] -> words text[N,?]: every row is filled up to the words of the longest beside it."""
    node = helper.make_node("StringSplit", ["x"], ["y", "count"], delimiter=" ")
    outputs = [value("y", _STRING, ["N", "words"]), value("count", _INT64, ["N"])]
    return build("splits-text", [node], [value("x", _STRING, ["N"])], outputs, opset=20)


@cache
def many_kinds() -> Path:
    """Scalar i64, bool, i32, f64 with names that no URL or label takes unescaped; each comes back."""
    kinds: dict[str, tuple[int, list[Any]]] = {
        "sr/rate": (_INT64, []),
        'flag:"on"': (_BOOL, ["N"]),
        "größe.cm": (_INT32, ["N", 2]),
        '{"json": 1}': (_DOUBLE, ["N"]),
    }
    nodes = [helper.make_node("Identity", [name], [f"out {name}"]) for name in kinds]
    inputs = [value(name, kind, shape) for name, (kind, shape) in kinds.items()]
    outputs = [value(f"out {name}", kind, shape) for name, (kind, shape) in kinds.items()]
    return build("many-kinds", nodes, inputs, outputs)


@cache
def across_rows() -> Path:
    """A dynamic first axis that is no batch axis: every row is divided by the sum over the rows."""
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=1), helper.make_node("Div", ["x", "sum"], ["y"])]
    axes = helper.make_tensor("axes", _INT64, [1], [0])
    return build("across-rows", nodes, [value("x", _FLOAT, ["batch", 2])], [value("y", _FLOAT, ["batch", 2])], [axes])


@cache
def fixed_batch() -> Path:
    """Takes three rows at a time, never more or fewer."""
    return build("fixed", [helper.make_node("Neg", ["x"], ["y"])], [value("x", _FLOAT, [3, 2])], [value("y", _FLOAT, [3, 2])])


@cache
def endless() -> Path:
    """Runs as many rounds as its input says: 10**12 is for ever, 0 is at once."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [value("i", _INT64, []), value("c", _BOOL, []), value("v", _FLOAT, [1])],
        [value("c2", _BOOL, []), value("v2", _FLOAT, [1])],
    )
    nodes = [helper.make_node("Loop", ["rounds", "yes", "start"], ["y"], body=body)]
    constants = [helper.make_tensor("yes", _BOOL, [], [True]), helper.make_tensor("start", _FLOAT, [1], [1.0])]
    return build("endless", nodes, [value("rounds", _INT64, [])], [value("y", _FLOAT, [1])], constants)


def with_external_data(name: str, location: str) -> Path:
    """A model whose weights stand in another file; the file itself is the caller's affair."""
    weights = TensorProto(name="w", data_type=_FLOAT, data_location=TensorProto.EXTERNAL, dims=[2])
    weights.external_data.add(key="location", value=location)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", _FLOAT, ["N", 2])], [value("y", _FLOAT, ["N", 2])], [weights])
    document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file = folder() / name / "model.onnx"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(document.SerializeToString())
    return file


def with_custom_operator() -> Path:
    nodes = [helper.make_node("Secret", ["x"], ["y"], domain="acme.ops")]
    graph = helper.make_graph(nodes, "g", [value("x", _FLOAT, ["N", 2])], [value("y", _FLOAT, ["N", 2])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme.ops", 1)]
    file = folder() / "custom.onnx"
    file.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return file


@cache
def fails_on_negative() -> Path:
    """i i64[N] -> y f32[N] = 10 x i; -9 is an index that onnxruntime refuses."""
    table = helper.make_tensor("table", _FLOAT, [4], [0.0, 10.0, 20.0, 30.0])
    nodes = [helper.make_node("Gather", ["table", "i"], ["y"])]
    return build("fails-on-negative", nodes, [value("i", _INT64, ["N"])], [value("y", _FLOAT, ["N"])], [table])


@cache
def side_by_side() -> Path:
    """x f32[N,2], y f32[N,1] -> z f32[N,3]: the columns of both."""
    inputs = [value("x", _FLOAT, ["N", 2]), value("y", _FLOAT, ["N", 1])]
    node = helper.make_node("Concat", ["x", "y"], ["z"], axis=1)
    return build("side-by-side", [node], inputs, [value("z", _FLOAT, ["N", 3])])


@cache
def total() -> Path:
    """x f32[N,?] -> y f32[1]: the sum of everything, however many rows there are."""
    nodes = [helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0), helper.make_node("Unsqueeze", ["s", "zero"], ["y"])]
    zero = helper.make_tensor("zero", _INT64, [1], [0])
    return build("total", nodes, [value("x", _FLOAT, ["N", "?"])], [value("y", _FLOAT, [1])], [zero])


@cache
def scaled_by_the_largest() -> Path:
    """Quantises as dynamic quantisation does: one scale for the whole batch, so a row depends on the others in it."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    return build("scaled", nodes, [value("x", _FLOAT, ["N", 4])], [value("y", _FLOAT, ["N", 4])])


@cache
def no_inputs() -> Path:
    """Answers y f32[2] whoever asks."""
    nodes = [helper.make_node("Identity", ["c"], ["y"])]
    return build("no-inputs", nodes, [], [value("y", _FLOAT, [2])], [helper.make_tensor("c", _FLOAT, [2], [1.0, 2.0])])


@cache
def finds_non_zero() -> Path:
    """x f32[N,3] -> where i64[2,?]: as long as the values say."""
    nodes = [helper.make_node("NonZero", ["x"], ["where"])]
    return build("non-zero", nodes, [value("x", _FLOAT, ["N", 3])], [value("where", _INT64, [2, "?"])])


@cache
def branches() -> Path:
    """One of two sub-graphs, by the value of its input."""
    sides = [
        helper.make_graph([helper.make_node(kind, ["x"], [side])], side, [], [value(side, _FLOAT, ["N", 2])])
        for kind, side in (("Neg", "a"), ("Abs", "b"))
    ]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=_BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=sides[0], else_branch=sides[1]),
    ]
    return build("branches", nodes, [value("x", _FLOAT, ["N", 2])], [value("y", _FLOAT, ["N", 2])])


@cache
def with_function() -> Path:
    """Its only node is a function of its own, in which anything may stand."""
    body = [helper.make_node("Neg", ["a"], ["b"])]
    function = helper.make_function("own", "Twist", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [helper.make_node("Twist", ["x"], ["y"], domain="own")]
    graph = helper.make_graph(nodes, "g", [value("x", _FLOAT, ["N", 2])], [value("y", _FLOAT, ["N", 2])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    document = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)
    file = folder() / "function.onnx"
    file.write_bytes(document.SerializeToString())
    return file


@cache
def replaceable() -> Path:
    """x f32[N,2] + b f32[2] -> y, where b = [1, 2] unless a request brings another."""
    nodes = [helper.make_node("Add", ["x", "b"], ["y"])]
    inputs = [value("x", _FLOAT, ["N", 2]), value("b", _FLOAT, [2])]
    return build("replaceable", nodes, inputs, [value("y", _FLOAT, ["N", 2])], [helper.make_tensor("b", _FLOAT, [2], [1.0, 2.0])])


@cache
def repeats_rows() -> Path:
    """x f32[N,1], times i64[N,1] -> y f32[?]: as long as the values say."""
    nodes = [
        helper.make_node("ReduceSum", ["times"], ["t"], keepdims=0),
        helper.make_node("Unsqueeze", ["t", "zero"], ["shape"]),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Expand", ["s", "shape"], ["y"]),
    ]
    inputs = [value("x", _FLOAT, ["N", 1]), value("times", _INT64, ["N", 1])]
    return build("repeats", nodes, inputs, [value("y", _FLOAT, ["?"])], [helper.make_tensor("zero", _INT64, [1], [0])])


def stamped(ir_version: int, opset: int) -> Path:
    """x f32[N,2] -> y, made for some other onnxruntime."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "g", [value("x", _FLOAT, ["N", 2])], [value("y", _FLOAT, ["N", 2])]
    )
    document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    file = folder() / f"stamped-{ir_version}-{opset}.onnx"
    file.write_bytes(document.SerializeToString())
    return file


@cache
def any_rank() -> Path:
    """x f32 of any shape -> y: the same; what its maker says of it stands in the file."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", _FLOAT, None)], [value("y", _FLOAT, None)])
    document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(document, {"labels": '["cat", "<script>dog</script>"]', "author": "somebody"})
    file = folder() / "any-rank.onnx"
    file.write_bytes(document.SerializeToString())
    return file


@cache
def odd_axes() -> Path:
    """A formula, a question mark and nothing at all as lengths."""
    shape = ["floor((N + 1)/2)", "?", None]
    return build("odd-axes", [helper.make_node("Neg", ["x"], ["y"])], [value("x", _FLOAT, shape)], [value("y", _FLOAT, shape)])


@cache
def keeps_state() -> Path:
    """x f32[N,2], state f32[1,N,2] -> y = x + state, next = y as a state."""
    nodes = [
        helper.make_node("Squeeze", ["state", "zero"], ["s"]),
        helper.make_node("Add", ["x", "s"], ["y"]),
        helper.make_node("Unsqueeze", ["y", "zero"], ["next"]),
    ]
    inputs = [value("x", _FLOAT, ["N", 2]), value("state", _FLOAT, [1, "N", 2])]
    outputs = [value("y", _FLOAT, ["N", 2]), value("next", _FLOAT, [1, "N", 2])]
    return build("keeps-state", nodes, inputs, outputs, [helper.make_tensor("zero", _INT64, [1], [0])])


@cache
def much_to_do() -> Path:
    """x f32[N,512] times ten matrices: some milliseconds, which threads inside a run can share."""
    matrix = np.eye(512, dtype=np.float32).tobytes()
    weights = [helper.make_tensor("w", _FLOAT, [512, 512], matrix, raw=True)]
    nodes = [helper.make_node("MatMul", [f"x{step}" if step else "x", "w"], [f"x{step + 1}"]) for step in range(10)]
    return build("much", nodes, [value("x", _FLOAT, [64, 512])], [value("x10", _FLOAT, [64, 512])], weights)


@cache
def folds_text(locale: str) -> Path:
    """x text[N] -> y: in small letters, by the rules of ``locale``."""
    node = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale=locale)
    return build(f"folds-text-{locale}", [node], [value("x", _STRING, ["N"])], [value("y", _STRING, ["N"])])


@cache
def looks_up(known: int, width: int | None = None) -> Path:
    """Indices i64[N,width] into a table of ``known`` rows, beyond which it fails -> y f32[N,2], their sum."""
    weights = helper.make_tensor("weights", _FLOAT, [known, 2], [float(number) for number in range(2 * known)])
    axes = helper.make_tensor("axes", _INT64, [1], [1])
    nodes = [
        helper.make_node("Gather", ["weights", "x"], ["found"]),
        helper.make_node("ReduceSum", ["found", "axes"], ["y"], keepdims=0),
    ]
    inputs = [value("x", _INT64, ["N", width or "length"])]
    return build(f"looks-up-{known}-{width}", nodes, inputs, [value("y", _FLOAT, ["N", 2])], [weights, axes])
