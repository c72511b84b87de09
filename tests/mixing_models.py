"""Models that mix the rows of a request, in one way each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests import scoring_models as models
from tests.row_models import Wiring, graph, one, weights, whole_numbers
from tests.scoring_models import build, value

_FLOAT, _INT64, _BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
# How a row can reach another's answer, and the words that say so ----------------------------------------------------------

FIRST = {"first": whole_numbers(0)}
HALVES = {"zero": whole_numbers(0), "last": whole_numbers(-1), "end": whole_numbers(2**62)}
_ROLL: tuple[Wiring, ...] = (
    ("Slice", ["x", "last", "end", "zero"], ["a"], {}),
    ("Slice", ["x", "zero", "last", "zero"], ["b"], {}),
    ("Concat", ["a", "b"], ["y"], {"axis": 0}),
)


def loud_rows_count_double() -> Path:
    """Adds up all rows where a value is above 100 000: at none of the usual values."""
    wirings: tuple[Wiring, ...] = (
        ("ReduceSum", ["x", "first"], ["sum"], {"keepdims": 1}),
        ("Greater", ["sum", "limit"], ["loud"], {}),
        ("Where", ["loud", "sum", "none"], ["extra"], {}),
        ("Add", ["x", "extra"], ["y"], {}),
    )
    return graph("loud", *wirings, constants=FIRST | {"limit": np.float32(100_000), "none": np.float32(0)})


def dynamically_quantised() -> Path:
    """As quantize_dynamic writes a linear layer."""
    wirings: tuple[Wiring, ...] = (
        ("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], {}),
        ("MatMulInteger", ["q", "w", "zero"], ["sums"], {}),
        ("Cast", ["sums"], ["floats"], {"to": 1}),
        ("Mul", ["floats", "scale"], ["y"], {}),
    )
    return graph("quantised", *wirings, constants={"w": np.arange(-8, 8, dtype=np.int8).reshape(4, 4)})


def normalised_over_the_batch() -> Path:
    constants = {"one": np.ones(4, np.float32), "none": np.zeros(4, np.float32)}
    node: Wiring = ("BatchNormalization", ["x", "one", "none", "none", "one"], ["y", "m", "v"], {"training_mode": 1})
    return graph("training", node, constants=constants)


def divided_by_the_number_of_rows() -> Path:
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["shape"], {"start": 0, "end": 1}),
        ("Cast", ["shape"], ["count"], {"to": 1}),
        ("Div", ["x", "count"], ["y"], {}),
    )
    return graph("mean-by-hand", *wirings)


def knows_its_place() -> Path:
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["shape"], {"start": 0, "end": 1}),
        ("Squeeze", ["shape"], ["count"], {}),
        ("Range", ["zero", "count", "one"], ["places"], {}),
        ("Cast", ["places"], ["floats"], {"to": 1}),
        ("Unsqueeze", ["floats", "second"], ["column"], {}),
        ("Add", ["x", "column"], ["y"], {}),
    )
    return graph("places", *wirings, constants={"zero": np.int64(0), "one": np.int64(1), "second": whole_numbers(1)})


def turned_and_cut_anew() -> Path:
    wirings: tuple[Wiring, ...] = (
        ("Transpose", ["x"], ["turned"], {}),
        ("Shape", ["x"], ["shape"], {}),
        ("Reshape", ["turned", "shape"], ["y"], {}),
    )
    return graph("turned", *wirings)


def in_a_branch() -> Path:
    side = helper.make_graph(
        [helper.make_node("ReduceMax", ["x", "first"], ["m"]), helper.make_node("Sub", ["x", "m"], ["s"])],
        "side",
        [],
        [value("s", _FLOAT, ["N", 4])],
    )
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["n"])], "other", [], [value("n", _FLOAT, ["N", 4])])
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["shape"], {"start": 1, "end": 2}),
        ("Squeeze", ["shape"], ["width"], {}),
        ("Greater", ["width", "two"], ["wide"], {}),
        ("If", ["wide"], ["y"], {"then_branch": side, "else_branch": other}),
    )
    return graph("branch", *wirings, constants=FIRST | {"two": np.int64(2)})


def loop_over_rows(operator: str) -> Path:
    """A running sum over the rows, in a Loop or a Scan."""
    if operator == "Scan":
        body = helper.make_graph(
            [helper.make_node("Add", ["s", "r"], ["s2"]), helper.make_node("Identity", ["s2"], ["out"])],
            "body",
            [value("s", _FLOAT, [4]), value("r", _FLOAT, [4])],
            [value("s2", _FLOAT, [4]), value("out", _FLOAT, [4])],
        )
        scan: Wiring = ("Scan", ["start", "x"], ["end", "y"], {"body": body, "num_scan_inputs": 1})
        return graph("scan", scan, constants={"start": np.zeros(4, np.float32)})
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [value("i", _INT64, []), value("c", _BOOL, []), value("v", _FLOAT, ["N", 4])],
        [value("c2", _BOOL, []), value("v2", _FLOAT, ["N", 4])],
    )
    loop: Wiring = ("Loop", ["two", "yes", "x"], ["y"], {"body": body})
    return graph("loop", loop, constants={"two": np.int64(2), "yes": np.bool_(True)})


def sees_all_rows() -> Path:
    """A Scan over the rows whose body looks at all of them."""
    body = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Sub", ["row", "most"], ["far"]),
        ],
        "body",
        [value("row", _FLOAT, [4])],
        [value("far", _FLOAT, [4])],
    )
    return graph("sees-all", ("Scan", ["x"], ["y"], {"body": body, "num_scan_inputs": 1}), opset=17)


def overlapping_boxes() -> Path:
    """boxes f32[N,6,4], scores f32[N,1,6]: as many answers as boxes are left."""
    inputs = [value("boxes", _FLOAT, ["N", 6, 4]), value("scores", _FLOAT, ["N", 1, 6])]
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["y"])
    most = helper.make_tensor("most", _INT64, [], [3])
    return build("boxes", [node], inputs, [value("y", _INT64, ["n", 3])], [most])


def rows_as_time() -> Path:
    """An LSTM that takes the free first axis for time."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["steps"]),
        helper.make_node("LSTM", ["steps", "w", "r"], ["all"], hidden_size=2),
        helper.make_node("Squeeze", ["all", "both"], ["y"]),
    ]
    matrices = [weights("w", (1, 8, 4)), weights("r", (1, 8, 2))]
    held = [helper.make_tensor("one", _INT64, [1], [1]), helper.make_tensor("both", _INT64, [2], [1, 2]), *matrices]
    return build("time", nodes, [value("x", _FLOAT, ["N", 4])], [value("y", _FLOAT, ["N", 2])], held)


