"""The Python that tests run with, and how `runtime.prove` answers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hedgerow.contracts.proof import ProofReport
from packager.errors import VerificationFailed

_SAID = 500


@dataclass(frozen=True)
class Prover:
    """``python`` is the interpreter with the installed runtime, ``environment`` what it needs to find its code and no more.

    ``timeout_s`` bounds all that is asked of an image once it is ready.
    """

    python: Path
    environment: Mapping[str, str]
    timeout_s: float

    def interpreters(self, python_version: str) -> list[Path]:
        """What could run a docker image's libraries for that Python (`3.11`), the best first."""
        name = f"python{python_version}"
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        candidates = [self.python] if python_version == ours else []
        other = shutil.which(name, path=self.environment.get("PATH", ""))
        system = shutil.which(name, path="/usr/local/bin:/usr/bin")
        candidates += [Path(found) for found in (other, system) if found is not None]
        return list(dict.fromkeys(candidates))


def read_reports(said: str, ended: str) -> list[ProofReport]:
    """The reports in what `runtime.prove` wrote: one line of JSON among its log. ``ended`` is how it ended.

    Raises VerificationFailed when there are none.
    """
    lines = said.strip().splitlines()
    for line in reversed(lines):
        if not line.startswith("["):
            continue
        try:
            reports = msgspec.json.decode(line, type=list[ProofReport])
        except (msgspec.DecodeError, msgspec.ValidationError):
            continue
        if ended != "exit code 0" and all(report.passed for report in reports):
            break
        return reports
    last = lines[-1] if lines else "it gave no reason"
    raise VerificationFailed(problem=f"its proof ended with {ended}: {last[:_SAID]}")
