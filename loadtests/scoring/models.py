"""The two models of the scoring benchmark and what is sent to them: a small tree ensemble and a convolutional net."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 224
# Expansion, channels, repeats, stride of MobileNetV2's blocks (Sandler et al. 2018, table 2).
_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@dataclass(frozen=True)
class Sent:
    """One request: its body and headers, and the answer that it must have."""

    body: bytes
    headers: tuple[tuple[str, str], ...]
    rows: NDArray[Any]


def tiny(folder: Path) -> Path:
    """Gradient boosting on iris, 100 rounds: [N, 4] to one label a row."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.ensemble import GradientBoostingClassifier

    rows, labels = load_iris(return_X_y=True)
    classifier = GradientBoostingClassifier(n_estimators=100, random_state=0).fit(rows, labels)
    model = to_onnx(classifier, rows[:1].astype(np.float32), options={id(classifier): {"zipmap": False}})
    # As measured elsewhere: the label alone is the answer.
    del model.graph.output[1:]
    return _saved(model, folder / "tiny.onnx")


def cnn(folder: Path) -> Path:
    """MobileNetV2 with random weights (14 MB): [N, 3, 224, 224] to the best class of 1 000."""
    net = _Net()
    here = net.conv("image", 3, 32, kernel=3, stride=2)
    channels = 32
    for expansion, out, repeats, first_stride in _BLOCKS:
        for number in range(repeats):
            here = net.block(here, channels, out, expansion, first_stride if number == 0 else 1)
            channels = out
    here = net.conv(here, channels, 1280)
    here = net.node("GlobalAveragePool", [here])
    here = net.node("Flatten", [here])
    here = net.node("Gemm", [here, net.weight((1280, 1000)), net.weight((1000,))])
    net.nodes.append(helper.make_node("ArgMax", [here], ["class"], axis=1, keepdims=0))
    graph = helper.make_graph(
        net.nodes,
        "mobilenet-v2",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("class", TensorProto.INT64, ["N"])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return _saved(model, folder / "cnn.onnx")


class _Net:
    """Builds a graph node by node."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._random = np.random.default_rng(7)

    def weight(self, shape: tuple[int, ...]) -> str:
        name = f"w{len(self.weights)}"
        fan_in = int(np.prod(shape[1:])) or 1
        values = (self._random.standard_normal(shape) * (2.0 / fan_in) ** 0.5).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def conv(
        self, here: str, channels: int, out: int, *, kernel: int = 1, stride: int = 1, group: int = 1, relu: bool = True
    ) -> str:
        pad = kernel // 2
        here = self.node(
            "Conv",
            [here, self.weight((out, channels // group, kernel, kernel)), self.weight((out,))],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=group,
        )
        if not relu:
            return here
        low, high = (
            numpy_helper.from_array(np.array(0, np.float32), "low"),
            numpy_helper.from_array(np.array(6, np.float32), "high"),
        )
        if not any(weight.name == "low" for weight in self.weights):
            self.weights += [low, high]
        return self.node("Clip", [here, "low", "high"])

    def block(self, start: str, channels: int, out: int, expansion: int, stride: int) -> str:
        wide = channels * expansion
        here = self.conv(start, channels, wide) if expansion > 1 else start
        here = self.conv(here, wide, wide, kernel=3, stride=stride, group=wide)
        here = self.conv(here, wide, out, relu=False)
        return self.node("Add", [start, here]) if stride == 1 and channels == out else here


def _saved(model: Any, file: Path) -> Path:
    onnx.save(model, file)
    return file


def tiny_rows(count: int) -> Iterator[NDArray[Any]]:
    """Different flowers, one row each, one decimal as in the data set."""
    random = np.random.default_rng(1)
    for _ in range(count):
        yield np.round(random.uniform([4.3, 2.0, 1.0, 0.1], [7.9, 4.4, 6.9, 2.5]), 1).astype(np.float32)[None]


def images(count: int) -> Iterator[NDArray[Any]]:
    random = np.random.default_rng(2)
    for _ in range(count):
        yield np.round(random.uniform(0, 1, (1, 3, SIDE, SIDE)), 4).astype(np.float32)


def as_score(rows: NDArray[Any]) -> Sent:
    """JSON of the AML contract."""
    body = json.dumps({"data": np.round(rows.astype(np.float64), 4).tolist()}).encode()
    return Sent(body, (("content-type", "application/json"),), rows)


def as_v2(rows: NDArray[Any], name: str) -> Sent:
    """JSON of the Open Inference Protocol."""
    data = np.round(rows.astype(np.float64), 4).ravel().tolist()
    tensor = {"name": name, "datatype": "FP32", "shape": list(rows.shape), "data": data}
    return Sent(json.dumps({"inputs": [tensor]}).encode(), (("content-type", "application/json"),), rows)


def as_v2_binary(rows: NDArray[Any], name: str) -> Sent:
    """Its binary tensor extension."""
    data = rows.tobytes()
    tensor = {"name": name, "datatype": "FP32", "shape": list(rows.shape), "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = (("content-type", "application/octet-stream"), ("inference-header-content-length", str(len(head))))
    return Sent(head + data, headers, rows)