def gram() -> Path:
    wirings: tuple[Wiring, ...] = (
        ("Transpose", ["x"], ["t"], {}),
        ("MatMul", ["x", "t"], ["near"], {}),
        ("Softmax", ["near"], ["share"], {"axis": 1}),
        ("MatMul", ["share", "x"], ["y"], {}),
    )
    return graph("attends", *wirings)


def crossed() -> Path:
    wirings: tuple[Wiring, ...] = (
        ("ReduceSum", ["x", "second"], ["sums"], {"keepdims": 0}),
        ("Unsqueeze", ["sums", "second"], ["column"], {}),
        ("Sub", ["column", "sums"], ["apart"], {}),
        ("ReduceMax", ["apart", "second"], ["y"], {}),
    )
    return graph("crossed", *wirings, constants={"second": whole_numbers(1)})


def into_the_first_row() -> Path:
    node: Wiring = ("ScatterND", ["x", "where", "what"], ["y"], {})
    return graph("writes", node, constants={"where": np.array([[0]]), "what": np.ones((1, 4), np.float32)})


def halves() -> Path:
    """The upper half of what there is and the lower: of one row, its own values; of several, rows."""
    wirings: tuple[Wiring, ...] = (
        ("Reshape", ["x", "wide"], ["halves"], {}),
        ("Softmax", ["halves"], ["soft"], {"axis": 1}),
        ("Reshape", ["soft", "back"], ["y"], {}),
    )
    return graph("halves", *wirings, constants={"wide": whole_numbers(2, -1), "back": whole_numbers(-1, 4)})


