"""`python -P -m packager build | push REQUEST.json`: one piece of work as a process; the packager's composition root.

stdout carries ProgressLine JSON, one a line; the last has `result` or `problem`. The log goes to stderr. Exit code 0: done,
1: not done, 2: the command or the request itself is wrong.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from hedgerow import __version__
from hedgerow.clock import SystemClock
from hedgerow.contracts.build import BuildRequest, BuildResult, ProgressLine
from hedgerow.contracts.convert import ConvertRequest, ConvertResult
from hedgerow.contracts.document import Document, decode
from hedgerow.contracts.push import PushRequest, PushResult
from hedgerow.contracts.work import Problem
from hedgerow.errors import Bug, HedgerowError
from hedgerow.logs import set_up_logs
from hedgerow.settings import load_settings
from packager.build import build
from packager.engine.docker_engine import connect_docker
from packager.environment.uv_command import Uv, environment_for_uv, find_uv
from packager.errors import RequestUnreadable
from packager.oci.blobs import disk_error
from packager.settings import PackagerSettings
from packager.tools import Tools
from packager.verify.prover import Prover

if TYPE_CHECKING:
    from packager.distribution.access import RemoteAccess

log = logging.getLogger("packager")
# What the proof of an image may see of our environment: enough to find Python and our own code.
_FOR_PROOF = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class _Verb:
    """What a word of the command line does: the document that it reads, the work, and the last step's name."""

    request: type[Document]
    work: Callable[[Any, PackagerSettings, Mapping[str, str]], Document]
    done: str


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run the command line; returns the exit code."""
    verbs = {
        "build": _Verb(BuildRequest, _build, "built"),
        "push": _Verb(PushRequest, _push, "pushed"),
        "convert": _Verb(ConvertRequest, _convert, "converted"),
    }
    usage = f"usage: python -P -m packager {' | '.join(verbs)} REQUEST.json"
    if arguments in (["-h"], ["--help"]):
        print(usage)
        return 0
    if len(arguments) != 2 or arguments[0] not in verbs:
        print(usage, file=sys.stderr)
        return 2
    return _do(verbs[arguments[0]], Path(arguments[1]), environment)


def _do(verb: _Verb, order: Path, environment: Mapping[str, str]) -> int:
    signal.signal(signal.SIGTERM, _terminate)
    try:
        settings = load_settings(PackagerSettings, environment)
        set_up_logs(settings.log_level)
        request = decode(_read(order), verb.request)
    except HedgerowError as problem:
        return _tell_problem(problem, exit_code=2)
    try:
        result = verb.work(request, settings, environment)
    except HedgerowError as problem:
        return _tell_problem(problem, exit_code=1)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 1  # whoever asked is gone; there is nobody left to tell
    except Exception as problem:
        log.exception("the work crashed")
        return _tell_problem(_as_ours(problem, Path(getattr(request, "out", order))), exit_code=1)
    return _tell(ProgressLine(progress=1.0, step=verb.done, result=msgspec.to_builtins(result)))


def _build(request: BuildRequest, settings: PackagerSettings, environment: Mapping[str, str]) -> BuildResult:
    result = build(request, _tools(settings, environment), _report)
    log.info("built %s (%d bytes): %s", result.digest, result.size_bytes, result.verification.reason)
    return result


def _push(request: PushRequest, settings: PackagerSettings, environment: Mapping[str, str]) -> PushResult:
    from packager.distribution.push import push

    result = push(request, _remote(settings, environment), _report)
    sent = (len(result.pushed), result.pushed_bytes, len(result.mounted), len(result.already_there))
    log.info("pushed %s: %d blobs (%d bytes) sent, %d mounted, %d there already", result.reference, *sent)
    return result


def _convert(request: ConvertRequest, settings: PackagerSettings, environment: Mapping[str, str]) -> ConvertResult:
    from packager.convert.convert import ConvertTools, convert
    from packager.convert.sandbox import Sandbox

    # The controller's helpers keep what they write to themselves; the user of the sandbox must be able to read what is laid out.
    os.umask(0o022)
    sandbox = Sandbox(Path(sys.executable), settings.convert_memory_bytes, settings.convert_timeout_s, SystemClock())
    result = convert(request, ConvertTools(__version__, _uv(settings, environment), sandbox), _report)
    log.info("converted %s: %d rows agree within %s", request.model.name, result.agreement.rows, result.agreement.tolerance)
    return result


def _remote(settings: PackagerSettings, environment: Mapping[str, str]) -> RemoteAccess:
    """Whom registries know us as, and which of them we may call. Raises InvalidSetting, LoginsUnreadable."""
    from hedgerow.egress import EgressPolicy, tls_context
    from packager.distribution.access import RemoteAccess
    from packager.distribution.credential_helper import CredentialHelpers
    from packager.distribution.logins import LoginFile, read_logins

    known = read_logins(settings.registry_logins) if settings.registry_logins else LoginFile({}, {})
    policy = EgressPolicy.parse(settings.egress_allow)
    return RemoteAccess(
        policy,
        look_up_login=lambda image: known.find(image, CredentialHelpers(environment)),
        tls=lambda: tls_context(settings.egress_ca_file),
    )


def _tools(settings: PackagerSettings, environment: Mapping[str, str]) -> Tools:
    python = Path(sys.executable)
    proof_environment = {name: environment[name] for name in _FOR_PROOF if name in environment}

    return Tools(
        tool_version=__version__,
        default_base=settings.base_image,
        ready_timeout_s=settings.ready_timeout_s,
        sandbox_required=settings.require_sandbox,
        cache_bytes=settings.cache_bytes,
        uv=_uv(settings, environment),
        engine=cache(lambda: connect_docker(settings.docker_host)),
        remote=lambda: _remote(settings, environment),
        prover=Prover(python, proof_environment, settings.prove_timeout_s),
        clock=SystemClock(),
    )


def _uv(settings: PackagerSettings, environment: Mapping[str, str]) -> Callable[[Path], Uv]:
    python = Path(sys.executable)

    def uv(cache_folder: Path) -> Uv:
        return Uv(find_uv(python, environment), python, environment_for_uv(environment, cache_folder), settings.uv_timeout_s)

    return uv


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


def _as_ours(problem: Exception, place: Path) -> HedgerowError:
    if isinstance(problem, OSError):
        known = disk_error(problem, place)
        if isinstance(known, HedgerowError):
            return known
    return Bug(what=f"{type(problem).__name__}: {problem}")


def _terminate(_signum: int, _frame: FrameType | None) -> NoReturn:
    # As an exception, so that temporary folders and a test container are removed on the way out.
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
