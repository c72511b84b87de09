"""Parts that stories share: what they are given, and the work of the file worker and of the packager as effects."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.clock import Clock
from hedgerow.contracts.document import Document, convert, encode
from registry.blobs import BlobStore
from registry.blobs.errors import StorageUnavailable
from registry.controller.effects import Ended, Part, RunProcess, run_process
from registry.controller.errors import Reported, WorkerFailed
from registry.controller.file_work.tasks import Answer, Task
from registry.controller.own_python import OwnPython
from registry.controller.sandbox import Sandbox
from registry.workspace import Workspace

D = TypeVar("D", bound=msgspec.Struct)
PackagerVerb = Literal["build", "convert", "push"]
A = TypeVar("A", bound=Answer)
# Which part of an activity a step is: its progress (0 to 1) at the beginning and at the end.
Span = tuple[float, float]


@dataclass(frozen=True)
class StoryTools:
    """Everything outside of itself that a story may use. ``server_url`` is None while no server runs; ``store`` has the blobs."""

    workspace: Workspace
    clock: Clock
    python: OwnPython
    sandbox: Sandbox
    server_url: Callable[[], str | None]
    threads: int
    store: BlobStore

    @property
    def blobs(self) -> str:
        return str(self.workspace.blobs)


def file_work(tools: StoryTools, folder: Path, task: Task, answer: type[A], *, step: str, span: Span) -> Part[A]:
    """Have the file worker do ``task``. ``folder`` is the job's own. Raises Reported, WorkerFailed, StorageUnavailable."""
    order = _write_order(folder / f"{type(task).__name__}.json", task)
    spec = tools.python.spec("registry.controller.file_work", [order], folder)
    return answer_of((yield from run_process(RunProcess(spec, step, span))), answer, step)


def packager_work(
    tools: StoryTools, folder: Path, verb: PackagerVerb, request: Document, answer: type[D], *, step: str, span: Span
) -> Part[D]:
    """Have `python -m packager` do ``request``. ``folder`` and errors are those of :func:`file_work`."""
    order = _write_order(folder / "request.json", request)
    spec = tools.python.spec("packager", [verb, order], folder)
    return answer_of((yield from run_process(RunProcess(spec, step, span))), answer, step)


def _write_order(path: Path, order: msgspec.Struct) -> str:
    # It may hold a password, so it is for our own eyes.
    try:
        atomic_write(path, encode(order), mode=0o600)
    except OSError as problem:
        raise StorageUnavailable(problem=os.strerror(problem.errno or 0)) from problem
    return str(path)


def answer_of(ended: Ended, kind: type[D], step: str) -> D:
    """What a process of ours answered. Raises Reported (its own words), WorkerFailed (it died without any)."""
    if ended.problem is not None:
        raise Reported(ended.problem)
    if ended.answer is None or ended.exit.exit_code != 0:
        raise WorkerFailed(step=step, reason=ended.exit.reason, said=last_words(ended))
    return convert(ended.answer, kind)


def last_words(ended: Ended) -> str:
    """The last line that a process wrote, as the end of a sentence."""
    spoken = [line.strip() for line in ended.tail if line.strip()]
    return f": {spoken[-1][:300]}" if spoken else ""


def make_folder(path: Path, mode: int = 0o700) -> Path:
    """A new folder for a job; what a killed controller left there goes. Raises StorageUnavailable."""
    try:
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o711)
        if path.exists():
            shutil.rmtree(path)
        path.mkdir()
        path.chmod(mode)
    except OSError as problem:
        raise StorageUnavailable(problem=f"{os.strerror(problem.errno or 0)}: {path}") from problem
    return path
