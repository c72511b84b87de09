"""Writes down what a finished model is: what it takes and answers, how well it agrees, and rows that prove it (parity)."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .agreement import Array, Compared, tolerance_words
from .finish_material import FinishJob, Material
from .graphs import KINDS, fixed_batch, operators_of, plain_session, required_operators_config
from .open_model import FACTS

_PARITY_ROWS = 48
# Rows may be pictures: the vectors travel with the model.
_PARITY_BYTES = 4 << 20
_PARITY_ROWS_LEAST = 4
_DATATYPES = {"float": "FP32", "double": "FP64", "float16": "FP16", "string": "BYTES", "bool": "BOOL"}
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def write_records(
    data: bytes,
    material: Material,
    job: FinishJob,
    out: Path,
    agreement: Compared,
    quantised: Compared | None,
    notes: list[str],
) -> None:
    """All files but the model's own: `io.json`, `parity.*` where rows can be compared, its operators, and the facts."""
    import onnx

    model = onnx.load_model_from_string(data)
    session = plain_session(data)
    operators = operators_of(model)
    (out / "required_operators.config").write_text(required_operators_config(operators), encoding="utf-8")
    shapes = {"inputs": [_spec(one) for one in session.get_inputs()], "outputs": [_spec(one) for one in session.get_outputs()]}
    known = {"labels": material.facts.get("labels"), "estimator": material.facts["estimator"]}
    (out / "io.json").write_bytes(_canonical({"schema_version": 1, **shapes, **known}))
    if remedy := material.facts["remedy"]:
        notes.insert(0, f"Converted with a remedy, {remedy}; without it: {'; '.join(material.facts['tried'])}.")
    if why_none := _write_parity(session, material, job, out, quantised):
        notes.append(f"No parity vectors were recorded: {why_none}.")
    facts = {
        **shapes,
        "opsets": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        "ir_version": model.ir_version,
        "operators": [f"{domain or 'ai.onnx'}.{name}" for (domain, _), names in operators.items() for name in names],
        "agreement": _agreement(agreement, job),
        "quantized": None if quantised is None else _agreement(quantised, job),
        "notes": notes,
    }
    (out / FACTS).write_bytes(_canonical(facts))


def _write_parity(
    session: Any,  # noqa: ANN401 - onnxruntime.InferenceSession
    material: Material,
    job: FinishJob,
    out: Path,
    quantised: Compared | None,
) -> str:
    """The answers of the trained model to :func:`_chosen_rows`; why there are none, or nothing."""
    chosen = _chosen_rows(material, fixed_batch(session.get_inputs()), only_own=quantised is not None)
    if chosen is None:
        return "the first axis of its inputs and outputs does not count rows"
    kept = _comparable(session, material)
    if material.ties[chosen].all():
        kept = [index for index in kept if material.wanted[index].dtype.kind == "f"]
    if not kept:
        return "its labels hang on less than the tolerance for all rows, and it has no scores"
    arrays = _input_arrays(session, material, chosen)
    for number, index in enumerate(kept):
        arrays[f"output_{number}"] = _as_answered(material.wanted[index][chosen], session.get_outputs()[index])
    _write_npz(out / "parity.npz", arrays)
    index_document = {
        "schema_version": 1,
        "inputs": [one.name for one in session.get_inputs()],
        "outputs": [material.output_names[index] for index in kept],
        # An int8 model is as far from the trained one as was reported; its proof allows that much and a little.
        "atol": job.atol if quantised is None else max(job.atol, quantised.max_abs_error * 1.05),
        "rtol": job.rtol,
    }
    (out / "parity.json").write_bytes(_canonical(index_document))
    return ""


def _chosen_rows(material: Material, batch: int, *, only_own: bool) -> Array | None:
    """Rows spread over all kinds that were compared, none whose label is a matter of rounding unless it is for all of them; whole
    batches of a fixed size."""
    rows = len(material.ties)
    if not material.facts["has_rows"] or any(len(values) != rows for values in (*material.rows.values(), *material.wanted)):
        return None
    last = material.own.stop if only_own else rows
    usable = np.flatnonzero(~material.ties[:last])
    if not len(usable):
        usable = np.arange(min(last, rows))
    one_row = sum(values[:1].nbytes for values in (*material.rows.values(), *material.wanted))
    most = max(_PARITY_ROWS_LEAST, min(_PARITY_ROWS, _PARITY_BYTES // max(one_row, 1)))
    chosen: Array = usable[np.unique(np.linspace(0, len(usable) - 1, min(most, len(usable))).astype(int))]
    return np.arange(max(batch, len(chosen) // batch * batch)) if batch else chosen


def _input_arrays(session: Any, material: Material, chosen: Array) -> dict[str, Array]:  # noqa: ANN401 - onnxruntime.InferenceSession
    arrays: dict[str, Array] = {}
    named = _by_input(session, material)
    for number, one in enumerate(session.get_inputs()):
        with np.errstate(over="ignore", invalid="ignore"):
            values = named[one.name][chosen]
            arrays[f"input_{number}"] = values if one.type == "tensor(string)" else values.astype(KINDS[one.type])
    return arrays


def _by_input(session: Any, material: Material) -> dict[str, Array]:  # noqa: ANN401 - onnxruntime.InferenceSession
    names = [one.name for one in session.get_inputs()]
    return material.rows if len(names) > 1 else {names[0]: next(iter(material.rows.values()))}


def _comparable(session: Any, material: Material) -> list[int]:  # noqa: ANN401 - onnxruntime.InferenceSession
    return [
        index for index, one in enumerate(session.get_outputs()) if index < len(material.wanted) and one.type.startswith("tensor")
    ]


def _as_answered(values: Array, output: Any) -> Array:  # noqa: ANN401 - onnxruntime.NodeArg
    """[rows] for what the model gives as [rows, 1]; the numbers stay those of the trained model."""
    rank = len(output.shape or [])
    if values.ndim == 1 and rank == 2:
        values = values.reshape(-1, 1)
    if output.type == "tensor(float)" and values.dtype.kind == "f":
        return values.astype(np.float32)
    return values.astype(np.int64) if values.dtype.kind in "iu" else values


def _write_npz(path: Path, arrays: dict[str, Array]) -> None:
    """numpy's own writer notes the time of day; this one writes the same bytes for the same arrays."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(values), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME), buffer.getvalue())


def _spec(one: Any) -> dict[str, Any]:  # noqa: ANN401 - onnxruntime.NodeArg
    kind = one.type.removeprefix("tensor(").removesuffix(")")
    return {
        "name": one.name,
        "datatype": _DATATYPES.get(kind, kind.upper()),
        "shape": [size if isinstance(size, int) and size >= 0 else -1 for size in one.shape or []],
    }


def _agreement(compared: Compared, job: FinishJob) -> dict[str, Any]:
    return {
        "rows": compared.rows,
        "max_abs_error": compared.max_abs_error,
        "max_rel_error": compared.max_rel_error,
        "labels_changed": compared.labels_changed,
        "tolerance": tolerance_words(job.atol, job.rtol),
    }


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
