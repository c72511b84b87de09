"""A packager that is killed in the middle of a test leaves no process and no container behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import docker
import pytest

from packager.engine.docker_bench import DockerBench
from packager.errors import DiskFull
from packager.verify.in_container import LABEL, Owner, sweep
from packager.verify.sandbox import borrowed_sandbox, processes_of
from packager.verify.unpack import unpack_layers
from tests.packager_builders import blob_path, layout_manifest, model_of, request_for, run_packager
from tests.process_folders import REPOSITORY, need_root
from tests.verified_images import CODE
from tests.waiting import wait_for

HANGS = """\
import os, subprocess, sys, time
def init():
    other = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    with open({marker!r}, "w") as file:
        file.write(f"{{os.getpid()}} {{other.pid}}\\n")
    time.sleep(600)
def run(raw): return raw
"""

TEST_A_SCRIPT = """\
import sys
from pathlib import Path
from packager.verify.subject import Subject
from tests.verified_images import try_script
try_script(Path(sys.argv[1]), Path(sys.argv[2]).read_text(), Subject((), has_script=True), ready_s=120.0)
"""

HOLD_SANDBOX = """\
import sys, time
from pathlib import Path
from hedgerow.process import Supervised
from packager.verify.sandbox import borrowed_sandbox
cache = Path(sys.argv[1])
scratch = cache / "scratch"
scratch.mkdir(parents=True)
with borrowed_sandbox(scratch, cache, [Path("/bin/sh")]) as place:
    Supervised(place.records / "one").start(place.spec(["/bin/sh", "-c", "setsid sleep 600 & sleep 600"], {}))
    print(place.uid, flush=True)
    time.sleep(600)
"""


@contextmanager
def packager_like(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that tests an image as the packager does."""
    environment = {**CODE, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), CODE.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, *arguments], cwd="/", env=environment, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def test_a_killed_packager_leaves_no_scoring_server_behind(tmp_path: Path) -> None:
    marker, script = tmp_path / "pids", tmp_path / "score.py"
    script.write_text(HANGS.format(marker=str(marker)))
    with packager_like(TEST_A_SCRIPT, str(tmp_path / "test"), str(script)) as process:
        wait_for(lambda: marker.exists() and marker.read_text().endswith("\n"), what="init() to run", timeout_s=60)
        process.send_signal(signal.SIGKILL)
    for pid in map(int, marker.read_text().split()):
        wait_for(partial(is_gone, pid), what=f"process {pid} to be gone", timeout_s=15)


def test_what_escaped_from_a_killed_test_is_ended_by_the_next() -> None:
    need_root()
    with tempfile.TemporaryDirectory(prefix="hedgerow-verify-") as name:
        Path(name).chmod(0o755)
        with packager_like(HOLD_SANDBOX, f"{name}/first") as process:
            assert process.stdout is not None
            uid = int(process.stdout.readline())
            wait_for(lambda: len(processes_of(uid)) >= 3, what="the script and what it started")
            process.send_signal(signal.SIGKILL)
        wait_for(lambda: len(processes_of(uid)) == 1, what="all but the one in a session of its own to be gone", timeout_s=15)
        scratch = Path(name, "second")
        scratch.mkdir()
        with borrowed_sandbox(scratch, scratch, [Path("/bin/sh")]) as place:
            assert place.uid == uid
            assert processes_of(uid) == []


def test_a_full_disk_where_the_image_is_unpacked_is_said(tmp_path: Path) -> None:
    """A quota that is reached looks to the writer like a file that may not grow."""
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes(3_000_000))
    assert run_packager(request_for("onnx", [model_of(folder)], tmp_path), tmp_path).exit_code == 0
    layers = [blob_path(tmp_path / "out", layer["digest"]) for layer in layout_manifest(tmp_path / "out")["layers"]]
    (tmp_path / "root").mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(DiskFull):
            unpack_layers(layers, tmp_path / "root")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


HOLD_CONTAINER = """\
import sys, time
from datetime import UTC, datetime
import docker
from packager.engine.docker_bench import DockerBench
from packager.engine.port import LoadedImage
from packager.verify.in_container import in_container

class Loaded(DockerBench):
    def load(self, archive):
        return LoadedImage(sys.argv[2], True)

bench = Loaded(docker.DockerClient(base_url=sys.argv[1]), "127.0.0.1")
with in_container(bench, [], proves=False, now=datetime.now(UTC)) as started:
    print(started.container._container.id, flush=True)
    time.sleep(600)
"""


def test_a_container_of_a_killed_packager_is_removed_by_the_next_test(
    docker_engine: docker.DockerClient, docker_host: str, python_base_image: str, tmp_path: Path
) -> None:
    with packager_like(HOLD_CONTAINER, docker_host, python_base_image) as process:
        assert process.stdout is not None
        container_id = process.stdout.readline().strip()
        bench = DockerBench(docker_engine, "127.0.0.1")
        sweep(bench, Owner.here(), datetime.now(UTC))
        assert [one.container_id for one in bench.left_behind(LABEL)] == [container_id], "its packager lives"
        process.send_signal(signal.SIGKILL)
    sweep(bench, Owner.here(), datetime.now(UTC))
    assert bench.left_behind(LABEL) == []
