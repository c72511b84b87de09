"""Images for the tests of verification: scripts and models as folders that the runtime serves, and what the packager wrote."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hedgerow.clock import SystemClock
from hedgerow.contracts.build import BuildModel, BuildRequest
from hedgerow.contracts.document import encode
from hedgerow.contracts.image import ScoringConfig, Verification
from hedgerow.contracts.oci import Descriptor
from packager.cache.scratch import scratch_folder
from packager.engine.port import ContainerEngine
from packager.oci.blobs import BlobFolder
from packager.recipe import ModelFacts, SourceFacts
from packager.source_files import list_files
from packager.tools import Tools
from packager.verify.choose import Candidate, Surroundings, verify_image
from packager.verify.drive import Limits, drive
from packager.verify.entry_point import installed_command
from packager.verify.local_process import READY_FILE, LocalProcess
from packager.verify.prover import Prover
from packager.verify.sandbox import Sandbox, borrowed_sandbox
from packager.verify.subject import Subject
from tests.packager_builders import read_json_blob

# What the installed runtime needs of the environment to be found.
CODE = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
PROVER = Prover(Path(sys.executable), CODE, 60.0)


def _tools(engine: Callable[[], ContainerEngine | None]) -> Tools:
    """For a test of what was built; nothing can be built with them."""
    return Tools(
        tool_version="1",
        default_base=None,
        ready_timeout_s=60.0,
        sandbox_required=False,
        cache_bytes=0,
        uv=lambda folder: _no("uv", folder),
        engine=engine,
        remote=lambda: _no("registry"),
        prover=PROVER,
        clock=SystemClock(),
    )


def _no(*asked: object) -> NoReturn:
    raise AssertionError(f"a test of an image asked for {asked}")


def facts_of(model: BuildModel) -> ModelFacts:
    return ModelFacts(model, tuple(list_files(Path(model.folder))))


@contextmanager
def a_place(folder: Path) -> Iterator[Sandbox]:
    """Where a process may live, below ``folder``."""
    cache = folder / "cache"
    with scratch_folder(cache) as scratch, borrowed_sandbox(scratch, cache, [Path(sys.executable)]) as place:
        yield place


def write_script_image(root: Path, script: str) -> None:
    """An image folder with a script and nothing else."""
    (root / "source").mkdir(parents=True)
    (root / "source" / "score.py").write_text(script)
    (root / "hedgerow.json").write_bytes(encode(ScoringConfig(models=[], script="source/score.py", source="source")))


def start_folder(place: Sandbox) -> LocalProcess:
    """Serve what is in ``place.root`` with the installed runtime."""
    server = installed_command(place.root, Path(sys.executable), CODE, place.home / READY_FILE)
    return LocalProcess(place, server, None, 30.0).start()


def try_script(folder: Path, script: str, subject: Subject, *, ready_s: float = 30.0, whole_s: float = 30.0) -> Verification:
    """Test a script as a process."""
    with a_place(folder) as place:
        write_script_image(place.root, script)
        place.open_for_reading()
        return drive(start_folder(place), subject, SystemClock(), Limits(ready_s, whole_s))


def package_index() -> dict[str, str]:
    """How this machine reaches a package index: by the environment of whoever runs the tests."""
    wanted = ("UV_", "SSL_CERT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "XDG_")
    return {name: value for name, value in os.environ.items() if name.upper().startswith(wanted)}


def verify_layout(
    request: BuildRequest,
    layout: Path,
    cache: Path,
    *,
    base_layers: int = 0,
    engine: Callable[[], ContainerEngine | None] = lambda: None,
) -> Verification:
    """Test what was built into ``layout``. ``base_layers`` of its layers are the base's."""
    index = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    digest, platform = index["digest"], "linux/amd64" if base_layers else "any"
    layers = tuple(layer["digest"] for layer in read_json_blob(layout, digest)["layers"][base_layers:])
    manifest = Descriptor(media_type=index["mediaType"], digest=digest, size=index["size"])
    source = None
    if request.script is not None and request.source is not None:
        source = SourceFacts(request.script, tuple(list_files(Path(request.source))), "")
    with scratch_folder(cache) as scratch:
        around = Surroundings(BlobFolder(layout), scratch, _tools(engine))
        models = [facts_of(model) for model in request.models]
        return verify_image(request, models, source, [Candidate(platform, manifest, layers)], around)
