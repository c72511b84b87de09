"""Tests a finished image without a container engine: its layers are unpacked, and `runtime.prove` measures what is there."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hedgerow.contracts.image import Verification
from hedgerow.contracts.proof import ProofReport
from packager.blobs import BlobFolder
from packager.errors import VerificationFailed, answers_differ
from packager.tar_layer import StoredLayer
from packager.unpack import unpack_layers

log = logging.getLogger(__name__)
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Prover:
    """How `python -m runtime.prove` is run. ``environment`` is all that it gets to see."""

    python: Path
    environment: Mapping[str, str]
    timeout_s: float

    def prove(self, image: Path, scratch: Path, site: Path | None = None) -> list[ProofReport]:
        """Reports on the models of the unpacked image. With ``site`` only the libraries there are used, none of this process.

        Raises VerificationFailed when the process fails, takes too long or answers with something else.
        """
        # -S: without this process's site-packages, so that a library missing from the image is missing here too.
        flags = ["-P"] if site is None else ["-P", "-S"]
        argv = [str(self.python), *flags, "-m", "runtime.prove", "--image", str(image)]
        environment = {**self.environment, "HOME": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
        if site is not None:
            environment["PYTHONPATH"] = str(site)
        try:
            done = subprocess.run(
                argv, cwd=scratch, env=environment, capture_output=True, text=True, timeout=self.timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise VerificationFailed(problem=f"its proof took longer than {self.timeout_s:.0f} s") from None
        return _reports(done)


def verify_in_process(
    blobs: BlobFolder, layers: Iterable[StoredLayer], prover: Prover, scratch: Path, image: str = ".", site: str | None = None
) -> Verification:
    """Unpack ``layers`` below ``scratch`` and prove the image folder ``image`` in them.

    Raises VerificationFailed, UnsafeArchive, DiskFull.
    """
    root = scratch / "unpacked"
    root.mkdir()
    unpack_layers((blobs.path(layer.digest) for layer in layers), root)
    return verdict(prover.prove(root / image, scratch, root / site if site else None))


def verdict(reports: list[ProofReport]) -> Verification:
    """What the reports say together. Raises VerificationFailed, with the numbers, for the first model that did not pass."""
    for report in reports:
        if report.passed:
            continue
        if report.max_abs_error is None:
            raise VerificationFailed(problem=f"model {report.model}: {report.reason or 'no reason given'}")
        raise answers_differ(report.model, max_abs_error=report.max_abs_error, tolerance=report.tolerance, rows=report.rows)
    rows = sum(report.rows for report in reports)
    errors = [report.max_abs_error for report in reports if report.max_abs_error is not None]
    latencies = [report.latency.p50_ms for report in reports if report.latency is not None]
    unproven = [report.model for report in reports if report.rows == 0]
    return Verification(
        state="passed",
        reason=_reason(rows, unproven),
        rows=rows,
        max_abs_error=max(errors, default=None),
        tolerance=max((report.tolerance for report in reports if report.rows), default=None),
        latency_ms=max(latencies, default=None),
        batchable=sorted(report.model for report in reports if report.batchable),
    )


def runs_here(wanted_platform: str, python_version: str | None) -> bool:
    """Whether wheels for that platform and Python can be loaded by this very interpreter."""
    architecture = _MACHINES.get(platform.machine(), platform.machine())
    same_python = python_version in (None, f"{sys.version_info.major}.{sys.version_info.minor}")
    return same_python and wanted_platform.split("/")[:2] == [sys.platform, architecture]


def _reason(rows: int, unproven: list[str]) -> str:
    scored = f"{rows} recorded rows were scored by runtime.prove and compared" if rows else "loaded by runtime.prove"
    if not unproven:
        return scored
    return f"{scored}; no parity vectors came with {', '.join(unproven)}, so no answers of it were compared"


def _reports(done: subprocess.CompletedProcess[str]) -> list[ProofReport]:
    if done.stderr:
        log.info("runtime.prove said: %s", done.stderr[-4000:].strip())
    try:
        reports = msgspec.json.decode(done.stdout, type=list[ProofReport])
    except (msgspec.DecodeError, msgspec.ValidationError):
        last = done.stderr.strip().splitlines()[-1:] or ["it gave no reason"]
        raise VerificationFailed(problem=f"its proof ended with exit code {done.returncode}: {last[0][:500]}") from None
    if done.returncode != 0 and all(report.passed for report in reports):
        raise VerificationFailed(problem=f"its proof ended with exit code {done.returncode}")
    return reports
