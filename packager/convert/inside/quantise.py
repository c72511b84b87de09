"""int8: dynamic (weights only, no data needed) or static QDQ, calibrated on the model's own rows; and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .agreement import Array, changed_labels
from .failures import Failure
from .graphs import KINDS, all_graphs, plain_session

# What onnxruntime computes in int8 without data (a convolution without calibrated inputs is slower than in float).
_DYNAMIC = ["MatMul", "Gemm", "LSTM", "Attention", "EmbedLayerNormalization", "Gather"]
_WORTH_IT = {"dynamic": {"MatMul", "Gemm", "LSTM", "Attention"}, "static": {"MatMul", "Gemm", "Conv", "ConvTranspose"}}
_TREES = "TreeEnsemble"


def why_not(model: Any, mode: str) -> str:  # noqa: ANN401 - onnx.ModelProto
    """Empty when ``model`` has something to quantise, else the sentence that says why it stays float."""
    found = {node.op_type for graph in all_graphs(model) for node in graph.node}
    if any(name.startswith(_TREES) for name in found):
        return "Tree ensembles do not quantise: the model stays in float."
    if not found & _WORTH_IT[mode]:
        return f"Nothing in the model can be quantised ({mode}; it has {', '.join(sorted(found)[:6])}): it stays in float."
    return ""


def quantise(model: Path, target: Path, mode: str, parts: list[dict[str, Array]]) -> None:
    """Write the int8 form of ``model`` to ``target``, calibrated (static) on ``parts``. Raises Failure `unsupported`."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".prepared.onnx")
    try:
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        _make_ready(prepared)
        if mode == "dynamic":
            quantization.quantize_dynamic(str(prepared), str(target), op_types_to_quantize=_DYNAMIC, per_channel=True)
            return
        quantization.quantize_static(
            str(prepared),
            str(target),
            _Calibration(prepared, parts),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
    except Failure:
        raise
    except Exception as problem:
        raise Failure("unsupported", what=f"{mode} quantisation", problem=f"{type(problem).__name__}: {problem}") from problem
    finally:
        prepared.unlink(missing_ok=True)


def loss(wanted: list[Array], found: list[Array]) -> tuple[float, str]:
    """What quantising cost: the share of rows with another label, else the mean error relative to how much answers vary."""
    changed = changed_labels(wanted, found)
    if changed is not None:
        return float(np.mean(changed)), f"{int(changed.sum())} of {len(changed)} rows have another label"
    worst = 0.0
    for theirs, ours in zip(wanted, found, strict=False):
        error = np.abs(ours.astype(np.float64) - theirs.astype(np.float64).reshape(ours.shape))
        scale = max(float(np.std(theirs)), float(np.mean(np.abs(theirs))) * 1e-3, 1e-12)
        worst = max(worst, float(np.mean(error)) / scale)
    return worst, f"the mean error is {worst:.2%} of the answers' spread"


def _make_ready(path: Path) -> None:
    """Without the noted shapes of inner values (quantising transposes weights, the old shapes would contradict the new), and
    with biases of one axis, which is all that onnxruntime's tool expects."""
    import onnx

    model = onnx.load_model(path, load_external_data=False)
    del model.graph.value_info[:]
    biases = {node.input[2] for node in model.graph.node if node.op_type == "Gemm" and len(node.input) > 2}
    for tensor in model.graph.initializer:
        if tensor.name in biases and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            del tensor.dims[0]
    path.write_bytes(model.SerializeToString(deterministic=True))


class _Calibration:
    """onnxruntime's CalibrationDataReader over inputs that were cut into parts."""

    def __init__(self, model: Path, parts: list[dict[str, Array]]) -> None:
        kinds = {one.name: KINDS[one.type] for one in plain_session(model.read_bytes()).get_inputs()}
        self._parts: Iterator[dict[str, Array]] = iter(
            [{name: values.astype(kinds[name]) for name, values in part.items()} for part in parts]
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._parts, None)
