"""The story of a conversion: lay the model out, let the converter make and check ONNX of it, take the files in, register.

A conversion is made once: the same request, and any request that comes to the same conversion, is answered with the version
that is registered. A build of an ONNX image goes through the same story for each of its models that needs it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import Connection

import hedgerow
from hedgerow.contracts.api import RegisterModel
from hedgerow.contracts.convert import Agreement, ConvertRequest, ConvertResult
from hedgerow.contracts.document import decode, digest_of, encode
from hedgerow.contracts.image import ImageKind, ModelRef
from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.names import Reference
from hedgerow.contracts.work import Activity
from registry.controller.effects import Note, Part, Story, Verdict, record
from registry.controller.errors import ConversionIncomplete
from registry.controller.file_work.tasks import Collect, Collected, Done, LaidFile, LayOut
from registry.controller.stories import Span, StoryTools, file_work, make_folder, packager_work
from registry.store import blobs, conversions, events, models
from registry.store.activities import ConvertTask

MODEL_CONVERT = "model.convert"
_FILES, _MODEL, _SAMPLE, _OUT = "files", "model", "sample", "out"
_LONGEST_PROPERTY = 8000


@dataclass(frozen=True)
class _Plan:
    """``known`` is what the same request made before; ``asked`` stands for the request."""

    task: ConvertTask
    source: ModelManifest
    asked: str
    known: ModelManifest | None

    @property
    def name(self) -> str:
        return self.task.name or conversions.converted_name(self.source.name)


@dataclass(frozen=True)
class _Made:
    result: ConvertResult
    collected: Collected


def convert_model(tools: StoryTools, activity: Activity, request: bytes) -> Story:
    """Play a ``model.convert`` activity; its result is {"model": "NAME:VERSION", "digest": …, "reused": "true" | "false"}."""
    task = decode(request, ConvertTask)
    # Whoever opens the model does so as a user of their own, who must be able to pass.
    folder = make_folder(tools.workspace.work / "conversions" / activity.id, mode=0o711)
    try:
        made, reused = yield from _convert(tools, task, folder, (0.0, 1.0))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Verdict(
        result={"model": f"{made.name}:{made.version}", "digest": made.digest, "reused": "true" if reused else "false"}
    )


def convert_if_needed(
    tools: StoryTools, kind: ImageKind, found: Sequence[ModelManifest], folder: Path, *, span: Span
) -> Part[tuple[ModelManifest, ...]]:
    """The models that an image of ``kind`` is built of: those without ONNX converted (and registered), the others as they are.

    Takes no time when there is nothing to convert. Raises what the converter reports, StorageUnavailable, WorkerFailed.
    """
    needing = [manifest for manifest in found if kind == "onnx" and conversions.needs_conversion(manifest)]
    made: dict[tuple[str, int], ModelManifest] = {}
    share = (span[1] - span[0]) / max(1, len(needing))
    for number, manifest in enumerate(needing):
        start = span[0] + number * share
        place = make_folder(folder / "conversions" / str(number), mode=0o711)
        task = ConvertTask(source=f"{manifest.name}:{manifest.version}")
        made[manifest.name, manifest.version], _ = yield from _convert(tools, task, place, (start, start + share))
        shutil.rmtree(place, ignore_errors=True)
    return tuple(made.get((manifest.name, manifest.version), manifest) for manifest in found)


def _convert(tools: StoryTools, task: ConvertTask, folder: Path, span: Span) -> Part[tuple[ModelManifest, bool]]:
    """The converted version, and whether it was there before."""
    plan = yield from record(lambda connection, _lease: _planned(connection, task))
    if plan.known is not None:
        yield Note(f"{task.source} was converted before: {plan.known.name}:{plan.known.version}")
        return plan.known, True
    laid = _laid_out(tools, plan, folder)
    yield from file_work(tools, folder, laid, Done, step="laying the model out", span=_part(span, 0.0, 0.05))
    result = yield from _run_converter(tools, plan, folder, _part(span, 0.05, 0.93))
    for sentence in result.notes:
        yield Note(sentence)
    outputs = Collect(blobs=tools.blobs, folder=str(folder / _OUT))
    collected = yield from file_work(tools, folder, outputs, Collected, step="storing the model", span=_part(span, 0.93, 0.99))
    made = _Made(result, collected)
    _check_whole(plan, made)
    found: tuple[ModelManifest, bool] = yield from record(lambda connection, _lease: _register(connection, tools, plan, made))
    return found


def _part(span: Span, first: float, last: float) -> Span:
    begin, width = span[0], span[1] - span[0]
    return begin + first * width, begin + last * width


def _planned(connection: Connection, task: ConvertTask) -> _Plan:
    source = models.get(connection, Reference.parse(task.source))
    name = task.name or conversions.converted_name(source.name)
    asked = _asked(task, name, source)
    return _Plan(task, source, asked, conversions.find_asked(connection, name, asked, source))


def _asked(task: ConvertTask, name: str, source: ModelManifest) -> str:
    """Stands for the request: whatever of it, of the model and of this version of Hedgerow can lead to another conversion."""
    return digest_of(b"\n".join((hedgerow.__version__.encode(), name.encode(), encode(_wanted(source, task)))))


def _laid_out(tools: StoryTools, plan: _Plan, folder: Path) -> LayOut:
    # Copies: foreign code reads them, and a blob must never change.
    source = plan.source
    files = [LaidFile(path=f"{_MODEL}/{entry.path}", digest=entry.digest) for entry in source.files]
    if source.sample_input is not None:
        files.append(LaidFile(path=f"{_SAMPLE}/{source.sample_input.path}", digest=source.sample_input.digest))
    return LayOut(blobs=tools.blobs, root=str(folder / _FILES), files=files)


def _run_converter(tools: StoryTools, plan: _Plan, folder: Path, span: Span) -> Part[ConvertResult]:
    make_folder(folder / _OUT)
    request, step = _convert_request(tools, plan, folder), f"converting {plan.task.source}"
    return (yield from packager_work(tools, folder, "convert", request, ConvertResult, step=step, span=span))


def _convert_request(tools: StoryTools, plan: _Plan, folder: Path) -> ConvertRequest:
    sample, files = plan.source.sample_input, folder / _FILES
    return msgspec.structs.replace(
        _wanted(plan.source, plan.task),
        folder=str(files / _MODEL),
        sample_input=None if sample is None else str(files / _SAMPLE / sample.path),
        out=str(folder / _OUT),
        cache=str(tools.workspace.cache / "layers"),
    )


def _wanted(source: ModelManifest, task: ConvertTask) -> ConvertRequest:
    """The converter's request without the places of this machine."""
    asked = source.environment
    request = ConvertRequest(
        model=ModelRef(name=source.name, version=source.version, digest=source.digest),
        folder="",
        framework=source.framework,
        framework_version=source.framework_version,
        entry=task.entry,
        inputs=source.inputs,
        outputs=source.outputs,
        sample_input=source.sample_input.digest if source.sample_input else None,
        requirements=asked.requirements if asked is not None else [],
        opset=task.opset,
        quantize=task.quantize,
        accuracy_loss_max=task.accuracy_loss_max,
        atol=task.atol,
        rtol=task.rtol,
        out="",
        cache="",
    )
    if asked is None or asked.python_version is None:
        return request
    return msgspec.structs.replace(request, python_version=asked.python_version)


