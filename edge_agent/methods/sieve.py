"""Matches lines against a regular expression that came from elsewhere, with a bound on the time that it may take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from edge_agent.methods import sieve_child
from edge_agent.methods.errors import LogFilterInvalid, LogFilterTooSlow

CPU_S = 20
PATTERN_CHARS = 1000
_MEMORY_BYTES = 256 * 1024 * 1024
# Of such a pattern it is plain what it costs: the agent matches it itself.
_PLAIN = re.compile(r"\^?[A-Za-z0-9 _:/,=@-]*\$?")
_ANYTHING = ("", ".*", "^.*$", ".+")


class Sieve:
    """``field`` is what the caller calls the pattern. Raises LogFilterInvalid. To be closed."""

    def __init__(self, pattern: str, field: str = "regex", *, cpu_s: int = CPU_S) -> None:
        self._pattern, self._field, self._cpu_s = pattern, field, cpu_s
        self._child: subprocess.Popen[bytes] | None = None
        self._plain = _plain(pattern)
        if len(pattern) > PATTERN_CHARS:
            raise LogFilterInvalid(name=field, value=pattern[:80], problem=f"it has more than {PATTERN_CHARS} characters")
        if self._plain is None:
            self._start()

    def __enter__(self) -> Sieve:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def matches(self, lines: Sequence[str]) -> list[bool]:
        """Whether the pattern is found in each of these lines (none of which holds a newline). Raises LogFilterTooSlow."""
        if self._plain is not None:
            return [self._plain(line) for line in lines]
        if not lines:
            return []
        batch = "\n".join(lines).encode(errors="replace")
        stdin, stdout = self._pipes()
        try:
            stdin.write(len(batch).to_bytes(4, "big") + batch)
            stdin.flush()
            verdicts = stdout.read(len(lines))
        except BrokenPipeError:
            verdicts = b""
        if len(verdicts) < len(lines):
            raise LogFilterTooSlow(value=self._pattern[:80], limit=self._cpu_s)
        return [verdict == ord("1") for verdict in verdicts]

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            # Closing its pipes could try to write what the killed one never read.
            self._child.communicate()
            self._child = None

    def _start(self) -> None:
        # Isolated (-I) and without site packages (-S): it needs nothing and starts in a few milliseconds.
        argv = [sys.executable, "-I", "-S", str(Path(sieve_child.__file__))]
        self._child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, cwd="/")
        stdin, stdout = self._pipes()
        asked = {"pattern": self._pattern, "cpu_s": self._cpu_s, "memory_bytes": _MEMORY_BYTES}
        try:
            stdin.write(json.dumps(asked).encode() + b"\n")
            stdin.flush()
            said = stdout.readline().decode(errors="replace").strip()
        except BrokenPipeError:
            said = ""
        if said != "ok":
            self.close()
            raise LogFilterInvalid(name=self._field, value=self._pattern[:80], problem=said or "it takes too much to read")

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            raise LogFilterTooSlow(value=self._pattern[:80], limit=self._cpu_s)  # closed
        return child.stdin, child.stdout


def _plain(pattern: str) -> Callable[[str], bool] | None:
    if pattern in _ANYTHING:
        return (lambda line: bool(line)) if pattern == ".+" else (lambda _line: True)
    if not _PLAIN.fullmatch(pattern):
        return None
    word, begin, end = pattern.strip("^$"), pattern.startswith("^"), pattern.endswith("$")
    if begin and end:
        return lambda line: line == word
    if begin:
        return lambda line: line.startswith(word)
    return (lambda line: line.endswith(word)) if end else (lambda line: word in line)
