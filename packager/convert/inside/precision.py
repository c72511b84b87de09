"""Where in a converted graph numbers are FP32 and where FP64: parts computed in FP64 behind FP32 inputs, and two parts joined.

A client that sends FP32 gets the trained model's answer to those very numbers when everything that was trained in FP64 (scalers
before trees, thresholds) is computed in FP64 inside.
"""

from __future__ import annotations

from typing import Any

_BODY_INPUT = "prepared"


def with_float_inputs(model: Any) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """``model`` changed in place: its FP64 inputs are FP32 outside, and FP64 again from the first node on."""
    from onnx import TensorProto, helper

    casts = []
    for graph_input in model.graph.input:
        if graph_input.type.tensor_type.elem_type != TensorProto.DOUBLE:
            continue
        graph_input.type.tensor_type.elem_type = TensorProto.FLOAT
        casts.append(_cast(model, graph_input.name, TensorProto.DOUBLE, helper))
    _put_first(model, casts)
    return model


def with_float_body(model: Any) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """``model`` changed in place: its only input is FP64 outside and FP32 inside, as scikit-learn's trees read theirs."""
    from onnx import TensorProto, helper

    (graph_input,) = model.graph.input
    graph_input.type.tensor_type.elem_type = TensorProto.DOUBLE
    _put_first(model, [_cast(model, graph_input.name, TensorProto.FLOAT, helper)])
    return model


def joined(first: Any, second: Any) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """One model out of two: the only output of ``first`` goes into the only input of ``second``."""
    from onnx import compose

    (given,), (taken,) = first.graph.output, second.graph.input
    apart = compose.add_prefix(
        first, "first_", rename_inputs=False, rename_outputs=False, rename_value_infos=True, rename_functions=True
    )
    _rename(second, taken.name, _BODY_INPUT)
    opset_of = {one.domain: one.version for one in (*apart.opset_import, *second.opset_import)}
    for model in (apart, second):
        model.ir_version = max(first.ir_version, second.ir_version)
        for one in model.opset_import:
            one.version = opset_of[one.domain]
    return compose.merge_models(apart, second, io_map=[(given.name, _BODY_INPUT)])


def _cast(model: Any, name: str, to: int, helper: Any) -> Any:  # noqa: ANN401 - messages of onnx
    inner = f"{name}_cast"
    for node in model.graph.node:
        for index, read in enumerate(node.input):
            if read == name:
                node.input[index] = inner
    for output in model.graph.output:
        if output.name == name:
            output.name = inner
    return helper.make_node("Cast", [name], [inner], to=to)


def _put_first(model: Any, nodes: list[Any]) -> None:  # noqa: ANN401 - messages of onnx
    kept = [*nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    if not any(opset.domain == "" for opset in model.opset_import):
        from onnx import helper

        model.opset_import.append(helper.make_opsetid("", 13))


def _rename(model: Any, old: str, new: str) -> None:  # noqa: ANN401 - onnx.ModelProto
    for graph_input in model.graph.input:
        if graph_input.name == old:
            graph_input.name = new
    for node in model.graph.node:
        for index, read in enumerate(node.input):
            if read == old:
                node.input[index] = new