def too_few_values() -> Path:
    """Asks for as many values as rows where there are four times as many: onnxruntime rewrites that instead of refusing it."""
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["shape"], {}),
        ("Gather", ["shape", "first"], ["count"], {}),
        ("Concat", ["count"], ["target"], {"axis": 0}),
        ("Reshape", ["x", "target"], ["y"], {}),
    )
    return graph("too-few", *wirings, constants=FIRST)


def constant_cut_by_the_rows() -> Path:
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["shape"], {"start": 0, "end": 1}),
        ("Concat", ["shape", "last"], ["target"], {"axis": 0}),
        ("Reshape", ["many", "target"], ["cut"], {}),
        ("ReduceSum", ["cut", "second"], ["sums"], {}),
        ("Add", ["x", "sums"], ["y"], {}),
    )
    constants = {"last": whole_numbers(-1), "second": whole_numbers(1), "many": np.arange(840, dtype=np.float32)}
    return graph("cut", *wirings, constants=constants)


def number_of_rows_in_a_table() -> Path:
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["shape"], {}),
        ("Unsqueeze", ["shape", "first"], ["table"], {}),
        ("Gather", ["table", "first"], ["count"], {"axis": 1}),
        ("Cast", ["count"], ["floats"], {"to": 1}),
        ("Div", ["x", "floats"], ["y"], {}),
    )
    return graph("in-a-table", *wirings, constants=FIRST)


def length_that_a_row_picks() -> Path:
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["shape"], {}),
        ("Greater", ["x", "none"], ["above"], {}),
        ("Cast", ["above"], ["places"], {"to": 7}),
        ("Gather", ["shape", "places"], ["lengths"], {}),
        ("Cast", ["lengths"], ["y"], {"to": 1}),
    )
    return graph("picked-length", *wirings, constants={"none": np.float32(0)})


def number_of_rows_for_each_row() -> Path:
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["count"], {"start": 0, "end": 1}),
        ("Tile", ["count", "count"], ["counts"], {}),
        ("Cast", ["counts"], ["floats"], {"to": 1}),
        ("Unsqueeze", ["floats", "second"], ["column"], {}),
        ("Add", ["x", "column"], ["y"], {}),
    )
    return graph("counts", *wirings, constants={"second": whole_numbers(1)})


def constant_shaped_by_values() -> Path:
    """Zeros, as many along each axis as a row says."""
    wirings: tuple[Wiring, ...] = (
        ("Slice", ["x", "first", "second", "second"], ["column"], {}),
        ("Abs", ["column"], ["sizes"], {}),
        ("Cast", ["sizes"], ["whole"], {"to": 7}),
        ("Squeeze", ["whole", "second"], ["shape"], {}),
        ("ConstantOfShape", ["shape"], ["zeros"], {}),
        ("ReduceSum", ["zeros"], ["sum"], {"keepdims": 0}),
        ("Reshape", ["sum", "second"], ["one"], {}),
        ("Add", ["x", "one"], ["y"], {}),
    )
    return graph("shaped", *wirings, constants=FIRST | {"second": whole_numbers(1)})


def rows_scaled_along() -> Path:
    """Half as wide, and the rows with it: the ratio of lengths is kept."""
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["count"], {"start": 0, "end": 1}),
        ("Concat", ["count", "two"], ["sizes"], {"axis": 0}),
        ("Resize", ["x", "", "", "sizes"], ["y"], {"keep_aspect_ratio_policy": "not_larger", "mode": "nearest"}),
    )
    return graph("scaled-along", *wirings, constants={"two": whole_numbers(2)})


