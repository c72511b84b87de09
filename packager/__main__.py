"""`python -P -m packager build REQUEST.json`: one build as a process of its own; the packager's composition root.

stdout carries ProgressLine JSON, one a line; the last has `result` or `problem`. The log goes to stderr. Exit code 0: built,
1: not built, 2: the command or the request itself is wrong.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import signal
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from hedgerow.clock import SystemClock
from hedgerow.contracts.build import BuildRequest, BuildResult, ProgressLine
from hedgerow.contracts.document import decode
from hedgerow.contracts.work import Problem
from hedgerow.errors import Bug, HedgerowError
from hedgerow.logs import set_up_logs
from hedgerow.settings import load_settings
from packager.blobs import disk_error
from packager.build import Tools, build
from packager.engine_docker import connect_docker
from packager.errors import RequestUnreadable
from packager.settings import PackagerSettings
from packager.uv_command import Uv, environment_for_uv, find_uv
from packager.verify_process import Prover

log = logging.getLogger("packager")
_USAGE = "usage: python -P -m packager build REQUEST.json"
# What the proof of an image may see of our environment: enough to find Python and our own code.
_FOR_PROOF = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run the command line; returns the exit code."""
    if arguments in (["-h"], ["--help"]):
        print(_USAGE)
        return 0
    if len(arguments) != 2 or arguments[0] != "build":
        print(_USAGE, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _terminate)
    try:
        settings = load_settings(PackagerSettings, environment)
        set_up_logs(settings.log_level)
        request = decode(_read(Path(arguments[1])), BuildRequest)
    except HedgerowError as problem:
        return _tell_problem(problem, exit_code=2)
    try:
        result = build(request, _tools(settings, environment), _report)
    except HedgerowError as problem:
        return _tell_problem(problem, exit_code=1)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 1  # whoever asked is gone; there is nobody left to tell
    except Exception as problem:
        log.exception("the build crashed")
        return _tell_problem(_as_ours(problem, request), exit_code=1)
    return _tell(ProgressLine(progress=1.0, step="built", result=msgspec.to_builtins(result))) or _log_result(result)


def _tools(settings: PackagerSettings, environment: Mapping[str, str]) -> Tools:
    python = Path(sys.executable)
    proof_environment = {name: environment[name] for name in _FOR_PROOF if name in environment}

    def uv(cache_folder: Path) -> Uv:
        return Uv(find_uv(python, environment), python, environment_for_uv(environment, cache_folder), settings.uv_timeout_s)

    return Tools(
        tool_version=importlib.metadata.version("hedgerow"),
        default_base=settings.base_image,
        ready_timeout_s=settings.ready_timeout_s,
        uv=uv,
        engine=cache(lambda: connect_docker(settings.docker_host)),
        prover=Prover(python, proof_environment, settings.prove_timeout_s),
        clock=SystemClock(),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise RequestUnreadable(path=path, problem=problem.strerror) from problem


def _report(progress: float, step: str) -> None:
    _tell(ProgressLine(progress=progress, step=step))


def _tell(line: ProgressLine) -> int:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _tell_problem(problem: HedgerowError, *, exit_code: int) -> int:
    details = {name: _sayable(str(value)) for name, value in problem.fields.items()}
    told = Problem(code=problem.key, message=_sayable(str(problem)), remedy=_sayable(problem.advice), details=details)
    _tell(ProgressLine(problem=told))
    return exit_code


def _sayable(text: str) -> str:
    """File names that are no UTF-8 cannot stand in JSON as they are."""
    return text.encode(errors="backslashreplace").decode()


def _as_ours(problem: Exception, request: BuildRequest) -> HedgerowError:
    if isinstance(problem, OSError):
        known = disk_error(problem, Path(request.out))
        if isinstance(known, HedgerowError):
            return known
    return Bug(what=f"{type(problem).__name__}: {problem}")


def _log_result(result: BuildResult) -> int:
    log.info("built %s (%d bytes): %s", result.digest, result.size_bytes, result.verification.reason)
    return 0


def _terminate(_signum: int, _frame: FrameType | None) -> NoReturn:
    # As an exception, so that temporary folders and a test container are removed on the way out.
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
