"""Other people's tools push to and pull from a real server: skopeo, and a Docker engine through the token flow."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from hedgerow.contracts.names import ARTIFACT_SBOM
from tests.fixtures.oci_registry import OciRegistry
from tests.oci_client import Pusher, artifact, container, digest_of
from tests.registry_server import Api, RunningServer


def address(server: RunningServer) -> str:
    return server.url.removeprefix("http://")


def tar_of(name: str, content: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


def skopeo(binary: str, folder: Path, *arguments: str, fails: bool = False) -> str:
    policy = folder / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    argv = [binary, "--policy", str(policy), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stdout + done.stderr


def test_skopeo_copies_to_us_and_back(
    server: RunningServer, api: Api, skopeo_binary: str, docker_registry: OciRegistry, tmp_path: Path
) -> None:
    image = container(*(gzip.compress(tar_of(*one), mtime=0) for one in (("a", b"one"), ("b", b"two" * 400_000))))
    Pusher(api, "origin").push(image, "1")
    credential = f"anybody:{api.token('contributor')}"
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    elsewhere, ours = f"docker://{docker_registry.address}/origin:x", f"docker://{address(server)}"
    skopeo(skopeo_binary, tmp_path, "copy", *plain, f"--src-creds={credential}", f"{ours}/origin:1", elsewhere)
    skopeo(skopeo_binary, tmp_path, "copy", *plain, f"--dest-creds={credential}", elsewhere, f"{ours}/returned:v1")
    made = api.get("/api/v1/images/returned:1").json()
    assert (made["digest"], made["tags"]) == (image.digest, {"oci.tag": "v1"})
    skopeo(skopeo_binary, tmp_path, "copy", *plain, f"--dest-creds={credential}", elsewhere, f"{ours}/returned:v1")
    assert Pusher(api, "returned").tags() == ["1", "v1"]
    told = skopeo(skopeo_binary, tmp_path, "inspect", "--tls-verify=false", f"--creds={credential}", f"{ours}/returned:v1")
    assert json.loads(told)["RepoTags"] == ["1", "v1"]


def test_skopeo_with_a_credential_that_may_not(server: RunningServer, api: Api, skopeo_binary: str, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    image = container(tar_of("a", b"alone"))
    Pusher(api, "closed").push(image, "1")
    here, plain = f"docker://{address(server)}/closed", ("--src-tls-verify=false", "--dest-tls-verify=false")
    reader = f"anybody:{api.token('reader')}"
    skopeo(skopeo_binary, tmp_path, "copy", *plain, f"--src-creds={reader}", f"{here}:1", f"oci:{layout}:1")
    said = skopeo(skopeo_binary, tmp_path, "copy", *plain, f"--dest-creds={reader}", f"oci:{layout}:1", f"{here}:2", fails=True)
    assert "denied" in said or "role" in said, said
    wrong = skopeo(skopeo_binary, tmp_path, "copy", *plain, "--src-creds=a:b", f"{here}:1", f"oci:{layout}:2", fails=True)
    assert "unauthorized" in wrong or "invalid username/password" in wrong, wrong
    assert Pusher(api, "closed").tags() == ["1"]


def test_skopeo_pulls_what_lies_beside_an_image(server: RunningServer, api: Api, skopeo_binary: str, tmp_path: Path) -> None:
    pusher, image = Pusher(api, "with-sbom"), container(tar_of("a", b"x"))
    pusher.push(image, "1")
    beside = artifact(image, b'{"bomFormat":"CycloneDX"}', ARTIFACT_SBOM)
    pusher.push(beside)
    listed = pusher.get(f"referrers/{image.digest}").json()["manifests"]
    source = f"docker://{address(server)}/with-sbom@{listed[0]['digest']}"
    credential = f"--src-creds=x:{api.token('puller')}"
    skopeo(skopeo_binary, tmp_path, "copy", "--src-tls-verify=false", credential, source, f"dir:{tmp_path / 'sbom'}")
    assert (tmp_path / "sbom" / digest_of(b'{"bomFormat":"CycloneDX"}')[7:]).read_bytes() == b'{"bomFormat":"CycloneDX"}'


@pytest.fixture
def engine(docker_engine: docker.DockerClient) -> Iterator[docker.DockerClient]:
    """Without the images that a test left behind."""
    before = {image.id for image in docker_engine.images.list(all=True)}
    yield docker_engine
    for image in docker_engine.images.list(all=True):
        if image.id not in before:
            docker_engine.images.remove(image.id, force=True)


def test_docker_logs_in_pushes_and_pulls(server: RunningServer, api: Api, engine: docker.DockerClient) -> None:
    loaded = engine.api.import_image_from_data(tar_of("hello", b"from docker" * 100_000), repository="pushed-by-docker")
    name = f"{address(server)}/from-docker"
    engine.api.tag(json.loads(loaded.splitlines()[-1])["status"], name, "v1")
    credential = {"username": "me", "password": api.token("contributor")}
    assert engine.login(registry=address(server), **credential)["Status"] == "Login Succeeded"
    with pytest.raises(docker.errors.APIError, match=r"unauthorized|incorrect|Unauthorized"):
        engine.login(registry=address(server), username="me", password="wrong", reauth=True)
    pushed = [*engine.api.push(name, "v1", stream=True, decode=True, auth_config=credential)]
    assert not [line for line in pushed if "error" in line], pushed
    made = api.get("/api/v1/images/from-docker:1").json()
    assert (made["kind"], made["tags"]) == ("docker", {"oci.tag": "v1"})
    refused = [*engine.api.push(name, "v1", stream=True, decode=True, auth_config=credential | {"password": api.token("reader")})]
    assert [line for line in refused if "error" in line], refused
    engine.images.remove(f"{name}:v1", force=True)
    pulled = engine.images.pull(name, "v1", auth_config={"username": "me", "password": api.token("puller")})
    assert pulled.attrs["RepoDigests"] == [f"{name}@{made['digest']}"]
