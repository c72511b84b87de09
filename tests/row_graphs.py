"""Random models, and rows of them that answer differently in company: the proof's claims are tried on them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

# Operators with what is drawn for them: constants by shape or by value, attributes by list.
_MATRICES = ((2, 3), (3, 2), (4, 2), (3, 3), (2, 2), (3,), (1, 3), (2, 3, 3))
_TARGETS = ((-1,), (0, -1), (1, -1), (-1, 1), (-1, 2), (-1, 3), (0, 0, -1), (2, -1), (-1, 2, 2), (1, 0, -1), (0, 1, -1))
_ORDERS = ([1, 0], [0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0])
_AXES = (0, 1, -1, -2, 2)
_FAR = 2**62


class _Draft:
    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.inner = self.draw.choice([(3,), (2,), (2, 3), (3, 3), (1, 3), (4,), (2, 2, 2)])
        self.free = self.draw.random() < 0.4
        self.nodes: list[Any] = []
        self.held: list[Any] = []
        self.values = ["x"]
        self.serial = 0

    def pick(self) -> str:
        return self.draw.choice([*self.values[-3:], "x"])

    def axis(self) -> int:
        return self.draw.choice(_AXES)

    def hold(self, array: Any) -> str:
        self.serial += 1
        self.held.append(numpy_helper.from_array(np.asarray(array), f"c{self.serial}"))
        return f"c{self.serial}"

    def whole(self, *values: int) -> str:
        return self.hold(np.array(values, np.int64))

    def weights(self) -> str:
        return self.hold(self.numbers.standard_normal(self.draw.choice(_MATRICES)).astype(np.float32))

    def node(self, operator: str, *inputs: str, outputs: int = 1, domain: str = "", **given: Any) -> str:
        names = []
        for _ in range(outputs):
            self.serial += 1
            names.append(f"v{self.serial}")
        self.nodes.append(helper.make_node(operator, list(inputs), names, domain=domain, **given))
        return names[0]

    def length(self) -> str:
        """One length of some value, as a list of one."""
        return self.node("Gather", self.node("Shape", self.pick()), self.whole(self.draw.choice((0, 0, 1, -1))))

    def target(self) -> str:
        """A shape out of lengths, reckonings with them and numbers."""
        parts = []
        for _ in range(self.draw.randint(1, 3)):
            what = self.draw.random()
            if what < 0.5:
                parts.append(self.length())
            elif what < 0.6:
                parts.append(self.node(self.draw.choice(("Mul", "Add", "Sub", "Max")), self.length(), self.length()))
            elif what < 0.65:
                # Never by a length: onnxruntime ends the process when it divides whole numbers by zero.
                parts.append(self.node("Div", self.length(), self.whole(2)))
            else:
                parts.append(self.whole(self.draw.choice((-1, -1, 0, 1, 2, 3))))
        return self.node("Concat", *parts, axis=0)

    def places(self) -> str:
        count = self.node("Squeeze", self.length())
        return self.node("Range", self.hold(np.int64(0)), count, self.hold(np.int64(1)))

    def index(self) -> str:
        return self.node("Clip", self.node("Cast", self.pick(), to=7), self.hold(np.int64(0)), self.hold(np.int64(1)))

    def whole_of_rows(self) -> str:
        """Whole numbers that the rows' values decide, as a list."""
        return self.node("Reshape", self.index(), self.whole(-1))

    def step(self) -> None:
        self.values.append(self.draw.choice(_STEPS)(self))

    def model(self, answer: str) -> bytes:
        lengths = [*self.inner[:-1], "free" if self.free else self.inner[-1]]
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *lengths])
        graph = helper.make_graph(self.nodes, "g", [value], [helper.make_empty_tensor_value_info(answer)], self.held)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


