"""Reads what an image of kind fpga is planned from: what each stage's ONNX file takes and answers, and whose vectors there are.

The packager opens no model: `runtime.prove --describe` does, as a process of its own (DESIGN.md, the house).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from hedgerow.contracts.document import decode
from hedgerow.contracts.proof import PARITY_INDEX_FILE, ParityIndex
from hedgerow.errors import HedgerowError
from packager.errors import StageUnreadable
from packager.recipe import ModelFacts, onnx_entry
from packager.stages import Described, StageFacts, Staging, plan_stages

_MOST_INDEX_BYTES = 1 << 20


class Interpreter(Protocol):
    """The Python with the installed runtime, all of the environment that it gets to see, and how long it may take."""

    @property
    def python(self) -> Path: ...

    @property
    def environment(self) -> Mapping[str, str]: ...

    @property
    def timeout_s(self) -> float: ...


def read_stages(models: Iterable[ModelFacts], interpreter: Interpreter, scratch: Path) -> Staging:
    """Raises StageUnreadable and the errors of `plan_stages`."""
    return plan_stages([_read(facts, interpreter, scratch) for facts in models])


def _read(facts: ModelFacts, interpreter: Interpreter, scratch: Path) -> StageFacts:
    entry = onnx_entry(facts)
    source = next(file.source for file in facts.files if file.path == entry)
    return StageFacts(facts, _describe(facts.title, Path(source), interpreter, scratch), _parity_index(facts))


def _describe(title: str, file: Path, interpreter: Interpreter, scratch: Path) -> Described:
    argv = [str(interpreter.python), "-P", "-m", "runtime.prove", "--describe", "--model", str(file)]
    environment = {**interpreter.environment, "HOME": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            argv, cwd=scratch, env=environment, capture_output=True, text=True, timeout=interpreter.timeout_s, check=False
        )
        return msgspec.json.decode(done.stdout, type=Described)
    except subprocess.TimeoutExpired:
        raise StageUnreadable(model=title, problem=f"reading it took longer than {interpreter.timeout_s:.0f} s") from None
    except (msgspec.DecodeError, msgspec.ValidationError):
        last = done.stderr.strip().splitlines()[-1:] or [f"its reader ended with exit code {done.returncode}"]
        raise StageUnreadable(model=title, problem=last[0][:500]) from None


def _parity_index(facts: ModelFacts) -> ParityIndex | None:
    """None also for one that cannot be read: the proof of an image of that model alone would have said so."""
    found = next((file for file in facts.files if file.path == PARITY_INDEX_FILE), None)
    if found is None or not facts.has_parity or found.size_bytes > _MOST_INDEX_BYTES:
        return None
    try:
        return decode(Path(found.source).read_bytes(), ParityIndex)
    except (OSError, HedgerowError):
        return None
