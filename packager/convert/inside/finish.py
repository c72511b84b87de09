"""The story after opening: check the candidate with our own libraries, optimise, quantise when asked, choose parity rows, record.

Its input comes from foreign code: sizes are bounded by the packager, arrays are never unpickled, files outside are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .agreement import Array, Compared, compare, tolerance_words
from .failures import Failure
from .graphs import (
    KINDS,
    fixed_batch,
    open_batch_axis,
    operators_of,
    plain_session,
    refuse_outside_files,
    required_operators_config,
    run_session,
    tidy,
)
from .open_model import CANDIDATE, FACTS, ROWS, as_rows
from .quantise import loss, quantise, why_not

MODEL, FLOAT_MODEL = "model.onnx", "model.float.onnx"
_GROWTH_MAX, _GROWTH_FREE = 1.1, 64 << 10
_PARITY_ROWS = 48
# Rows may be pictures: the vectors travel with the model.
_PARITY_BYTES = 4 << 20
_PARITY_ROWS_LEAST = 4
_CALIBRATION_ROWS = 200
_ARRAY_BYTES_MAX = 1 << 30
_DATATYPES = {"float": "FP32", "double": "FP64", "float16": "FP16", "string": "BYTES", "bool": "BOOL"}
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class FinishJob:
    """``quantize``: none, dynamic or static. ``opset``: the newest that may come out, None: any that our onnxruntime reads."""

    quantize: str = "none"
    accuracy_loss_max: float = 0.01
    atol: float = 1e-4
    rtol: float = 1e-3
    opset: int | None = None


@dataclass(frozen=True)
class Material:
    """What the opener left."""

    rows: dict[str, Array]
    wanted: list[Array]
    output_names: list[str]
    ties: Array
    facts: dict[str, Any]

    def answers(self, model: bytes, rows: dict[str, Array] | None = None) -> list[Array]:
        """What ``model`` says to ``rows`` (all of them when None)."""
        given = self.rows if rows is None else rows
        return as_rows(run_session(plain_session(model), given), has_rows=bool(self.facts["has_rows"]))

    @property
    def own(self) -> slice:
        """The user's own rows (or ordinary ones), for calibration and for what quantisation costs."""
        if not self.facts["has_rows"]:
            return slice(0, None)
        count = int(self.facts["from_sample"]) or len(self.ties)
        return slice(0, min(count, _CALIBRATION_ROWS))


def finish(job: FinishJob, opened: Path, out: Path) -> None:
    """Write all files of the conversion and `facts.json` into ``out``. Raises Failure."""
    material = _read(opened)
    model = _checked_model(opened / CANDIDATE, material, job)
    notes = list(material.facts["notes"])
    floats = _optimised(model, material, job, out, notes)
    agreement = _agree(material, material.answers(floats), job)
    quantised = None
    final = floats
    if job.quantize != "none":
        reason = why_not(model, job.quantize)
        if reason:
            notes.append(reason)
        else:
            final, quantised = _quantised(model, material, job, out, notes)
            (out / FLOAT_MODEL).write_bytes(floats)
    (out / MODEL).write_bytes(final)
    _write_records(final, material, job, out, agreement, quantised, notes)


def _read(opened: Path) -> Material:
    try:
        facts = json.loads((opened / FACTS).read_text(encoding="utf-8"))
        with np.load(opened / ROWS, allow_pickle=False) as arrays:
            if sum(info.file_size for info in arrays.zip.infolist()) > _ARRAY_BYTES_MAX:
                raise ValueError("its arrays are too large")
            rows = {str(name): arrays[f"input_{number}"] for number, name in enumerate(facts["inputs"])}
            wanted = [arrays[f"output_{number}"] for number in range(len(facts["outputs"]))]
            ties = arrays["ties"]
        if not wanted or not rows or len(ties) != len(wanted[0]):
            raise ValueError("its arrays do not fit together")
    except Exception as problem:
        raise Failure("crashed", problem=f"what it handed back cannot be read ({problem})") from problem
    return Material(rows, wanted, [str(name) for name in facts["outputs"]], ties, facts)