_STEPS: tuple[Callable[[_Draft], str], ...] = (
    lambda d: d.node(d.draw.choice(("Relu", "Neg", "Tanh", "Identity")), d.pick()),
    lambda d: d.node(d.draw.choice(("Add", "Mul", "Sub", "Max")), d.pick(), d.pick()),
    lambda d: d.node("Add", d.pick(), d.weights()),
    lambda d: d.node("MatMul", d.pick(), d.pick()),
    lambda d: d.node("MatMul", d.pick(), d.weights()),
    lambda d: d.node("MatMul", d.weights(), d.pick()),
    lambda d: d.node("Gemm", d.pick(), d.pick(), transA=d.draw.choice((0, 1)), transB=d.draw.choice((0, 1))),
    lambda d: d.node("Gemm", d.pick(), d.weights(), d.weights(), transA=d.draw.choice((0, 1))),
    lambda d: d.node("Transpose", d.pick(), perm=d.draw.choice(_ORDERS)),
    lambda d: d.node("Reshape", d.pick(), d.target()),
    lambda d: d.node("Reshape", d.pick(), d.whole(*d.draw.choice(_TARGETS))),
    lambda d: d.node("Flatten", d.pick(), axis=d.draw.choice((0, 1, 2, -1))),
    lambda d: d.node("Unsqueeze", d.pick(), d.whole(d.axis())),
    lambda d: d.node("Squeeze", d.pick(), d.whole(d.axis())),
    lambda d: d.node("Concat", d.pick(), d.pick(), axis=d.axis()),
    lambda d: d.node("Concat", d.pick(), d.weights(), axis=d.axis()),
    lambda d: d.node("Split", d.pick(), outputs=2, axis=d.axis(), num_outputs=2),
    lambda d: d.node(
        "Slice", d.pick(), d.whole(d.draw.choice((0, 0, 1, -1))), d.whole(d.draw.choice((1, 2, _FAR, -1))), d.whole(d.axis())
    ),
    lambda d: d.node("Slice", d.pick(), d.whole(_FAR), d.whole(-_FAR), d.whole(d.axis()), d.whole(-1)),
    lambda d: d.node("Slice", d.pick(), d.whole(0), d.length(), d.whole(d.axis())),
    lambda d: d.node("Slice", d.weights(), d.whole(0), d.length(), d.whole(0)),
    lambda d: d.node("Gather", d.pick(), d.hold(np.array(d.draw.choice((0, 1, [0], [0, 0], [-1])))), axis=d.axis()),
    lambda d: d.node("Gather", d.pick(), d.places(), axis=d.draw.choice((0, 0, 1))),
    lambda d: d.node("Gather", d.weights(), d.node("ArgMax", d.pick(), axis=d.axis()), axis=d.draw.choice((0, 1))),
    lambda d: d.node("GatherElements", d.pick(), d.index(), axis=d.axis()),
    lambda d: d.node("GatherND", d.pick(), d.index(), batch_dims=d.draw.choice((0, 1))),
    lambda d: d.node("GatherND", d.pick(), d.node("Unsqueeze", d.places(), d.whole(1))),
    lambda d: d.node("ReduceMean", d.pick(), d.whole(d.axis()), keepdims=d.draw.choice((0, 1))),
    lambda d: d.node("ReduceMax", d.pick(), d.whole(d.axis()), keepdims=d.draw.choice((0, 1))),
    lambda d: d.node("Softmax", d.pick(), axis=d.axis()),
    lambda d: d.node("CumSum", d.pick(), d.hold(np.int64(d.draw.choice((0, 1, -1))))),
    lambda d: d.node("TopK", d.pick(), d.whole(d.draw.choice((1, 2))), outputs=2, axis=d.axis()),
    lambda d: d.node("Expand", d.pick(), d.target()),
    lambda d: d.node("Expand", d.weights(), d.target()),
    lambda d: d.node("Tile", d.pick(), d.whole(*d.draw.choice(((1, 2), (2, 1), (1, 1, 2), (1, 2, 1))))),
    lambda d: d.node("Tile", d.weights(), d.node("Concat", d.length(), d.whole(1), axis=0)),
    lambda d: d.node("ConstantOfShape", d.target()),
    lambda d: d.node("Cast", d.length(), to=1),
    lambda d: d.node("Cast", d.places(), to=1),
    lambda d: d.node("Where", d.node("Greater", d.pick(), d.hold(np.float32(0))), d.pick(), d.pick()),
    lambda d: d.node("LayerNormalization", d.pick(), d.hold(np.ones(1, np.float32)), axis=d.draw.choice((-1, 1, 0))),
    lambda d: d.node("LpNormalization", d.pick(), axis=d.axis()),
    lambda d: d.node("Pad", d.pick(), d.whole(*d.draw.choice(((0, 0, 0, 1), (0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0, 0, 1))))),
    lambda d: d.node("Trilu", d.pick()),
    lambda d: d.node("Compress", d.pick(), d.hold(np.array([True, False, True])), axis=d.draw.choice((0, 1))),
    lambda d: d.node("MaxPool", d.pick(), kernel_shape=[2]),
    lambda d: d.node(
        "OneHot", d.node("Cast", d.pick(), to=7), d.hold(np.int64(3)), d.hold(np.array([0, 1], np.float32)), axis=d.axis()
    ),
    lambda d: d.node("Normalizer", d.pick(), domain="ai.onnx.ml", norm="L2"),
    lambda d: d.node("ArrayFeatureExtractor", d.pick(), d.whole(d.draw.choice((0, 1))), domain="ai.onnx.ml"),
    lambda d: d.node("ArrayFeatureExtractor", d.hold(np.array([3, 5], np.float32)), d.index(), domain="ai.onnx.ml"),
    lambda d: d.node("Cast", d.node("Gather", d.node("Shape", d.pick()), d.index()), to=1),
    lambda d: d.node("Cast", d.node("Tile", d.length(), d.length()), to=1),
    lambda d: d.node("Cast", d.node("ReduceSum", d.node("Shape", d.node("ConstantOfShape", d.whole_of_rows()))), to=1),
    lambda d: d.node("Reshape", d.node("ReduceSum", d.node("Tile", d.weights(), d.whole_of_rows())), d.whole(1)),
    lambda d: d.node("Reshape", d.node("ReduceSum", d.node("Slice", d.weights(), d.whole_of_rows(), d.whole(_FAR))), d.whole(1)),
)