def _check_whole(plan: _Plan, made: _Made) -> None:
    """Raises ConversionIncomplete when the converter left something else than it said."""
    said = {(entry.path, entry.digest) for entry in made.result.files}
    left = {(entry.path, entry.digest) for entry in made.collected.files}
    if missing := sorted(said - left):
        raise ConversionIncomplete(model=plan.task.source, problem=f"{missing[0][0]} is not as it was announced")
    if not any(path.endswith(".onnx") for path, _ in said):
        raise ConversionIncomplete(model=plan.task.source, problem="there is no .onnx file")


def _register(connection: Connection, tools: StoryTools, plan: _Plan, made: _Made) -> tuple[ModelManifest, bool]:
    """In one transaction: contents, version, link. The same conversion of another source only gets the link."""
    now = tools.clock.now()
    models.lock_name(connection, plan.name)
    source = models.hold(connection, Reference(plan.source.name, plan.source.version))
    result = made.result
    known = conversions.find_made(connection, plan.name, result.key, source)
    found = known or _insert(connection, tools, plan, made, now)
    conversions.link(connection, found, source, conversion_key=result.key, asked=plan.asked)
    return found, known is not None


def _insert(connection: Connection, tools: StoryTools, plan: _Plan, made: _Made, now: datetime) -> ModelManifest:
    said = {entry.path for entry in made.result.files}
    files = [entry for entry in made.collected.files if entry.path in said]
    for digest, size in sorted({entry.digest: entry.size_bytes for entry in files}.items()):
        hashes = made.collected.chunk_hashes.get(digest, b"")
        blobs.record_stored(connection, tools.store, digest, size, now, chunk_hashes=hashes)
    source = plan.source
    request = RegisterModel(
        name=plan.name,
        files=files,
        framework="onnx",
        description=f"Converted from {plan.task.source}",
        tags=plan.task.tags,
        properties=properties_of(source, plan.task, made.result),
        inputs=made.result.inputs,
        outputs=made.result.outputs,
        sample_input=source.sample_input,
        run_id=source.run_id,
        source=source.source,
        data=source.data,
    )
    manifest = models.register(connection, request, now)
    details = {"digest": manifest.digest, "converted_from": plan.task.source}
    subject = f"model/{manifest.name}:{manifest.version}"
    events.record(
        connection, kind="model.registered", subject=subject, actor=events.system("controller"), now=now, details=details
    )
    return manifest


def properties_of(source: ModelManifest, task: ConvertTask, result: ConvertResult) -> dict[str, str]:
    """What is kept with the version for ever: where it comes from, how it was made, and what was measured of it."""
    facts: dict[str, object] = {
        "converted-from": f"{source.name}:{source.version}",
        "conversion-key": result.key,
        "quantized": task.quantize,
        "opset": ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(result.opsets.items())),
        "batchable": "yes" if result.batchable else "no",
        "conversion-tools": ", ".join(f"{name} {version}" for name, version in sorted(result.tools.items())),
        "conversion-notes": " ".join(result.notes),
        "latency-ms": None if result.latency_ms is None else f"{result.latency_ms:.4g}",
        "peak-memory-bytes": result.peak_memory_bytes,
        **_agreement("agreement", result.agreement),
    }
    if result.quantized is not None:
        facts |= _agreement("quantization", result.quantized)
    return {f"hedgerow.{name}": str(value)[:_LONGEST_PROPERTY] for name, value in facts.items() if value not in (None, "")}


def _agreement(what: str, found: Agreement) -> dict[str, object]:
    return {
        f"{what}.rows": found.rows,
        f"{what}.max-abs-error": f"{found.max_abs_error:.3g}",
        f"{what}.max-rel-error": f"{found.max_rel_error:.3g}",
        f"{what}.labels-changed": found.labels_changed,
        f"{what}.tolerance": found.tolerance,
    }
