"""Two platforms from one build on this machine: nothing is emulated to make the image of arm64, and it runs (emulated, here)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest

from hedgerow.contracts.names import MEDIA_OCI_INDEX
from hedgerow.contracts.oci import Descriptor
from packager.oci.blobs import BlobFolder
from packager.oci.export import export_image
from tests.packager_builders import model_of, read_json_blob, request_for, run_packager, write_base_layout, write_onnx_model
from tests.waiting import wait_for

# Newer ones crash under qemu's user emulation, and the container then hangs; on a real processor they run.
_EMULATED = ["onnxruntime==1.23.2"]
_TAG = "hedgerow-test-arm64:1"


@pytest.fixture
def tagged(docker_engine: docker.DockerClient) -> Iterator[str]:
    yield _TAG
    for container in docker_engine.containers.list(all=True, filters={"ancestor": _TAG}):
        container.remove(force=True)
    with contextlib.suppress(docker.errors.ImageNotFound):
        docker_engine.images.remove(_TAG, force=True)


@pytest.mark.usefixtures("arm64_emulation")
@pytest.mark.timeout(400)
def test_the_arm64_image_scores(
    tmp_path: Path,
    docker_engine: docker.DockerClient,
    docker_host: str,
    python_base_tar: Path,
    arm64_base_tar: Path,
    tagged: str,
) -> None:
    roots = {"linux/amd64": python_base_tar, "linux/arm64": arm64_base_tar}
    bases = {
        platform: f"oci:{write_base_layout(tmp_path / platform, tar, platform.partition('/')[2])}"
        for platform, tar in roots.items()
    }
    request = request_for(
        "docker",
        [model_of(write_onnx_model(tmp_path / "m"))],
        tmp_path,
        platforms=list(roots),
        bases=bases,
        requirements=_EMULATED,
        verify=True,
    )
    wanted = ("UV_", "SSL_CERT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "XDG_")
    index = {name: value for name, value in os.environ.items() if name.upper().startswith(wanted)}
    built = run_packager(request, tmp_path, {**index, "DOCKER_HOST": docker_host})
    assert built.exit_code == 0, f"{built.lines[-1]}\n{built.stderr}"
    result = built.result
    assert result.media_type == MEDIA_OCI_INDEX
    assert result.verification.state == "passed"
    assert "linux/arm64" in result.verification.reason, "which of them was not run is said"
    assert [one.platform for one in result.platforms] == list(roots)
    blobs, arm = BlobFolder(tmp_path / "out"), result.platforms[1]
    config = read_json_blob(tmp_path / "out", read_json_blob(tmp_path / "out", arm.digest)["config"]["digest"])
    assert (config["architecture"], config["os"]) == ("arm64", "linux")
    image = Descriptor(media_type="application/vnd.oci.image.manifest.v1+json", digest=arm.digest, size=0)
    docker_engine.images.load(export_image(blobs, image, tagged))
    container = docker_engine.containers.run(
        tagged, detach=True, ports={"5001/tcp": ("127.0.0.1", None)}, read_only=True, tmpfs={"/tmp": ""}, platform="linux/arm64"
    )

    def answer() -> list[float] | None:
        container.reload()
        assert container.status in ("created", "running"), container.logs().decode()
        published = container.ports.get("5001/tcp")
        if not published:
            return None
        url = f"http://127.0.0.1:{published[0]['HostPort']}/v2/models/adder/infer"
        rows = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 2.0, 3.0]}]}
        try:
            reply = httpx.post(url, json=rows, timeout=60)
        except httpx.TransportError:
            return None
        return reply.json()["outputs"][0]["data"] if reply.status_code == httpx.codes.OK else None

    assert wait_for(answer, timeout_s=180, what="the emulated container to score") == [2.0, 3.0, 4.0]
    machine = container.exec_run(["python3", "-c", "import platform; print(platform.machine())"])
    assert machine.output == b"aarch64\n"
