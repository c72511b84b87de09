"""Models of every usual kind that keep the rows of a request apart; mixing_models.py has those that do not."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import scoring_models as models
from tests.scoring_models import build, folder, value

_FLOAT, _INT64, _BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Wiring = tuple[str, list[str], list[str], dict[str, Any]]


def graph(name: str, *wirings: Wiring, width: int = 4, opset: int = 18, constants: dict[str, Any] | None = None) -> Path:
    """x f32[N, width] through ``wirings`` (operator, inputs, outputs, attributes) to y."""
    nodes = [helper.make_node(operator, inputs, outputs, **given) for operator, inputs, outputs, given in wirings]
    held = [numpy_helper.from_array(np.asarray(array), key) for key, array in (constants or {}).items()]
    # What it is and how long is for onnxruntime to find out.
    made = helper.make_graph(nodes, "g", [value("x", _FLOAT, ["N", width])], [helper.make_empty_tensor_value_info("y")], held)
    file = folder() / f"rows-{name}.onnx"
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), file)
    return file


def whole_numbers(*values: int) -> Any:
    return np.array(values, np.int64)


def one(operator: str, *inputs: str, constants: dict[str, Any] | None = None, opset: int = 18, **given: Any) -> Path:
    """A single operator between x and y."""
    name = "-".join([operator.lower(), str(opset), *(f"{key}{value}".replace(" ", "") for key, value in given.items())])
    return graph(name, (operator, ["x", *inputs], ["y"], given), constants=constants, opset=opset)


def weights(name: str, shape: tuple[int, ...]) -> Any:
    seed = sum(map(ord, name)) + sum(shape)
    return numpy_helper.from_array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / 4, name)


# What keeps rows apart -------------------------------------------------------------------------------------------------


@cache
def small_cnn() -> Path:
    """image f32[N,3,8,8]: convolution, recorded batch norm, pools, a flattening as exporters write it, a linear layer."""
    nodes = [
        helper.make_node("Conv", ["image", "k", "kb"], ["a"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["a", "one", "none", "none", "one"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["d"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["count"]),
        helper.make_node("Unsqueeze", ["count", "at"], ["counts"]),
        helper.make_node("Concat", ["counts", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["d", "target"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "wb"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], ["y"], axis=1),
    ]
    held = [weights("k", (5, 3, 3, 3)), weights("kb", (5,)), weights("w", (2, 80)), weights("wb", (2,))]
    held += [helper.make_tensor(name, _FLOAT, [5], [number] * 5) for name, number in (("one", 1.0), ("none", 0.0))]
    held += [helper.make_tensor("first", _INT64, [], [0]), helper.make_tensor("at", _INT64, [1], [0])]
    held += [helper.make_tensor("rest", _INT64, [1], [-1])]
    return build("small-cnn", nodes, [value("image", _FLOAT, ["N", 3, 8, 8])], [value("y", _FLOAT, ["N", 2])], held)


@cache
def lstm() -> Path:
    """x f32[N,T,4]: time goes first inside, the start is as long as there are rows, the last state is the answer."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
        helper.make_node("Concat", ["one", "count", "three"], ["target"], axis=0),
        helper.make_node("ConstantOfShape", ["target"], ["start"]),
        helper.make_node("LSTM", ["steps", "w", "r", "", "", "start", "start"], ["", "last", ""], hidden_size=3),
        helper.make_node("Squeeze", ["last", "zero"], ["y"]),
    ]
    held = [helper.make_tensor(name, _INT64, [1], [number]) for name, number in (("zero", 0), ("one", 1), ("three", 3))]
    held += [weights("w", (1, 12, 4)), weights("r", (1, 12, 3))]
    return build("lstm", nodes, [value("x", _FLOAT, ["N", "T", 4])], [value("y", _FLOAT, ["N", 3])], held)