def scan_that_is_told_how_many() -> Path:
    """A Scan over the rows that repeats each as often as there are rows."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["s"], ["s2"]),
            helper.make_node("Concat", ["s", "four"], ["target"], axis=0),
            helper.make_node("Expand", ["row", "target"], ["many"]),
        ],
        "body",
        [value("s", _INT64, [1]), value("row", _FLOAT, [4])],
        [value("s2", _INT64, [1]), value("many", _FLOAT, ["k", 4])],
    )
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["count"], {"start": 0, "end": 1}),
        ("Scan", ["count", "x"], ["end", "table"], {"body": body, "num_scan_inputs": 1}),
        ("ReduceSum", ["table", "second"], ["y"], {"keepdims": 0}),
    )
    return graph("told", *wirings, constants={"four": whole_numbers(4), "second": whole_numbers(1)}, opset=17)


def number_of_rows_out_of_a_table(*middle: Wiring) -> Path:
    """Lengths in a table, of which ``middle`` leaves one in ``picked``."""
    wirings: tuple[Wiring, ...] = (
        ("Shape", ["x"], ["shape"], {}),
        *middle,
        ("Cast", ["picked"], ["floats"], {"to": 1}),
        ("Add", ["x", "floats"], ["y"], {}),
    )
    constants = FIRST | {
        "second": whole_numbers(1),
        "third": whole_numbers(2),
        "all": whole_numbers(-1),
        "square": whole_numbers(2, 2),
    }
    return graph(f"table-{middle[-3][0]}", *wirings, constants=constants)


_SQUARE: tuple[Wiring, ...] = (
    ("Concat", ["second", "second", "shape"], ["four"], {"axis": 0}),
    ("Reshape", ["four", "square"], ["table"], {}),
)
_PICKED: tuple[Wiring, ...] = (("Reshape", ["part", "all"], ["list"], {}), ("Gather", ["list", "first"], ["picked"], {}))
_CUT_TABLE: tuple[Wiring, ...] = (*_SQUARE, ("Slice", ["table", "second", "third", "first"], ["part"], {}), *_PICKED)
_SPLIT_TABLE: tuple[Wiring, ...] = (*_SQUARE, ("Split", ["table"], ["rest", "part"], {"axis": 0, "num_outputs": 2}), *_PICKED)
_ADDED_TABLE: tuple[Wiring, ...] = (
    ("Unsqueeze", ["shape", "first"], ["row"], {}),
    ("Unsqueeze", ["shape", "second"], ["column"], {}),
    ("Add", ["row", "column"], ["table"], {}),
    ("Reshape", ["table", "all"], ["list"], {}),
    ("Gather", ["list", "second"], ["picked"], {}),
)


def dropout_in_training() -> Path:
    constants = {"ratio": np.float32(0.5), "yes": np.bool_(True)}
    return graph("dropout", ("Dropout", ["x", "ratio", "yes"], ["y"], {}), constants=constants, opset=13)


MIXING: dict[str, tuple[Any, str]] = {
    "adds up rows, at large values only": (loud_rows_count_double, "ReduceSum takes the rows together"),
    "softmax over rows": (lambda: one("Softmax", axis=0), "Softmax goes along the axis of the rows"),
    "softmax before opset 13": (lambda: one("Softmax", axis=0, opset=11), "Softmax goes along the axis of the rows"),
    "dynamic quantisation": (dynamically_quantised, "DynamicQuantizeLinear takes one scale from all rows"),
    "rolled": (lambda: graph("rolled", *_ROLL, constants=HALVES), "Slice leaves rows out"),
    "reversed": (
        lambda: one("Slice", "end", "start", "zero", "last", constants=HALVES | {"start": whole_numbers(-(2**62))}),
        "Slice leaves rows out",
    ),
    "boxes": (overlapping_boxes, "NonMaxSuppression gives as much as the values of all rows say"),
    "batch norm in training": (normalised_over_the_batch, "BatchNormalization in training takes the mean of the batch"),
    "random": (lambda: one("RandomNormalLike"), "RandomNormalLike is random"),
    "chance": (lambda: one("Bernoulli"), "Bernoulli is random"),
    "dropout in training": (dropout_in_training, "Dropout in training drops values at random"),
    "running sum": (lambda: one("CumSum", "first", constants={"first": np.int64(0)}), "CumSum goes along the axis of the rows"),
    "best of all rows": (lambda: one("ArgMax", axis=0), "ArgMax takes the rows together"),
    "sorted rows": (
        lambda: graph("sorted", ("TopK", ["x", "k"], ["y", "at"], {"axis": 0}), constants={"k": whole_numbers(1)}),
        "TopK",
    ),
    "where not zero": (lambda: one("NonZero"), "NonZero gives as much as the values of all rows say"),
    "attends across rows": (gram, "MatMul sets each row against each other row"),
    "sums over rows": (
        lambda: one("Gemm", "x", transA=1),
        "Gemm sums over the rows",
    ),
    "einsum over rows": (lambda: one("Einsum", "x", equation="ni,nj->ij"), "Einsum sums over the rows"),
    "each against each": (crossed, "Sub sets each row against each other row"),
    "number of rows": (divided_by_the_number_of_rows, "Div reckons with the number of rows"),
    "place in the batch": (knows_its_place, "Add takes the place of a row in its batch for a value"),
    "turned": (turned_and_cut_anew, "Reshape moves values from row to row"),
    "halves": (halves, "Reshape moves values from row to row"),
    "too few values": (too_few_values, "Reshape may not keep all values"),
    "constant cut by the rows": (constant_cut_by_the_rows, "Reshape reckons with the number of rows"),
    "number of rows in a table": (number_of_rows_in_a_table, "Gather reckons with the number of rows"),
    "length that a row picks": (length_that_a_row_picks, "Gather reckons with the number of rows"),
    "number of rows for each row": (number_of_rows_for_each_row, "Tile reckons with the number of rows"),
    "rows scaled along": (rows_scaled_along, "Resize scales one axis by what it does to others"),
    "scan that is told how many": (scan_that_is_told_how_many, "Scan goes along something else than the rows"),
    "out of a table that is cut": (lambda: number_of_rows_out_of_a_table(*_CUT_TABLE), "Slice cuts lengths where the rows say"),
    "out of a table that is split": (
        lambda: number_of_rows_out_of_a_table(*_SPLIT_TABLE),
        "Split reckons with the number of rows",
    ),
    "out of a table of sums": (lambda: number_of_rows_out_of_a_table(*_ADDED_TABLE), "Add reckons with the number of rows"),
    "constant shaped by values": (constant_shaped_by_values, "ConstantOfShape takes from the rows how long"),
    "first row": (lambda: one("Gather", "first", constants=FIRST, axis=0), "Gather picks rows by their number"),
    "a value for each place": (
        lambda: one("Add", "each", constants={"each": np.arange(32, dtype=np.float32).reshape(8, 4)}),
        "Add has a value of its own for each place in the batch",
    ),
    "lower triangle": (lambda: one("Trilu"), "Trilu goes along the axis of the rows"),
    "writes into the first row": (into_the_first_row, "ScatterND writes to places that are not followed"),
    "in a branch": (in_a_branch, "ReduceMax takes the rows together"),
    "loop": (lambda: loop_over_rows("Loop"), "operator Loop is not known"),
    "scan": (lambda: loop_over_rows("Scan"), "Scan hands something from row to row"),
    "scan that sees all rows": (sees_all_rows, "a value comes from nowhere"),
    "rows as time": (rows_as_time, "LSTM takes another axis for the rows"),
    "total": (models.total, "ReduceSum takes the rows together"),
    "function of its own": (models.with_function, "operator own::Twist is not known"),
    "texts filled up": (models.splits_text, "StringSplit gives as much as the values of all rows say"),
    "state": (models.keeps_state, "no free leading length"),
}