def random_model(seed: int, file: Path) -> None:
    """x f32[N, …] through one to seven operators that fit behind each other."""
    draft = _Draft(seed)
    sample = np.ones((3, *draft.inner), np.float32)
    wanted = draft.draw.randint(1, 7)
    for _ in range(60):
        if len(draft.values) > wanted:
            break
        before = len(draft.nodes), len(draft.held), len(draft.values)
        draft.step()
        answer = _answer(_session(draft.model(draft.values[-1])), sample)
        if answer is None or answer.dtype != np.float32:
            del draft.nodes[before[0] :], draft.held[before[1] :], draft.values[before[2] :]
    file.write_bytes(draft.model(draft.values[-1] if len(draft.values) > 1 else draft.node("Identity", "x")))


def counter_example(file: Path, seed: int) -> str:
    """A row that answers differently alone, or beside others; empty when none was found."""
    session, numbers = _session(file.read_bytes()), np.random.default_rng(seed)
    inner = [length if isinstance(length, int) else 3 for length in session.get_inputs()[0].shape[1:]]
    for count in (2, 3, 5):
        rows = numbers.standard_normal((count, *inner)).astype(np.float32)
        together = _answer(session, rows)
        if together is None:
            continue
        if not together.ndim or len(together) != count:
            return f"{together.shape} from {count} rows"
        others = rows * np.array([1] + [-1000] * (count - 1), np.float32).reshape(-1, *[1] * len(inner))
        beside = _answer(session, others)
        for number in range(count):
            alone = _answer(session, rows[number : number + 1])
            if alone is not None and not _alike(alone, together[number : number + 1]):
                return f"row {number} of {count} answers differently alone"
        if beside is not None and not _alike(together[:1], beside[:1]):
            return f"row 0 of {count} answers differently beside others"
    return ""


def _alike(left: Any, right: Any) -> bool:
    return left.shape == right.shape and np.allclose(left, right, rtol=1e-3, atol=1e-4, equal_nan=True)


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # onnxruntime's classes have no base of their own; a graph that does not fit is no failure of a test.
    except Exception:  # noqa: BLE001 - see above
        return None


def _answer(session: Any, rows: Any) -> Any:
    if session is None:
        return None
    try:
        return session.run(None, {"x": rows})[0]
    except Exception:  # noqa: BLE001 - its classes have no base of their own, see above
        return None