@cache
def encoder() -> Path:
    """ids, attention_mask i64[N,T]: one layer of a transformer with two heads, a token for the whole put first, masked mean."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["tokens"]),
        helper.make_node("Shape", ["ids"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["n"]),
        helper.make_node("Slice", ["shape", "one", "two"], ["t"]),
        helper.make_node("Concat", ["n", "t", "two", "minus"], ["heads"], axis=0),
        helper.make_node("Concat", ["n", "t", "minus"], ["joined"], axis=0),
    ]
    for name in ("q", "k", "v"):
        nodes += [
            helper.make_node("MatMul", ["tokens", f"w{name}"], [f"{name}1"]),
            helper.make_node("Reshape", [f"{name}1", "heads"], [f"{name}2"]),
            helper.make_node("Transpose", [f"{name}2"], [name], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]),
        ]
    nodes += [
        helper.make_node("MatMul", ["q", "k"], ["near"]),
        helper.make_node("Unsqueeze", ["attention_mask", "ahead"], ["m4"]),
        helper.make_node("Cast", ["m4"], ["m"], to=1),
        helper.make_node("Sub", ["unit", "m"], ["off"]),
        helper.make_node("Mul", ["off", "far"], ["bias"]),
        helper.make_node("Add", ["near", "bias"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["share"], axis=-1),
        helper.make_node("MatMul", ["share", "v"], ["seen"]),
        helper.make_node("Transpose", ["seen"], ["seen2"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["seen2", "joined"], ["flat"]),
        helper.make_node("Add", ["flat", "tokens"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "scale", "shift"], ["normed"], axis=-1),
        helper.make_node("Concat", ["n", "one", "eight"], ["whole"], axis=0),
        helper.make_node("Expand", ["cls", "whole"], ["cls2"]),
        helper.make_node("Concat", ["cls2", "normed"], ["all"], axis=1),
        helper.make_node("ReduceMean", ["all"], ["y"], axes=[1], keepdims=0),
    ]
    numbers = {"zero": [0], "one": [1], "two": [2], "minus": [-1], "ahead": [1, 2], "eight": [8]}
    held = [helper.make_tensor(name, _INT64, [len(values)], values) for name, values in numbers.items()]
    held += [weights("table", (100, 8)), weights("cls", (1, 1, 8)), *(weights(f"w{name}", (8, 8)) for name in "qkv")]
    held += [numpy_helper.from_array(np.array(1, np.float32), "unit"), numpy_helper.from_array(np.array(-1e9, np.float32), "far")]
    held += [numpy_helper.from_array(np.full(8, number, np.float32), name) for name, number in (("scale", 1), ("shift", 0))]
    inputs = [value("ids", _INT64, ["N", "T"]), value("attention_mask", _INT64, ["N", "T"])]
    return build("encoder", nodes, inputs, [value("y", _FLOAT, ["N", 8])], held)


@cache
def statically_quantised() -> Path:
    """With one scale for ever, which no row decides."""
    wirings: tuple[Wiring, ...] = (
        ("QuantizeLinear", ["x", "scale", "zero"], ["q"], {}),
        ("MatMulInteger", ["q", "w", "zero"], ["sums"], {}),
        ("Cast", ["sums"], ["floats"], {"to": 1}),
        ("Mul", ["floats", "scale"], ["y"], {}),
    )
    constants = {"scale": np.float32(0.05), "zero": np.uint8(128), "w": np.arange(-8, 8, dtype=np.int8).reshape(4, 4)}
    return graph("static", *wirings, constants=constants)


@cache
def picks_its_own_row() -> Path:
    """As newer exporters of transformers write a mask: each row is picked by its own number."""
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["shape"], {"start": 0, "end": 1}),
        ("Squeeze", ["shape"], ["count"], {}),
        ("Range", ["zero", "count", "one"], ["places"], {}),
        ("Unsqueeze", ["places", "second"], ["number"], {}),
        ("Concat", ["shape", "second"], ["target"], {"axis": 0}),
        ("Expand", ["second", "target"], ["column"], {}),
        ("Concat", ["number", "column"], ["index"], {"axis": 1}),
        ("GatherND", ["x", "index"], ["y"], {}),
    )
    return graph("own-row", *wirings, constants={"zero": np.int64(0), "one": np.int64(1), "second": whole_numbers(1)})


def nearest(scanned: str) -> Path:
    """Distances to three known rows, as converters of neighbours write them: once for each row, or for each known one."""
    state, part = ([3, 4], [4]) if scanned == "x" else (["N", 4], [4])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["kept"], ["same"]),
            helper.make_node("Sub", ["kept", "part"], ["apart"]),
            helper.make_node("ReduceSumSquare", ["apart"], ["far"], axes=[1], keepdims=0),
        ],
        "body",
        [value("kept", _FLOAT, state), value("part", _FLOAT, part)],
        [value("same", _FLOAT, state), value("far", _FLOAT, state[:1])],
    )
    inputs = ["points", "x"] if scanned == "x" else ["x", "points"]
    scan: Wiring = ("Scan", inputs, ["again", "all"], {"body": body, "num_scan_inputs": 1})
    turn: Wiring = ("Transpose", ["all"], ["y"], {"perm": [0, 1] if scanned == "x" else [1, 0]})
    return graph(f"nearest-{scanned}", scan, turn, opset=17, constants={"points": np.arange(12, dtype=np.float32).reshape(3, 4)})


@cache
def columns_encoded() -> Path:
    """What skl2onnx makes of a ColumnTransformer: numbers beside one of four categories, its code brought back to a table."""
    return graph(
        "columns-encoded",
        ("Gather", ["x", "last"], ["column"], {"axis": 1}),
        ("Cast", ["column"], ["category"], {"to": 7}),
        ("OneHotEncoder", ["category"], ["code"], {"domain": "ai.onnx.ml", "cats_int64s": [0, 1, 2, 3], "zeros": 1}),
        ("Reshape", ["code", "table"], ["flat"], {}),
        ("Concat", ["x", "flat"], ["y"], {"axis": 1}),
        constants={"last": whole_numbers(3), "table": whole_numbers(-1, 4)},
    )


APART: dict[str, Any] = {
    "linear": models.iris,
    "linear with maps": models.iris_with_maps,
    "trees": lambda: models.shuttle_anomalies()[0],
    "net": lambda: models.digits()[0],
    "cnn": small_cnn,
    "lstm": lstm,
    "transformer encoder": encoder,
    "quantised once": statically_quantised,
    "one column encoded": columns_encoded,
    "own row by number": picks_its_own_row,
    "text": models.echo_text,
    "neighbours, row by row": lambda: nearest("x"),
    "neighbours, one by one": lambda: nearest("points"),
    "softmax over columns": lambda: one("Softmax", axis=1),
    "sorted columns": lambda: graph("columns", ("TopK", ["x", "k"], ["y", "at"], {"axis": 1}), constants={"k": whole_numbers(2)}),
    "running sum of columns": lambda: one("CumSum", "second", constants={"second": np.int64(1)}),
}
