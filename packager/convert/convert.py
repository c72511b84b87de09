"""The story of a conversion: choose file and libraries; in a sandbox open and convert, check and finish, measure.

Nothing foreign is opened in this process: no pickle, no array, no graph. What comes back are files of bounded size and JSON
that must fit. The same key is the same conversion: it is made once, kept in the cache and then copied.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

import hedgerow
from hedgerow.contracts.convert import Agreement, ConvertRequest, ConvertResult
from hedgerow.contracts.model import TensorSpec
from hedgerow.contracts.proof import ProofReport
from packager.cache.layers import LayerCache
from packager.cache.scratch import scratch_folder
from packager.convert.errors import ModelCrashed, OpsetUnsupported
from packager.convert.formats import Entry, beginning_of, choose_entry
from packager.convert.libraries import Libraries, choose_libraries, drop_old_libraries
from packager.convert.material import Material, check_out, conversion_key, find_result, keep_result, lay_out, listed, take_files
from packager.convert.refusals import read_bounded, read_json, refuse
from packager.convert.sandbox import Command, Finished, Sandbox, python_roots
from packager.environment.uv_command import Uv
from packager.progress import Report

_CODE = Path(__file__).parent
_OPSETS = range(13, 24)
_MODEL_BYTES_MAX = (2 << 30) - 1
_OPENER_FILES = ("candidate.onnx", "rows.npz", "facts.json")
_OUR_FILES = ("model.onnx", "model.float.onnx", "parity.npz", "parity.json", "io.json", "required_operators.config")


@dataclass(frozen=True)
class ConvertTools:
    """What the composition root hands over."""

    tool_version: str
    uv: Callable[[Path], Uv]
    sandbox: Sandbox


class _Opened(msgspec.Struct, frozen=True):
    """The opener's facts that are used here; the rest is for the next step."""

    tools: dict[str, str]


class _Facts(msgspec.Struct, frozen=True):
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    opsets: dict[str, int]
    ir_version: int
    operators: list[str]
    agreement: Agreement
    quantized: Agreement | None
    notes: list[str]


def convert(request: ConvertRequest, tools: ConvertTools, report: Report) -> ConvertResult:
    """Convert into ``request.out``. Raises the errors of packager/convert/errors.py, those of locking, ModelChanged, DiskFull.

    After an error ``out`` is empty.
    """
    if request.opset is not None and request.opset not in _OPSETS:
        raise OpsetUnsupported(opset=request.opset, least=_OPSETS.start, most=_OPSETS.stop - 1)
    check_out(Path(request.out))
    with scratch_folder(Path(request.cache)) as scratch:
        scratch.chmod(0o711)
        cache = LayerCache(Path(request.cache), scratch)
        report(0.02, "reading the model")
        material = lay_out(request, scratch / "model")
        entry = choose_entry(
            f"{request.model.name}:{request.model.version}",
            [file.path for file in material.files],
            beginning_of(material.folder),
            entry=request.entry,
            framework=request.framework,
        )
        report(0.05, "choosing the libraries it was trained with")
        libraries = choose_libraries(request, entry.kind, cache, tools.uv)
        key = conversion_key(request, material, entry.path, libraries.key, tools.tool_version)
        known = find_result(cache, key, Path(request.out))
        if known is not None:
            report(0.99, "an equal conversion was known")
            return known
        result = _Conversion(request, entry, material, libraries, tools, scratch, report).make(key)
        keep_result(cache, result, scratch / "final")
        take_files(scratch / "final", Path(request.out), result.files)
        drop_old_libraries(cache, tools.sandbox.clock.now())
    return result


