"""ONNX graphs: no files outside, nothing in them that tells when or where they were made, and how they are run here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .agreement import Array
from .failures import Failure

KINDS: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(string)": np.object_,
    "tensor(bool)": np.bool_,
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def all_graphs(model: Any) -> Iterator[Any]:  # noqa: ANN401 - onnx.ModelProto
    """The graph and those inside its nodes."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def refuse_outside_files(model: Any) -> None:  # noqa: ANN401 - onnx.ModelProto
    """Raises Failure `outside_files`: weights that lie in files named by the model could be any file of this machine."""
    from onnx import TensorProto

    def check(tensor: Any) -> None:  # noqa: ANN401 - onnx.TensorProto
        if tensor.data_location == TensorProto.EXTERNAL:
            raise Failure("outside_files", tensor=tensor.name)

    for graph in all_graphs(model):
        for tensor in graph.initializer:
            check(tensor)
        for sparse in graph.sparse_initializer:
            check(sparse.values)
            check(sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                check(attribute.t)
                for tensor in attribute.tensors:
                    check(tensor)


def tidy(model: Any, metadata: dict[str, str]) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """``model`` without functions, documentation, producers, stack traces and random names; with ``metadata``; changed in place.

    The lowest IR version that its opsets take is written, so that older readers open it.
    """
    from onnx import helper, inliner

    if model.functions:
        model = inliner.inline_local_functions(model)
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    used = {"" if node.domain == "ai.onnx" else node.domain for graph in all_graphs(model) for node in graph.node} or {""}
    del model.opset_import[:]
    kept = {"" if domain == "ai.onnx" else domain: version for domain, version in opsets.items()}
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(kept.items()) if domain in used)
    model.producer_name, model.producer_version, model.domain, model.doc_string = "hedgerow", "", "", ""
    model.model_version = 0
    model.graph.name = "model"
    for graph in all_graphs(model):
        graph.doc_string = ""
        _clear(graph)
        for part in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
            part.doc_string = ""
            _clear(part)
    model.ir_version = max(4, helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True))
    kept_metadata = {one.key: one.value for one in model.metadata_props if not one.key.startswith(("pkg.", "onnx.quant"))}
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted({**kept_metadata, **metadata}.items())))
    return model


def _clear(part: Any) -> None:  # noqa: ANN401 - any message of ONNX
    if hasattr(part, "metadata_props"):
        del part.metadata_props[:]


def open_batch_axis(model: Any, rows: int, answers: list[Array]) -> None:  # noqa: ANN401 - onnx.ModelProto
    """Outputs that say a fixed number of rows although they have one for each input row (LightGBM's label) get a free axis."""
    for output, answer in zip(model.graph.output, answers, strict=False):
        shape = output.type.tensor_type.shape
        if shape.dim and answer.ndim and len(answer) == rows and 0 < shape.dim[0].dim_value != rows:
            shape.dim[0].dim_param = "N"


def plain_session(model: bytes, level: str = "DISABLE_ALL", saved_to: str | None = None, without: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - a session
    """An onnxruntime session on the CPU, one thread; ``saved_to``: where it writes what it optimised, ``without`` these."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if saved_to is not None:
        options.optimized_model_filepath = saved_to
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without) or None
    )


def run_session(session: Any, rows: dict[str, Array]) -> list[Array]:  # noqa: ANN401 - onnxruntime.InferenceSession
    """Its outputs for ``rows``, each turned into what the session takes. Sequences and maps raise Failure `unsupported`."""
    inputs = session.get_inputs()
    if len(inputs) == len(rows) == 1:
        rows = {inputs[0].name: next(iter(rows.values()))}
    with np.errstate(over="ignore", invalid="ignore"):
        feed = {one.name: np.asarray(rows[one.name]).astype(KINDS[one.type]) for one in inputs}
    outputs = _run_in_batches(session, feed, fixed_batch(inputs))
    if any(not isinstance(output, np.ndarray) for output in outputs):
        raise Failure("unsupported", what="an output that is a sequence or a map", problem="scoring takes tensors only")
    return [np.asarray(output) for output in outputs]


def fixed_batch(inputs: list[Any]) -> int:
    """The number of rows that every input says it has, always; 0 where they are free, or differ."""
    sizes = {one.shape[0] if one.shape else None for one in inputs}
    size = sizes.pop()
    return size if not sizes and isinstance(size, int) and size > 0 else 0


def _run_in_batches(session: Any, feed: dict[str, Array], batch: int) -> list[Any]:  # noqa: ANN401 - onnxruntime.InferenceSession
    rows = len(next(iter(feed.values()))) if batch else 0
    if rows <= batch:
        return list(session.run(None, feed))
    parts = [
        session.run(None, {name: values[first : first + batch] for name, values in feed.items()})
        for first in range(0, rows, batch)
    ]
    return [np.concatenate([part[number] for part in parts]) for number in range(len(parts[0]))]


def operators_of(model: Any) -> dict[tuple[str, int], list[str]]:  # noqa: ANN401 - onnx.ModelProto
    """(domain, opset) → operators, sorted, those in subgraphs included."""
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    found: dict[tuple[str, int], set[str]] = {}
    for graph in all_graphs(model):
        for node in graph.node:
            found.setdefault((node.domain, opsets.get(node.domain, 1)), set()).add(node.op_type)
    return {key: sorted(names) for key, names in sorted(found.items())}


def required_operators_config(operators: dict[tuple[str, int], list[str]]) -> str:
    """As onnxruntime's tools write it for reduced builds: ``domain;opset;operators``."""
    lines = [f"{domain or 'ai.onnx'};{opset};{','.join(names)}" for (domain, opset), names in operators.items()]
    return "".join(line + "\n" for line in ["# For onnxruntime's --include_ops_by_config", *lines])