def _checked_model(path: Path, material: Material, job: FinishJob) -> Any:  # noqa: ANN401 - onnx.ModelProto
    import onnx

    try:
        model = onnx.load_model(path, load_external_data=False)
        refuse_outside_files(model)
        model = tidy(model, _metadata(material))
        open_batch_axis(model, len(material.ties), material.wanted)
        onnx.checker.check_model(model)
    except Failure:
        raise
    except Exception as problem:
        raise Failure("crashed", problem=f"what came out is no valid ONNX ({problem})") from problem
    _check_opset(model, job)
    return model


def _check_opset(model: Any, job: FinishJob) -> None:  # noqa: ANN401 - onnx.ModelProto
    from onnx import defs

    made = {opset.domain: opset.version for opset in model.opset_import}.get("", 0)
    if job.opset is not None and made > job.opset and material_uses_main(model):
        raise Failure("opset", asked=job.opset, made=made, most=defs.onnx_opset_version())


def material_uses_main(model: Any) -> bool:  # noqa: ANN401 - onnx.ModelProto
    """Whether an operator of the main domain is used at all: only then its opset matters to a reader."""
    return any(domain in ("", "ai.onnx") for domain, _ in operators_of(model))


def _metadata(material: Material) -> dict[str, str]:
    labels = material.facts.get("labels")
    return {"labels": json.dumps(labels)} if labels else {}


def _optimised(model: Any, material: Material, job: FinishJob, out: Path, notes: list[str]) -> bytes:  # noqa: ANN401 - onnx.ModelProto
    """Offline, at the extended level: what lies above fits one machine only. Kept only when it still agrees."""
    import onnx

    plain: bytes = model.SerializeToString(deterministic=True)
    target = out / "optimised.onnx"
    # Constants computed beforehand may weigh more than they save: int8 weights become floats again.
    for without in ((), ("ConstantFolding",)):
        try:
            plain_session(plain, "ENABLE_EXTENDED", str(target), without)
            optimised = tidy(onnx.load_model(target, load_external_data=False), _metadata(material))
            data: bytes = optimised.SerializeToString(deterministic=True)
            compared = compare(material.wanted, material.answers(data), job.atol, job.rtol)
        except Failure:
            raise
        except Exception as problem:  # noqa: BLE001 - onnxruntime raises many kinds; the plain model is as right
            notes.append(f"It was not optimised: {str(problem).splitlines()[0][:200]}")
            return plain
        finally:
            target.unlink(missing_ok=True)
        if compared.agrees and len(data) <= len(plain) * _GROWTH_MAX + _GROWTH_FREE:
            return data
    notes.append("It was not optimised: the optimised model is much larger, or answers otherwise.")
    return plain


def _agree(material: Material, found: list[Array], job: FinishJob) -> Compared:
    compared = compare(material.wanted, found, job.atol, job.rtol)
    if not compared.agrees:
        row = int(np.flatnonzero(compared.differing)[0])
        raise Failure(
            "wrong",
            what=material.facts["estimator"],
            rows=compared.rows,
            differing=int(compared.differing.sum()),
            largest=f"{compared.max_abs_error:g}",
            labels=compared.labels_changed,
            row=str({name: np.ravel(values[row]).tolist()[:20] for name, values in material.rows.items()})[:300],
            original=str(np.ravel(material.wanted[-1][row]).tolist()[:4]),
            converted=str(np.ravel(found[len(material.wanted) - 1][row]).tolist()[:4]),
            tried="; ".join(material.facts["tried"]),
        )
    return compared


def _quantised(
    model: Any,  # noqa: ANN401 - onnx.ModelProto
    material: Material,
    job: FinishJob,
    out: Path,
    notes: list[str],
) -> tuple[bytes, Compared]:
    import onnx

    source, target = out / "source.onnx", out / "int8.onnx"
    own = {name: values[material.own] for name, values in material.rows.items()}
    try:
        source.write_bytes(model.SerializeToString(deterministic=True))
        quantise(source, target, job.quantize, _parts(own, material))
        made = tidy(onnx.load_model(target, load_external_data=False), _metadata(material))
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
    data: bytes = made.SerializeToString(deterministic=True)
    wanted = [values[material.own] for values in material.wanted]
    found = material.answers(data, own)
    cost, words = loss(wanted, found)
    if cost > job.accuracy_loss_max:
        raise Failure("costly", mode=job.quantize, words=words, loss=f"{cost:.4f}", most=f"{job.accuracy_loss_max:g}")
    notes.append(f"Quantised to int8 ({job.quantize}): {words}.")
    return data, compare(wanted, found, job.atol, job.rtol)


