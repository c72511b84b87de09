"""``python -P -m registry.controller.file_work TASK.json``: one task, then the end. Its last line on stdout is a ProgressLine.

Exit code 0: done, 1: not done (the line says why), 2: the task itself cannot be read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import msgspec

from hedgerow.contracts.build import ProgressLine
from hedgerow.contracts.document import encode
from hedgerow.errors import Bug, HedgerowError
from registry.blobs.choose import open_store
from registry.blobs.port import BlobStore
from registry.controller.errors import as_problem, of_file_work
from registry.controller.file_work.collect import collect
from registry.controller.file_work.lay_out import lay_out
from registry.controller.file_work.take_in import take_in
from registry.controller.file_work.tasks import ENV_BLOBS, ENV_BLOBS_ENDPOINT, Answer, Collect, Done, LayOut, TakeIn, Task, Unpack
from registry.controller.file_work.unpack import unpack

_USAGE = "usage: python -P -m registry.controller.file_work TASK.json"


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    if len(arguments) != 1:
        print(_USAGE, file=sys.stderr)
        return 2
    # What is laid out and unpacked is meant for processes of other users; the folders above decide who gets there.
    os.umask(0o022)
    try:
        task: Task = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Task)
    except (OSError, msgspec.DecodeError) as problem:
        return _tell(Bug(what=f"task {arguments[0]} cannot be read: {problem}"), 2)
    try:
        answer = _do(task, _store(task), _report)
    except HedgerowError as problem:
        return _tell(problem, 1)
    except OSError as problem:
        return _tell(of_file_work(problem), 1)
    _say(ProgressLine(progress=1.0, result=msgspec.to_builtins(answer)))
    return 0


def _store(task: Task) -> BlobStore:
    return open_store(Path(task.blobs), os.environ.get(ENV_BLOBS), os.environ.get(ENV_BLOBS_ENDPOINT))


def _do(task: Task, store: BlobStore, report: Callable[[float], None]) -> Answer:
    match task:
        case LayOut():
            lay_out(task, store)
            return Done()
        case TakeIn():
            return take_in(task, store, report)
        case Collect():
            return collect(task, store)
        case Unpack():
            unpack(task, store)
            return Done()
        case _:
            assert_never(task)


def _report(progress: float) -> None:
    _say(ProgressLine(progress=progress))


def _tell(problem: HedgerowError, code: int) -> int:
    _say(ProgressLine(problem=as_problem(problem)))
    return code


def _say(line: ProgressLine) -> None:
    sys.stdout.buffer.write(encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
