"""The test of a finished image, and which way it goes: container where an engine answers, process where none does.

    an artifact (kinds onnx, fpga)   served by the runtime that is installed here, as a process
    a docker image                   its own entry point: in a container, or as a process with its own layers' libraries

Of several platforms the one that suits this machine is tested. Emulation is not tried: under it onnxruntime is known to
crash or to hang where the real machine does not, and a false alarm would keep a good image from being built.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from hedgerow.contracts.build import BuildRequest
from hedgerow.contracts.image import ANY_PLATFORM, Verification
from hedgerow.contracts.oci import Descriptor, ImageConfig, Platform
from hedgerow.process.reach import barred_by
from hedgerow.process.sandbox import TEST_UIDS
from packager.engine.port import Bench
from packager.environment.platforms import this_platform
from packager.oci.blobs import BlobFolder
from packager.oci.documents import read_foreign
from packager.oci.export import export_image
from packager.oci.layout import read_manifest
from packager.recipe import ModelFacts, SourceFacts
from packager.settings import IMAGE_ROOT
from packager.tools import Tools
from packager.verify.entry_point import installed_command, local_command, proof_command
from packager.verify.local_process import READY_FILE, LocalProcess
from packager.verify.sandbox import Sandbox, borrowed_sandbox
from packager.verify.subject import Subject, subject_of
from packager.verify.unpack import unpack_layers

# Of the environment in which the installed runtime is started only this: where its code and libraries are.
_CODE_FOLDERS = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Candidate:
    """One platform of the image. ``layers`` are the digests of its own layers, those above the base, from below."""

    platform: str
    manifest: Descriptor
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Surroundings:
    """What a test needs of the build: the layout's blobs, the folder of its own, and its tools."""

    blobs: BlobFolder
    scratch: Path
    tools: Tools


def verify_image(
    request: BuildRequest,
    models: Iterable[ModelFacts],
    source: SourceFacts | None,
    images: Sequence[Candidate],
    around: Surroundings,
) -> Verification:
    """Start the image by its own entry point, let it answer over HTTP, and say what was seen.

    Skipped where the request says so, or where neither an engine nor this machine runs any of its platforms. Raises
    VerificationFailed, EngineFailed, ProcessStartFailed, UnsafeArchive, DiskFull.
    """
    if not request.verify:
        return Verification(state="skipped", reason="the request said so")
    subject = subject_of(request, models, source)
    if images[0].platform == ANY_PLATFORM:
        return _as_artifact(request, images[0], subject, around)
    engine = around.tools.engine()
    bench, engine_platform = (engine.bench(), engine.platform()) if engine is not None else (None, None)
    if bench is not None and engine_platform is not None:
        here = Platform.parse(engine_platform)
        image = next((image for image in images if Platform.parse(image.platform).suits(here)), None)
        if image is not None:
            found = _in_container(image, subject, bench, around)
            found = msgspec.structs.replace(found, engine_platform=engine_platform)
            return _with_others(found, image, images)
    pythons = around.tools.prover.interpreters(request.python_version)
    image = next((image for image in images if image.platform == this_platform()), None)
    if image is not None and pythons:
        return _with_others(_as_process(request, image, subject, pythons, around), image, images)
    names = ", ".join(image.platform for image in images)
    reason = f"neither an engine nor this machine runs {names} with Python {request.python_version}"
    return Verification(state="skipped", reason=reason)


def _with_others(found: Verification, tested: Candidate, images: Sequence[Candidate]) -> Verification:
    others = [image.platform for image in images if image is not tested]
    reason = f"{found.reason}; not run: {', '.join(others)}" if others else found.reason
    return msgspec.structs.replace(found, platform=tested.platform, reason=reason)


def _in_container(image: Candidate, subject: Subject, bench: Bench, around: Surroundings) -> Verification:
    from packager.verify.in_container import in_container

    archive = export_image(around.blobs, image.manifest)
    with in_container(bench, archive, proves=not subject.has_script, now=around.tools.clock.now()) as started:
        return _finished(_drive(started, subject, around), "container", "in a container")