def _parts(own: dict[str, Array], material: Material) -> list[dict[str, Array]]:
    if not material.facts["has_rows"]:
        return [own]
    count = min(len(values) for values in own.values())
    return [{name: values[row : row + 1] for name, values in own.items()} for row in range(count)]


def _write_records(
    data: bytes,
    material: Material,
    job: FinishJob,
    out: Path,
    agreement: Compared,
    quantised: Compared | None,
    notes: list[str],
) -> None:
    import onnx

    model = onnx.load_model_from_string(data)
    session = plain_session(data)
    operators = operators_of(model)
    (out / "required_operators.config").write_text(required_operators_config(operators), encoding="utf-8")
    inputs = [_spec(one) for one in session.get_inputs()]
    outputs = [_spec(one) for one in session.get_outputs()]
    labels = material.facts.get("labels")
    remedy = material.facts["remedy"]
    if remedy:
        notes.insert(0, f"Converted with a remedy, {remedy}; without it: {'; '.join(material.facts['tried'])}.")
    described = {
        "schema_version": 1,
        "inputs": inputs,
        "outputs": outputs,
        "labels": labels,
        "estimator": material.facts["estimator"],
    }
    (out / "io.json").write_bytes(_canonical(described))
    if not _write_parity(session, material, job, out, quantised):
        notes.append("No parity vectors were recorded: the first axis of its inputs and outputs does not count rows.")
    facts = {
        "inputs": inputs,
        "outputs": outputs,
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
) -> bool:
    """Rows spread over all kinds that were compared, none whose label is a matter of rounding. Answers of the trained model."""
    rows = len(material.ties)
    if not material.facts["has_rows"] or any(len(values) != rows for values in (*material.rows.values(), *material.wanted)):
        return False
    usable = np.flatnonzero(~material.ties)
    if not len(usable):
        return False
    if quantised is not None:
        usable = usable[usable < material.own.stop]
        if not len(usable):
            return False
    one_row = sum(values[:1].nbytes for values in (*material.rows.values(), *material.wanted))
    most = max(_PARITY_ROWS_LEAST, min(_PARITY_ROWS, _PARITY_BYTES // max(one_row, 1)))
    chosen = usable[np.unique(np.linspace(0, len(usable) - 1, min(most, len(usable))).astype(int))]
    batch = fixed_batch(session.get_inputs())
    if batch:
        chosen = np.arange(max(batch, len(chosen) // batch * batch))
    arrays: dict[str, Array] = {}
    named = _by_input(session, material)
    for number, one in enumerate(session.get_inputs()):
        with np.errstate(over="ignore", invalid="ignore"):
            values = named[one.name][chosen]
            arrays[f"input_{number}"] = values if one.type == "tensor(string)" else values.astype(KINDS[one.type])
    kept = _comparable(session, material)
    for number, index in enumerate(kept):
        arrays[f"output_{number}"] = _as_answered(material.wanted[index][chosen], session.get_outputs()[index])
    atol, rtol = job.atol, job.rtol
    if quantised is not None:
        # An int8 model is as far from the trained one as was reported; its proof allows that much and a little.
        atol = max(atol, quantised.max_abs_error * 1.05)
    _write_npz(out / "parity.npz", arrays)
    index_document = {
        "schema_version": 1,
        "inputs": [one.name for one in session.get_inputs()],
        "outputs": [material.output_names[index] for index in kept],
        "atol": atol,
        "rtol": rtol,
    }
    (out / "parity.json").write_bytes(_canonical(index_document))
    return True


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
    import io
    import zipfile

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
