"""The three stages of a small image classifier: pixels → scaled → a convolutional net, really quantised → label and scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

SIDE, CHANNELS, CLASSES = 8, 3, 4
OPSET = 17


@dataclass(frozen=True)
class Folders:
    """One folder for each stage's model; ``float_net`` is the net before it was quantised."""

    pre: Path
    accelerated: Path
    post: Path
    float_net: Path


def pixels(rows: int, seed: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[rows, SIDE, SIDE, CHANNELS], UINT8."""
    return np.random.default_rng(seed).integers(0, 256, (rows, SIDE, SIDE, CHANNELS), dtype=np.uint8)


def write_stages(folder: Path, *, pre_output: str = "scaled") -> Folders:
    """Models ``pre``, ``accelerated`` and ``post``. Names meet between the first two unless ``pre_output`` is another one."""
    found = Folders(folder / "pre", folder / "accelerated", folder / "post", folder / "float")
    for one in (found.pre, found.accelerated, found.post, found.float_net):
        one.mkdir(parents=True)
    write_pre(found.pre / "model.onnx", pre_output)
    write_net(found.float_net / "model.onnx")
    quantize_static(
        str(found.float_net / "model.onnx"),
        str(found.accelerated / "model.onnx"),
        _Calibration(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    write_post(found.post / "model.onnx")
    return found


def write_pre(file: Path, output: str = "scaled", side: int = SIDE) -> None:
    """UINT8 [n, side, side, 3] → FP32 [n, 3, side, side] of 0 to 1."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float_pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float_pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], [output]),
    ]
    _save(
        file,
        nodes,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", side, side, CHANNELS])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", CHANNELS, side, side])],
        [numpy_helper.from_array(np.array(1 / 255, dtype=np.float32), "scale")],
    )


def write_net(file: Path) -> None:
    """FP32 [n, 3, 8, 8] → FP32 [n, 4]."""
    random = np.random.default_rng(11)
    weights = {
        "conv1": random.normal(0, 0.4, (6, CHANNELS, 3, 3)),
        "conv2": random.normal(0, 0.3, (8, 6, 3, 3)),
        "dense": random.normal(0, 0.8, (8, CLASSES)),
        "bias": random.normal(0, 0.5, (CLASSES,)),
    }
    nodes = [
        helper.make_node("Conv", ["scaled", "conv1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "conv2"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense", "bias"], ["logits"]),
    ]
    _save(
        file,
        nodes,
        [helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["n", CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )


def write_post(file: Path, classes: int = CLASSES) -> None:
    """FP32 [n, classes] → INT64 [n] and FP32 [n, classes]."""
    nodes = [
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=-1, keepdims=0),
    ]
    _save(
        file,
        nodes,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes]),
        ],
        [],
    )


def by_hand(folders: Folders, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """What three sessions answer, one after the other."""
    (scaled,) = _session(folders.pre).run(None, {"pixels": images})
    (logits,) = _session(folders.accelerated).run(None, {"scaled": scaled})
    label, scores = _session(folders.post).run(None, {"logits": logits})
    return {"label": label, "scores": scores}


def _session(folder: Path) -> Any:
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])


def _save(file: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]) -> None:
    model = helper.make_model(
        helper.make_graph(nodes, file.stem, inputs, outputs, weights), opset_imports=[helper.make_opsetid("", OPSET)]
    )
    model.ir_version = 8
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString(deterministic=True))


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self) -> None:
        self._rows: Iterator[dict[str, Any]] = iter(
            [{"scaled": pixels(1, seed).transpose(0, 3, 1, 2).astype(np.float32) / 255} for seed in range(16)]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._rows, None)
