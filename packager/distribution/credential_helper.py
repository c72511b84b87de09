"""Asks a credential helper who we are to a registry: the programs `docker-credential-NAME` that Docker and podman use.

The protocol is Docker's: `get`, the registry on standard input, a JSON object on standard output. No shell is involved, and what
the program says is shown only where it says that it failed.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from packager.distribution.errors import LoginHelperFailed, LoginHelperMissing
from packager.distribution.login import Login

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ANSWER_BYTES_MAX = 1 << 16
# What helpers say, word by word, for a registry that nobody logged in to; they exit with 1 then, too.
_NOT_KNOWN = "credentials not found"


class _Answer(msgspec.Struct, frozen=True, rename="pascal"):
    username: str = ""
    secret: str = ""


@dataclass(frozen=True)
class CredentialHelpers:
    """``environment`` is what the programs see; they are looked up in its PATH. A program has ``timeout_s`` seconds."""

    environment: Mapping[str, str]
    timeout_s: float = 30.0

    def ask(self, name: str, registry: str) -> Login | None:
        """What `docker-credential-NAME` keeps for ``registry``; None: nothing. Raises LoginHelperMissing, LoginHelperFailed."""
        program = f"docker-credential-{name}"
        path = shutil.which(program, path=self.environment.get("PATH", os.defpath)) if _NAME.fullmatch(name) else None
        if path is None:
            raise LoginHelperMissing(program=program[:80], registry=registry)
        code, said = self._run(path, program, registry)
        if code != 0:
            words = said.decode(errors="replace").strip()
            if _NOT_KNOWN in words.lower():
                return None
            problem = words.partition("\n")[0][:200] if words.isprintable() and words else f"it ended with {code}"
            raise LoginHelperFailed(program=program, registry=registry, problem=problem)
        try:
            answer = msgspec.json.decode(said, type=_Answer)
        except msgspec.MsgspecError:
            # Without the decoder's words, and without what caused it: both may show what stood there.
            raise LoginHelperFailed(program=program, registry=registry, problem="what it answered is no login") from None
        return Login(answer.username, answer.secret) if answer.username and answer.secret else None

    def _run(self, path: str, program: str, registry: str) -> tuple[int, bytes]:
        def failed(problem: str) -> LoginHelperFailed:
            return LoginHelperFailed(program=program, registry=registry, problem=problem)

        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                [path, "get"],
                env=dict(self.environment),
                stdin=pipe,
                stdout=pipe,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as problem:
            raise failed(f"it cannot be started ({problem.strerror})") from problem
        with process:
            try:
                said = self._answer(process, registry)
                if len(said) <= _ANSWER_BYTES_MAX:
                    return process.wait(self.timeout_s), said
                why = f"it answered more than {_ANSWER_BYTES_MAX} bytes"
            except subprocess.TimeoutExpired:
                why = f"it gave no answer within {self.timeout_s:g} s"
            # With all that it started: who holds the pipe would keep us waiting.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        raise failed(why)

    def _answer(self, process: subprocess.Popen[bytes], registry: str) -> bytes:
        """What it says up to its end, or a little more than is read of it. Raises subprocess.TimeoutExpired."""
        if process.stdin is None or process.stdout is None:
            return b""
        with contextlib.suppress(BrokenPipeError), process.stdin as question:
            question.write(registry.encode())
        said, end_s = b"", time.monotonic() + self.timeout_s
        with selectors.DefaultSelector() as pipe:
            pipe.register(process.stdout, selectors.EVENT_READ)
            while len(said) <= _ANSWER_BYTES_MAX:
                if not pipe.select(max(end_s - time.monotonic(), 0.0)):
                    raise subprocess.TimeoutExpired(process.args, self.timeout_s)
                piece = os.read(process.stdout.fileno(), _ANSWER_BYTES_MAX)
                if not piece:
                    break
                said += piece
        return said
