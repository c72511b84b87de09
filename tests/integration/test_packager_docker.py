"""Docker images with a real engine and the real libraries: they run, they score, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest
from docker.models.containers import Container

from tests.packager_builders import (
    Built,
    docker_archive,
    layout_manifest,
    model_of,
    read_json_blob,
    request_for,
    run_packager,
    write_onnx_model,
)
from tests.waiting import wait_for

SCRIPT = """\
import json, os
def init():
    global offset
    offset = len(os.listdir(os.environ["AZUREML_MODEL_DIR"]))
def run(raw_data):
    return {"sum": sum(json.loads(raw_data)["data"]), "files": offset}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the module: layers of the real libraries are built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def index() -> dict[str, str]:
    """How this machine reaches a package index: by the environment of whoever runs the tests."""
    import os

    wanted = ("UV_", "SSL_CERT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "XDG_")
    return {name: value for name, value in os.environ.items() if name.upper().startswith(wanted)}


@pytest.fixture
def started(docker_engine: docker.DockerClient) -> Iterator[list[str]]:
    """Ids of images that a test loaded; they and their containers are removed."""
    loaded: list[str] = []
    yield loaded
    for image in loaded:
        for container in docker_engine.containers.list(all=True, filters={"ancestor": image}):
            container.remove(force=True)
        docker_engine.images.remove(image, force=True)


def images_of(engine: docker.DockerClient) -> set[str]:
    return {image.id for image in engine.images.list(all=True)}


def build(
    folder: Path,
    model: Path,
    base: str,
    cache: Path,
    environment: dict[str, str],
    /,
    *,
    verify: bool = True,
    script: str | None = None,
) -> Built:
    """Build a docker image on ``base`` into ``folder``."""
    changes = {"base": base, "cache": str(cache), "verify": verify, "script": script}
    return run_packager(request_for("docker", [model_of(model)], folder, **changes), folder, environment)


def run_image(engine: docker.DockerClient, image: str) -> tuple[Container, str]:
    container = engine.containers.run(
        image, detach=True, ports={"5001/tcp": ("127.0.0.1", None)}, read_only=True, tmpfs={"/tmp": ""}
    )

    def url() -> str | None:
        container.reload()
        assert container.status in ("created", "running"), container.logs().decode()
        published = container.ports.get("5001/tcp")
        if not published:
            return None
        place = f"http://127.0.0.1:{published[0]['HostPort']}"
        try:
            return place if httpx.get(f"{place}/v2/health/ready").status_code == 200 else None
        except httpx.TransportError:
            return None

    return container, wait_for(url, timeout_s=60, what="the container to be ready") or ""


def test_a_built_image_was_scored_in_a_container_and_left_nothing(
    tmp_path: Path,
    docker_engine: docker.DockerClient,
    docker_host: str,
    python_base_image: str,
    cache: Path,
    index: dict[str, str],
) -> None:
    before = images_of(docker_engine)
    model = write_onnx_model(tmp_path / "m")
    built = build(tmp_path, model, f"docker:{python_base_image}", cache, {**index, "DOCKER_HOST": docker_host})
    assert built.exit_code == 0, f"{built.lines[-1]}\n{built.stderr}"
    found = built.result.verification
    assert (found.state, found.rows, found.max_abs_error) == ("passed", 4, 0.0)
    assert "in a container" in found.reason
    assert images_of(docker_engine) == before
    assert docker_engine.containers.list(all=True, filters={"label": "hedgerow.verify"}) == []
    assert built.result.base_digest == docker_engine.images.get(python_base_image).id


def test_the_exported_tar_loads_into_docker_and_scores(
    tmp_path: Path,
    docker_engine: docker.DockerClient,
    docker_host: str,
    python_base_image: str,
    cache: Path,
    index: dict[str, str],
    started: list[str],
) -> None:
    model = write_onnx_model(tmp_path / "m")
    environment = {**index, "DOCKER_HOST": docker_host}
    build(tmp_path, model, f"docker:{python_base_image}", cache, environment, verify=False)
    (image,) = docker_engine.images.load(docker_archive(tmp_path / "out", "packager-test:1"))
    started.append("packager-test:1")
    config_digest = layout_manifest(tmp_path / "out")["config"]["digest"]
    assert image.id == config_digest
    assert image.attrs["RootFS"]["Layers"] == read_json_blob(tmp_path / "out", config_digest)["rootfs"]["diff_ids"]
    container, url = run_image(docker_engine, "packager-test:1")
    answer = httpx.post(
        f"{url}/v2/models/adder/infer",
        json={"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 2.0, 3.0]}]},
    )
    assert answer.json()["outputs"][0]["data"] == [2.0, 3.0, 4.0]
    assert container.exec_run(["id", "-u"]).output == b"65534\n"
    health = wait_for(
        lambda: container.exec_run(container.attrs["Config"]["Healthcheck"]["Test"][1:]), what="the health check to run"
    )
    assert health.exit_code == 0, health.output


def test_a_script_runs_in_its_image(
    tmp_path: Path,
    docker_host: str,
    docker_engine: docker.DockerClient,
    python_base_image: str,
    cache: Path,
    index: dict[str, str],
    started: list[str],
) -> None:
    model = write_onnx_model(tmp_path / "m", parity=False)
    (tmp_path / "score.py").write_text(SCRIPT)
    environment = {**index, "DOCKER_HOST": docker_host}
    built = build(tmp_path, model, f"docker:{python_base_image}", cache, environment, script=str(tmp_path / "score.py"))
    assert built.exit_code == 0, f"{built.lines[-1]}\n{built.stderr}"
    assert "no parity rows were compared" in built.result.verification.reason
    docker_engine.images.load(docker_archive(tmp_path / "out", "packager-test:2"))
    started.append("packager-test:2")
    _, url = run_image(docker_engine, "packager-test:2")
    assert httpx.post(f"{url}/score", json={"data": [1, 2]}).json() == {"sum": 3, "files": 1}


def test_a_script_that_fails_at_the_start_is_not_built(
    tmp_path: Path,
    docker_host: str,
    docker_engine: docker.DockerClient,
    python_base_image: str,
    cache: Path,
    index: dict[str, str],
) -> None:
    before = images_of(docker_engine)
    (tmp_path / "score.py").write_text("def init(): raise RuntimeError('no licence found')\ndef run(data): return data\n")
    environment = {**index, "DOCKER_HOST": docker_host, "HEDGEROW_READY_TIMEOUT_S": "20"}
    model = write_onnx_model(tmp_path / "m")
    built = build(tmp_path, model, f"docker:{python_base_image}", cache, environment, script=str(tmp_path / "score.py"))
    assert (built.exit_code, built.problem_code) == (1, "verification_failed")
    assert "no licence found" in built.problem_text
    assert images_of(docker_engine) == before
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_model_that_answers_differently_is_not_built(
    tmp_path: Path, docker_host: str, python_base_image: str, cache: Path, index: dict[str, str]
) -> None:
    model = write_onnx_model(tmp_path / "m", wrong_by=0.5)
    built = build(tmp_path, model, f"docker:{python_base_image}", cache, {**index, "DOCKER_HOST": docker_host})
    assert (built.exit_code, built.problem_code) == (1, "verification_failed")
    assert "0.5" in built.problem_text


def test_without_an_engine_the_layers_prove_themselves_as_a_process(
    tmp_path: Path, docker_host: str, python_base_image: str, cache: Path, index: dict[str, str]
) -> None:
    model = write_onnx_model(tmp_path / "m")
    # The base is in the cache after this, as it is on a machine that once had an engine.
    with_engine = build(
        tmp_path / "a", model, f"docker:{python_base_image}", cache, {**index, "DOCKER_HOST": docker_host}, verify=False
    )
    layout = tmp_path / "a" / "out"
    without = build(tmp_path / "b", model, f"oci:{layout}", cache, index)
    assert without.exit_code == 0, f"{without.lines[-1]}\n{without.stderr}"
    assert "ran as a process" in without.result.verification.reason
    assert without.result.verification.rows == 4
    assert without.result.base_digest == with_engine.result.digest


def test_an_image_that_was_there_before_is_still_there_after_its_test(
    tmp_path: Path,
    docker_engine: docker.DockerClient,
    docker_host: str,
    python_base_image: str,
    cache: Path,
    index: dict[str, str],
    started: list[str],
) -> None:
    model = write_onnx_model(tmp_path / "m")
    environment = {**index, "DOCKER_HOST": docker_host}
    build(tmp_path / "a", model, f"docker:{python_base_image}", cache, environment, verify=False)
    docker_engine.images.load(docker_archive(tmp_path / "a" / "out", "packager-test:3"))
    started.append("packager-test:3")
    again = build(tmp_path / "b", model, f"docker:{python_base_image}", cache, environment)
    assert again.result.verification.rows == 4
    assert docker_engine.images.get("packager-test:3").tags == ["packager-test:3"]


def test_a_tag_that_the_engine_does_not_have_is_named(
    tmp_path: Path, docker_host: str, docker_engine: docker.DockerClient, cache: Path, index: dict[str, str]
) -> None:
    model = write_onnx_model(tmp_path / "m")
    built = build(tmp_path, model, "docker:nosuchimage:1", cache, {**index, "DOCKER_HOST": docker_host})
    assert (built.exit_code, built.problem_code) == (1, "base_unreadable")
    assert "nosuchimage:1" in built.problem_text
