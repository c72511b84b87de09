"""The story after opening: check the candidate with our own libraries, optimise, quantise when asked, choose parity rows, record.

Its input comes from foreign code: sizes are bounded by the packager, arrays are never unpickled, files outside are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .agreement import Array, Compared, compare
from .failures import Failure
from .finish_material import FinishJob, Material, read_material
from .graphs import open_batch_axis, operators_of, plain_session, refuse_outside_files, tidy
from .open_model import CANDIDATE
from .quantise import loss, quantise, why_not
from .records import write_records

MODEL, FLOAT_MODEL = "model.onnx", "model.float.onnx"
_GROWTH_MAX, _GROWTH_FREE = 1.1, 64 << 10


def finish(job: FinishJob, opened: Path, out: Path) -> None:
    """Write all files of the conversion and `facts.json` into ``out``. Raises Failure."""
    material = read_material(opened)
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
    write_records(final, material, job, out, agreement, quantised, notes)


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
    if job.opset is not None and made > job.opset and _uses_main_domain(model):
        raise Failure("opset", asked=job.opset, made=made, most=defs.onnx_opset_version())


def _uses_main_domain(model: Any) -> bool:  # noqa: ANN401 - onnx.ModelProto
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