@dataclass(frozen=True)
class _Conversion:
    """One conversion that has to be made."""

    request: ConvertRequest
    entry: Entry
    material: Material
    libraries: Libraries
    tools: ConvertTools
    scratch: Path
    report: Report

    def make(self, key: str) -> ConvertResult:
        self.report(0.15, f"opening {self.entry.path} and converting it")
        opened, isolated = self._open()
        used = read_json(opened / "facts.json", _Opened, self.entry.path).tools
        self.report(0.6, "checking the conversion, optimising")
        final = self._finish(opened)
        facts = read_json(final / "facts.json", _Facts, self.entry.path)
        self.report(0.85, "measuring")
        proof = self._prove(final)
        notes = [*facts.notes, *([self.libraries.note] if self.libraries.note else [])]
        if not isolated:
            notes.append("It was opened with limits, but not cut off from network and files: this user may not make namespaces.")
        self.report(0.97, "keeping the result")
        return ConvertResult(
            files=listed(final, _OUR_FILES),
            inputs=facts.inputs,
            outputs=facts.outputs,
            opsets=facts.opsets,
            ir_version=facts.ir_version,
            operators=facts.operators,
            agreement=facts.agreement,
            quantized=facts.quantized,
            batchable=proof.batchable,
            latency_ms=proof.latency.p50_ms if proof.latency else None,
            peak_memory_bytes=proof.peak_memory_bytes,
            tools={**dict(sorted(used.items())), "hedgerow": self.tools.tool_version},
            key=key,
            notes=notes,
        )

    def _open(self) -> tuple[Path, bool]:
        """The step with foreign code and the model's own libraries; returns its bounded copy and whether it was cut off."""
        folder, result = self._step("open")
        request, sample = self.request, self.material.sample
        job = {
            "entry": str(self.material.folder / self.entry.path),
            "kind": self.entry.kind,
            "sample": str(sample) if sample else None,
            "input_names": [spec.name for spec in request.inputs],
            "opset": request.opset,
            "atol": request.atol,
            "rtol": request.rtol,
            "result": str(result),
        }
        readable = [self.material.folder, *([sample] if sample else [])]
        finished = self._run("open", folder, result, job, self.libraries, readable)
        return self._copied(result, "opened", _OPENER_FILES), finished.isolated

    def _finish(self, opened: Path) -> Path:
        folder, result = self._step("finish")
        request = self.request
        job = {
            "opened": str(opened),
            "quantize": request.quantize,
            "accuracy_loss_max": request.accuracy_loss_max,
            "atol": request.atol,
            "rtol": request.rtol,
            "opset": request.opset,
            "result": str(result),
        }
        own = Libraries(Path(sys.executable), None, "")
        self._run("finish", folder, result, job, own, [opened])
        return self._copied(result, "final", (*_OUR_FILES, "facts.json"))

    def _prove(self, final: Path) -> ProofReport:
        folder, result = self._step("prove")
        code = Path(hedgerow.__file__).parent
        python = Path(sys.executable)
        name = f"{self.request.model.name}"
        argv = (str(python), "-P", "-m", "runtime.prove", "--model", str(final / "model.onnx"), "--name", name)
        readable = (*python_roots(python), code, code.parent / "runtime", final)
        finished = self.tools.sandbox.run(Command(argv, folder, result, readable, (code.parent,)))
        try:
            (proof,) = msgspec.json.decode(finished.stdout, type=list[ProofReport])
        except (msgspec.DecodeError, msgspec.ValidationError, ValueError):
            raise self._refusal(finished, result) from None
        if not proof.passed:
            raise ModelCrashed(file=self.entry.path, problem=f"the runtime does not score it as recorded ({proof.reason})")
        return proof

    def _step(self, name: str) -> tuple[Path, Path]:
        folder = self.scratch / name
        result = folder / "result"
        for one in (folder, result):
            one.mkdir()
            one.chmod(0o755)
        return folder, result

    def _run(
        self, step: str, folder: Path, result: Path, job: Mapping[str, object], libraries: Libraries, readable: list[Path]
    ) -> Finished:
        order = folder / "job.json"
        order.write_text(json.dumps(job), encoding="utf-8")
        order.chmod(0o644)
        flags = ("-P",) if libraries.site is None else ("-P", "-S")
        argv = (str(libraries.python), *flags, "-m", "inside", step, str(order))
        sites = () if libraries.site is None else (libraries.site,)
        seen = (*python_roots(libraries.python), _CODE / "inside", *sites, *readable)
        finished = self.tools.sandbox.run(Command(argv, folder, result, seen, (_CODE, *sites)))
        if finished.exit_code != 0 or finished.timed_out:
            raise self._refusal(finished, result)
        return finished

    def _refusal(self, finished: Finished, result: Path) -> Exception:
        sandbox = self.tools.sandbox
        return refuse(finished, result, self.entry.path, memory_bytes=sandbox.memory_bytes, timeout_s=sandbox.timeout_s)

    def _copied(self, result: Path, name: str, files: tuple[str, ...]) -> Path:
        """What a step handed back, as files of ours: nothing there can still be changed, followed or waited for."""
        target = self.scratch / name
        target.mkdir()
        target.chmod(0o755)
        for file in files:
            if not (result / file).exists() and file not in _OPENER_FILES:
                continue
            try:
                data = read_bounded(result / file, _MODEL_BYTES_MAX)
            except OSError as problem:
                raise ModelCrashed(file=self.entry.path, problem=f"it left no usable {file}") from problem
            (target / file).write_bytes(data)
            (target / file).chmod(0o644)
        return target