def _as_process(
    request: BuildRequest, image: Candidate, subject: Subject, pythons: list[Path], around: Surroundings
) -> Verification:
    """The image's own layers with a Python of this machine in the place of its base."""
    python = _best_reachable(pythons)
    config = _config_of(around.blobs, image)
    with _unpacked(request, image, _ways_to(python), around) as place:
        server = local_command(config, place.root, python, place.home / READY_FILE)
        proof = None if subject.has_script else proof_command(server, place.root / IMAGE_ROOT)
        started = LocalProcess(place, server, proof, around.tools.prover.timeout_s, subject.is_small).start()
        found = _drive(started, subject, around)
        how = f"no container engine that runs it answered, so it ran as a process on {_name_of(python)} without its base"
        return _finished(found, "process", how, place)


def _as_artifact(request: BuildRequest, image: Candidate, subject: Subject, around: Surroundings) -> Verification:
    """Models alone, served by the runtime that belongs to this packager."""
    python = around.tools.prover.python
    environment = {name: value for name, value in around.tools.prover.environment.items() if name in _CODE_FOLDERS}
    with _unpacked(request, image, (*_ways_to(python), *_ways_to_runtime()), around) as place:
        server = installed_command(place.root, python, environment, place.home / READY_FILE)
        proof = proof_command(server, place.root)
        started = LocalProcess(place, server, proof, around.tools.prover.timeout_s, subject.is_small).start()
        found = _drive(started, subject, around)
        return _finished(found, "process", f"as a process on {_name_of(python)}", place)


@contextmanager
def _unpacked(request: BuildRequest, image: Candidate, ways: Iterable[Path], around: Surroundings) -> Iterator[Sandbox]:
    with borrowed_sandbox(around.scratch, Path(request.cache), ways, required=around.tools.sandbox_required) as place:
        unpack_layers((around.blobs.path(digest) for digest in image.layers), place.root)
        place.open_for_reading()
        yield place


def _drive(started: Any, subject: Subject, around: Surroundings) -> Verification:  # noqa: ANN401 - see the import
    from packager.verify.drive import Limits, drive  # numpy and an HTTP client: half of the start-up time

    return drive(started, subject, around.tools.clock, Limits(around.tools.ready_timeout_s, around.tools.prover.timeout_s))


def _finished(
    found: Verification, how: Literal["container", "process"], words: str, place: Sandbox | None = None
) -> Verification:
    reason = f"{words}: {found.reason}"
    if place is not None and place.note:
        reason += f" (it had no user of its own: {place.note})"
    return msgspec.structs.replace(found, how=how, reason=reason)


def _config_of(blobs: BlobFolder, image: Candidate) -> dict[str, Any]:
    config = read_manifest(blobs, image.manifest.digest).config
    return read_foreign(blobs.read(config.digest), ImageConfig, str(blobs.folder)).config or {}


def _best_reachable(pythons: list[Path]) -> Path:
    """One that a user for tests can run, where there is one; else the first."""
    for python in pythons if os.geteuid() == 0 else ():
        if barred_by(_ways_to(python), TEST_UIDS[0]) is None:
            return python
    return pythons[0]


def _ways_to(python: Path) -> tuple[Path, ...]:
    """The interpreter, the folder that it is named in (`pyvenv.cfg` stands above it), and the library beside its real place."""
    return (python, python.parent, python.parent.parent, python.resolve().parent.parent / "lib")


def _ways_to_runtime() -> tuple[Path, ...]:
    specs = [importlib.util.find_spec(name) for name in ("runtime", "hedgerow")]
    places = [Path(place) for spec in specs if spec is not None for place in spec.submodule_search_locations or ()]
    return (*places, Path(sys.prefix))


def _name_of(python: Path) -> str:
    """`Python 3.11.2`, as it says itself."""
    if python.resolve() == Path(sys.executable).resolve():
        return f"Python {sys.version.split()[0]}"
    done = subprocess.run([str(python), "-I", "-S", "--version"], env={}, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() or python.name
