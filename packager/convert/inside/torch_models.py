"""PyTorch: a saved module, TorchScript or an exported program, with the sample input that says what goes in."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from .agreement import Array, rows_stand_alone
from .failures import Failure
from .opened import Attempt, Job, Opened
from .rows import SEED

_ROWS = 96
_BATCH = "batch"


def load_torch(path: Path) -> Any:  # noqa: ANN401 - a module or an exported program
    """Raises Failure `state_dict`; whatever unpickling raises comes as it is."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    if path.suffix == ".pt2":
        return torch.export.load(path)
    try:
        return torch.jit.load(str(path), map_location="cpu")
    except RuntimeError:
        loaded = torch.load(path, map_location="cpu", weights_only=False)
    if isinstance(loaded, dict):
        raise Failure("state_dict", found=f"{len(loaded)} named tensors")
    return loaded


def open_torch(model: Any, sample: dict[str, Array] | None, job: Job) -> Opened:  # noqa: ANN401 - torch.nn.Module
    """Raises Failure `sample_needed`, `sample_unfit`, `no_predict`."""
    torch = importlib.import_module("torch")
    if sample is None:
        raise Failure("sample_needed", why="a PyTorch module does not say what it takes")
    program = model if hasattr(model, "module") and hasattr(model, "graph_signature") else None
    module = program.module() if program is not None else model
    if not callable(module):
        raise Failure("no_predict", found=type(model).__name__)
    if program is None:
        module.eval()
    names = list(job.input_names) if len(job.input_names) == len(sample) else _names(sample)
    tensors = [_narrow(np.asarray(values)) for values in sample.values()]

    def ask(parts: list[Array]) -> list[Array]:
        with torch.no_grad():
            given = module(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))
        return [one.detach().numpy() for one in _flat(given, torch)]

    has_rows = _has_rows(ask, tensors)
    rows, own = _rows(tensors) if has_rows else (tensors, len(tensors[0]))
    try:
        ask([part[:1] for part in rows] if has_rows else rows)
    except Exception as problem:
        raise Failure("sample_unfit", problem=f"{type(problem).__name__}: {problem}") from problem
    given = dict(zip(names, rows, strict=True))

    def answer(parts: dict[str, Array]) -> list[Array]:
        return ask([parts[name] for name in names])

    export = _Export(torch, model, module, program, [part[:2] for part in rows] if has_rows else rows, names, has_rows, job)
    attempts = [Attempt("", export.dynamo), Attempt("the TorchScript exporter", export.script)]
    if isinstance(model, torch.jit.ScriptModule):
        attempts = [Attempt("", export.script), Attempt("the exporter of torch.export", export.dynamo)]
    return Opened(type(model).__name__, given, own, answer, attempts, has_rows=has_rows)


class _Export:
    """The two exporters of torch over the same module and example."""

    def __init__(
        self,
        torch: Any,  # noqa: ANN401 - the library
        model: Any,  # noqa: ANN401 - as it was saved
        module: Any,  # noqa: ANN401 - what is called
        program: Any,  # noqa: ANN401 - an exported program, or None
        example: list[Array],
        names: list[str],
        has_rows: bool,
        job: Job,
    ) -> None:
        self._torch, self._model, self._module, self._program = torch, model, module, program
        self._example = tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in example)
        self._names, self._has_rows, self._job = names, has_rows, job

    def dynamo(self) -> Any:  # noqa: ANN401 - onnx.ModelProto
        shapes = None
        if self._has_rows and self._program is None:
            shapes = tuple({0: self._torch.export.Dim.DYNAMIC} for _ in self._example)
        source = self._program if self._program is not None else self._module
        # Its opsets begin with 18; a lower one would be given another number and the same operators.
        exported = self._torch.onnx.export(
            source,
            self._example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=self._names,
            opset_version=max(18, self._job.target_opset),
        )
        return exported.model_proto

    def script(self) -> Any:  # noqa: ANN401 - onnx.ModelProto
        onnx = importlib.import_module("onnx")
        axes = {name: {0: _BATCH} for name in self._names} if self._has_rows else {}
        file = io.BytesIO()
        if self._has_rows:
            count = len(_flat(self._module(*self._example), self._torch))
            outputs = [f"output_{number}" for number in range(count)]
            axes.update({name: {0: _BATCH} for name in outputs})
        else:
            outputs = None
        self._torch.onnx.export(
            self._module,
            self._example,
            file,
            dynamo=False,
            input_names=self._names,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=self._job.target_opset,
        )
        return onnx.load_model_from_string(file.getvalue())


def _narrow(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _names(sample: dict[str, Array]) -> list[str]:
    return [name or "input" for name in sample]


def _has_rows(ask: Any, tensors: list[Array]) -> bool:  # noqa: ANN401 - a callable
    """Whether two copies of the sample give two copies of its answer: then its first axis counts rows."""
    try:
        one, two = ask(tensors), ask([np.concatenate([part, part]) for part in tensors])
    except Exception:  # noqa: BLE001 - foreign code; a module that takes no batch has no rows
        return False
    if not all(left.ndim > 0 and right.shape[0] == 2 * left.shape[0] for left, right in zip(one, two, strict=True)):
        return False
    return rows_stand_alone(lambda numbers: ask([part[numbers] for part in tensors]), one, len(tensors[0]))


def _rows(tensors: list[Array]) -> tuple[list[Array], int]:
    """The sample's rows, then the same with noise (numbers that are no floats stay as they are)."""
    random = np.random.default_rng(SEED)
    own = len(tensors[0])
    picked = random.integers(0, own, max(0, _ROWS - own))
    made = []
    for values in tensors:
        more = values[picked]
        if values.dtype.kind == "f":
            spread = float(values.std()) or float(np.abs(values).max()) or 1.0
            more = (more + random.standard_normal(more.shape) * spread * 0.5).astype(values.dtype)
        made.append(np.concatenate([values, more]))
    return made, own


def _flat(given: Any, torch: Any) -> list[Any]:  # noqa: ANN401 - what a module answers; the library
    if isinstance(given, torch.Tensor):
        return [given]
    parts = list(given.values()) if isinstance(given, dict) else list(given)
    return [tensor for part in parts for tensor in _flat(part, torch)]
