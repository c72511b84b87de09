"""The test of docker images: in containers of a real engine, and as processes with the libraries of their own layers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import msgspec
import pytest

from hedgerow.contracts.build import BuildRequest
from hedgerow.contracts.image import Verification
from packager.engine.docker_bench import DockerBench
from packager.engine.docker_engine import DockerEngine
from packager.engine.port import Bench, ContainerEngine
from packager.errors import VerificationFailed
from packager.verify.in_container import LABEL
from tests.packager_builders import model_of, request_for, run_packager, write_onnx_model
from tests.verified_images import package_index, verify_layout

SCRIPT = "import json\ndef init(): pass\ndef run(raw): return json.loads(raw)['data'][0]\n"


@dataclass(frozen=True)
class Maker:
    """Builds docker images of a script or of a model on the tests' base, with one cache for the module."""

    base: str
    client: docker.DockerClient
    host: str
    cache: Path

    def build(self, folder: Path, script: str | None = None, sample: str | None = None) -> BuildRequest:
        """Built into ``folder/out``, not tested."""
        model = model_of(write_onnx_model(folder / "m"))
        source = folder / "source"
        if script is not None:
            source.mkdir()
            (source / "score.py").write_text(script)
            if sample is not None:
                (source / "sample_input.json").write_text(sample)
        given = {"script": "score.py", "source": str(source)} if script is not None else {}
        request = request_for("docker", [model], folder, base=f"docker:{self.base}", cache=str(self.cache), **given)
        built = run_packager(request, folder, {**package_index(), "DOCKER_HOST": self.host})
        assert built.exit_code == 0, f"{built.lines[-1:]}\n{built.stderr}"
        return msgspec.structs.replace(request, verify=True)

    def test(self, folder: Path, request: BuildRequest, engine: Callable[[], ContainerEngine | None]) -> Verification:
        return verify_layout(request, folder / "out", self.cache, base_layers=1, engine=engine)

    def without_engine(self, folder: Path, script: str | None = None, sample: str | None = None) -> Verification:
        return self.test(folder, self.build(folder, script, sample), lambda: None)

    def in_container(self, folder: Path, script: str | None = None, sample: str | None = None) -> Verification:
        return self.test(folder, self.build(folder, script, sample), lambda: DockerEngine(self.client, self.host))


@pytest.fixture(scope="module")
def maker(docker_engine: docker.DockerClient, docker_host: str, python_base_image: str) -> Iterator[Maker]:
    # Not below pytest's own folder, which nobody else may enter: a user for tests has to.
    with tempfile.TemporaryDirectory(prefix="hedgerow-verified-") as name:
        Path(name).chmod(0o755)
        yield Maker(python_base_image, docker_engine, docker_host, Path(name) / "cache")


@pytest.fixture
def nothing_left(docker_engine: docker.DockerClient) -> Iterator[None]:
    """After the test the engine holds the images and the test containers that it held before."""
    before = {image.id for image in docker_engine.images.list(all=True)}
    yield
    assert docker_engine.containers.list(all=True, filters={"label": LABEL}) == []
    assert {image.id for image in docker_engine.images.list(all=True)} == before


# As processes ---------------------------------------------------------------------------------------------------------


def test_an_image_s_own_entry_point_scores_without_an_engine(tmp_path: Path, maker: Maker) -> None:
    found = maker.without_engine(tmp_path)
    assert (found.state, found.how, found.rows, found.max_abs_error) == ("passed", "process", 4, 0.0)
    assert (found.batchable, found.platform, found.engine_platform) == (["adder"], "linux/amd64", None)
    assert "ran as a process on Python 3.11" in found.reason


def test_a_script_runs_with_its_image_s_libraries_alone(tmp_path: Path, maker: Maker) -> None:
    # Imported by its name: an import statement is found missing before the image is built.
    script = "import importlib, numpy\nassert 'opt/hedgerow-site' in numpy.__file__\nimportlib.import_module('pytest')\n"
    with pytest.raises(VerificationFailed, match="No module named 'pytest'"):
        maker.without_engine(tmp_path, script + SCRIPT)


# In containers --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
def test_an_image_is_scored_and_measured_in_a_container(tmp_path: Path, maker: Maker) -> None:
    found = maker.in_container(tmp_path)
    assert (found.state, found.how, found.rows, found.max_abs_error) == ("passed", "container", 4, 0.0)
    assert (found.batchable, found.platform, found.engine_platform) == (["adder"], "linux/amd64", "linux/amd64")
    assert found.latency_ms is not None
    assert found.peak_memory_bytes is not None
    assert found.peak_memory_bytes > 10_000_000
    assert found.started_in_s is not None


@pytest.mark.usefixtures("nothing_left")
def test_a_script_in_a_container_has_no_privileges_and_is_told_where_it_failed(tmp_path: Path, maker: Maker) -> None:
    script = """\
import json, os
def init():
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    assert int(status["CapBnd"], 16) == 0, status["CapBnd"]
    assert status["NoNewPrivs"].strip() == "1"
    assert os.getuid() == 65534
    for place in ("/etc/x", "/opt/hedgerow/x", "/var/tmp/x"):
        try:
            open(place, "w")
        except OSError:
            continue
        raise AssertionError(place + " can be written")
    open("/tmp/x", "w")
def run(raw):
    return json.loads(raw)["data"][0]
"""
    with pytest.raises(VerificationFailed, match=r"IndexError: list index out of range \(score\.py, line 15: return json"):
        maker.in_container(tmp_path, script, sample='{"data": []}')


@pytest.mark.alone
@pytest.mark.usefixtures("nothing_left")
def test_a_fork_bomb_in_a_container_is_bounded_and_removed(tmp_path: Path, maker: Maker) -> None:
    script = """\
import os, time
def init():
    made = 0
    try:
        while True:
            if os.fork() == 0:
                time.sleep(600)
            made += 1
    except OSError as problem:
        raise RuntimeError(f"{'few' if made < 600 else made} processes, then {problem.strerror}")
def run(raw): return 1
"""
    with pytest.raises(VerificationFailed, match="RuntimeError: few processes, then Resource temporarily unavailable"):
        maker.in_container(tmp_path, script)


class SmallBench(DockerBench):
    """As if the engine's machine had next to no memory."""

    def memory_bytes(self) -> int:
        return 400_000_000


@pytest.mark.usefixtures("nothing_left")
def test_a_script_that_eats_memory_in_a_container_is_ended_by_its_limit(tmp_path: Path, maker: Maker) -> None:
    class Engine(DockerEngine):
        def bench(self) -> Bench:
            return SmallBench(maker.client, "127.0.0.1")

    script = "def init():\n  eaten = []\n  while True: eaten.append(bytearray(b'x') * 20_000_000)\ndef run(d): return d\n"
    request = maker.build(tmp_path, script)
    with pytest.raises(VerificationFailed, match="memory"):
        maker.test(tmp_path, request, lambda: Engine(maker.client, maker.host))
