"""Other people's tools push to and pull from a real server: skopeo, oras, and a Docker engine through the token flow."""

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
from oras.provider import Registry

from hedgerow.contracts.names import ARTIFACT_SBOM, MEDIA_MODEL_CONFIG
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
def oras(api: Api) -> Iterator[Registry]:
    """Sends a contributor's token with each request: its other way asks for a registry token once, and reads are first."""
    made = Registry(insecure=True, auth_backend="basic")
    made.auth.set_basic_auth("me", api.token("contributor"))
    yield made
    made.session.close()


def test_oras_pushes_a_model_and_pulls_it(server: RunningServer, api: Api, oras: Registry, tmp_path: Path) -> None:
    files = {"model.onnx": b"weights" * 50_000, "labels.txt": b"cat\ndog\n"}
    (tmp_path / "config.json").write_text('{"descriptor": {"name": "m"}}')
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    target = f"{address(server)}/from-oras:v1"
    config = f"{tmp_path / 'config.json'}:{MEDIA_MODEL_CONFIG}"
    pushed = oras.push(
        target,
        files=[str(tmp_path / name) for name in files],
        manifest_config=config,
        manifest_annotations={"org.example.by": "oras"},
        disable_path_validation=True,
        do_chunked=True,
        chunk_size=100_000,
        quiet=True,
    )
    made = api.get("/api/v1/images/from-oras:1").json()
    assert (made["digest"], made["kind"], made["tags"]) == (pushed.headers["docker-content-digest"], "onnx", {"oci.tag": "v1"})
    assert oras.get_tags(f"{address(server)}/from-oras") == ["1", "v1"]
    for name in (target, f"{address(server)}/from-oras@{made['digest']}"):
        tool = Registry(insecure=True, auth_backend="token")
        tool.auth.set_basic_auth("me", api.token("puller"))
        pulled = tool.pull(name, outdir=str(tmp_path / "out"))
        tool.session.close()
        assert {Path(path).name: Path(path).read_bytes() for path in pulled} == files


def test_oras_attaches_to_an_image(server: RunningServer, api: Api, oras: Registry) -> None:
    pusher, image = Pusher(api, "attached-to"), container(tar_of("a", b"x"))
    pusher.push(image, "1")
    beside = artifact(image, b"a report", "application/vnd.example.report")
    for content in beside.blobs:
        pusher.upload(content)
    # This client writes the manifest down itself, so its digest is that of what `requests` makes of it.
    manifest = json.loads(beside.manifest)
    digest = digest_of(json.dumps(manifest, allow_nan=False).encode())
    where = oras.get_container(f"{address(server)}/attached-to@{digest}")
    attached = oras.upload_manifest(manifest, where)
    assert (attached.status_code, attached.headers["oci-subject"]) == (201, image.digest)
    listed = pusher.get(f"referrers/{image.digest}", accept="*/*").json()["manifests"]
    assert [(one["digest"], one["artifactType"]) for one in listed] == [(digest, "application/vnd.example.report")]
    assert oras.get_manifest(where) == manifest


def test_oras_is_told_why_a_file_is_no_image(
    server: RunningServer, oras: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(ValueError, match="BAD REQUEST"):
        oras.push(
            f"{address(server)}/just-a-file:v1", files=[str(tmp_path / "notes.txt")], disable_path_validation=True, quiet=True
        )
    assert "an artifact of the type 'application/vnd.unknown.config.v1+json' is no image" in caplog.text


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
