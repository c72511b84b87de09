"""``hedgerow image export`` and ``load``: one tar for everybody, checked on the way, there whole or not at all."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import docker
import httpx
import pytest
from click.testing import CliRunner

from hedgerow.cli.main import cli
from hedgerow.contracts.names import ARTIFACT_SBOM, MEDIA_MODEL_CONFIG, MEDIA_MODEL_MANIFEST
from hedgerow.contracts.oci_layout import blob_path
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError, DownloadDamaged, EngineUnreachable, ImageNotLoadable, NoSuchPlatform, OutputExists
from hedgerow.sdk.transport import Transport
from tests.oci_client import Image, Pusher, artifact, container, digest_of, image_of, index
from tests.registry_server import Api, RunningServer


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(Transport(server.url, server.owner_token)) as made:
        yield made


def layer(name: str, content: bytes = b"content") -> tuple[bytes, bytes]:
    """A tar, and what a layer has of it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return data.getvalue(), gzip.compress(data.getvalue(), mtime=0)


def runnable(*names: str, architecture: str = "amd64") -> Image:
    """One that an engine takes: its config names the layers as they are unpacked."""
    layers = [layer(name) for name in names]
    rootfs = {"type": "layers", "diff_ids": [digest_of(plain) for plain, _ in layers]}
    config = json.dumps({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    return image_of(config, "application/vnd.oci.image.config.v1+json", [packed for _, packed in layers])


def onnx_artifact() -> Image:
    body = json.dumps({"descriptor": {"name": "m"}}).encode()
    return image_of(body, MEDIA_MODEL_CONFIG, [b"model"], artifactType=MEDIA_MODEL_MANIFEST)


def skopeo(binary: str, folder: Path, *arguments: str) -> str:
    policy = folder / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    done = subprocess.run([binary, "--policy", str(policy), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_image_is_the_same_file_and_oci_tools_read_it(
    api: Api, client: Client, skopeo_binary: str, tmp_path: Path
) -> None:
    image = runnable("a", "b")
    pusher = Pusher(api, "portable")
    pusher.push(image, "1")
    pusher.push(artifact(image, b"sbom", ARTIFACT_SBOM))
    assert [(one.artifact_type, one.subject) for one in client.images.referrers("portable")] == [(ARTIFACT_SBOM, image.digest)]
    assert client.images.referrers("portable:1", "text/plain") == []
    seen: list[tuple[int, int]] = []
    saved = client.images.export("portable", tmp_path / "one.tar", on_progress=lambda *told: seen.append(told))
    assert (saved.image, saved.digest, saved.size_bytes) == ("portable:1", image.digest, (tmp_path / "one.tar").stat().st_size)
    assert seen[-1][0] == seen[-1][1] > 0
    stream = io.BytesIO()
    client.images.export("portable:1", stream)
    assert stream.getvalue() == (tmp_path / "one.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        members = tar.getmembers()
        assert {(one.mtime, one.uid, one.gid, one.mode, one.uname) for one in members} == {(0, 0, 0, 0o644, "")}
    copied = f"oci-archive:{tmp_path / 'one.tar'}"
    skopeo(skopeo_binary, tmp_path, "copy", copied, f"dir:{tmp_path / 'copy'}")
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == image.manifest
    told = json.loads(skopeo(skopeo_binary, tmp_path, "inspect", f"docker-archive:{tmp_path / 'one.tar'}"))
    assert len(told["Layers"]) == 2
    # It is the writer's of a build, too: what was exported can be a base.
    from packager.oci.layout import find_manifest

    with tarfile.open(tmp_path / "one.tar") as tar:
        tar.extractall(tmp_path / "layout", filter="data")
    assert find_manifest(tmp_path / "layout", None).digest == image.digest


def test_what_lies_beside_an_image_goes_with_it(api: Api, client: Client, skopeo_binary: str, tmp_path: Path) -> None:
    image = runnable("beside")
    other = runnable("other", architecture="arm64")
    both, pusher = index(image, other), Pusher(api, "accompanied")
    pusher.push(image)
    pusher.push(other)
    pusher.push(both, "1")
    sbom, proof = artifact(both, b"sbom", ARTIFACT_SBOM), artifact(image, b"proof", "application/vnd.example.proof", author="me")
    signature = artifact(sbom, b"signed", "application/vnd.example.signature")
    for one in (sbom, proof, signature):
        pusher.push(one)
    client.images.export("accompanied", tmp_path / "with.tar", referrers=True)
    client.images.export("accompanied", tmp_path / "without.tar")
    client.images.export("accompanied", tmp_path / "platform.tar", platform="linux/amd64", referrers=True)
    listed = index_of(tmp_path / "with.tar")
    assert [one["digest"] for one in listed] == [both.digest, *sorted(one.digest for one in (sbom, proof, signature))]
    described = {one["digest"]: (one.get("artifactType"), one.get("annotations")) for one in listed}
    assert described[sbom.digest] == (ARTIFACT_SBOM, None)
    assert described[proof.digest] == ("application/vnd.example.proof", {"author": "me"})
    assert [one["digest"] for one in index_of(tmp_path / "without.tar")] == [both.digest]
    assert [one["digest"] for one in index_of(tmp_path / "platform.tar")] == [image.digest, proof.digest]
    with tarfile.open(tmp_path / "with.tar") as tar:
        tar.extractall(tmp_path / "layout", filter="data")
    for content in (b"sbom", b"proof", b"signed", sbom.manifest, image.manifest):
        assert (tmp_path / "layout" / blob_path(digest_of(content))).read_bytes() == content
    for name in ("with.tar:1", "without.tar"):
        skopeo(skopeo_binary, tmp_path, "copy", "--all", f"oci-archive:{tmp_path / name}", f"dir:{tmp_path / name}-copy")
        assert (tmp_path / f"{name}-copy" / "manifest.json").read_bytes() == both.manifest


def index_of(file: Path) -> list[dict[str, Any]]:
    """What the index.json of an exported image names."""
    with tarfile.open(file) as tar:
        found = tar.extractfile("index.json")
        assert found is not None
        return list(json.load(found)["manifests"])


def test_one_platform_of_several(api: Api, client: Client, tmp_path: Path) -> None:
    amd64, arm64 = runnable("for-amd64"), runnable("for-arm64", architecture="arm64")
    both = index(amd64, arm64)
    for image in (amd64, arm64, both):
        Pusher(api, "platforms").push(image, "1" if image is both else None)
    client.images.export("platforms", tmp_path / "all.tar")
    client.images.export("platforms", tmp_path / "arm64.tar", platform="linux/arm64")
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert {f"blobs/sha256/{one.digest[7:]}" for one in (amd64, arm64, both)} < set(tar.getnames())
    with tarfile.open(tmp_path / "arm64.tar") as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        assert [one["digest"] for one in json.load(file)["manifests"]] == [arm64.digest]
        assert f"blobs/sha256/{amd64.digest[7:]}" not in tar.getnames()
    with pytest.raises(NoSuchPlatform, match=r"linux/amd64, linux/arm64"):
        client.images.export("platforms", tmp_path / "none.tar", platform="linux/s390x")
    assert not (tmp_path / "none.tar").exists()


def test_nothing_is_overwritten_unasked(api: Api, client: Client, tmp_path: Path) -> None:
    Pusher(api, "once").push(runnable("x"), "1")
    file = tmp_path / "image.tar"
    file.write_text("mine")
    for place in (file, tmp_path):
        with pytest.raises(OutputExists):
            client.images.export("once", place)
    assert file.read_text() == "mine"
    client.images.export("once", file, replace=True)
    assert tarfile.is_tarfile(file)


def test_a_damaged_blob_leaves_no_file(api: Api, client: Client, server: RunningServer, tmp_path: Path) -> None:
    image = container(b"layer that rots" * 1000)
    Pusher(api, "rotten").push(image, "1")
    digest = digest_of(image.blobs[1])
    path = next((server.workspace / "blobs" / "sha256").glob(f"*/{digest[7:]}"))
    path.chmod(0o600)
    path.write_bytes(b"LAYER" + image.blobs[1][5:])
    with pytest.raises(ApiError, match="is damaged on disk"):
        client.images.export("rotten", tmp_path / "rotten.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_docker_engine_takes_it(
    api: Api, client: Client, docker_engine: docker.DockerClient, docker_host: str, tmp_path: Path
) -> None:
    image = runnable("hello")
    Pusher(api, "loaded-by-us").push(image, "1")
    Pusher(api, "loaded-by-us").push(artifact(image, b"sbom", ARTIFACT_SBOM))
    loaded = client.images.load("loaded-by-us", engine=docker_host)
    try:
        assert (loaded.tag, loaded.digest) == ("loaded-by-us:1", image.digest)
        there = docker_engine.images.get("loaded-by-us:1")
        assert loaded.id == there.id == digest_of(image.blobs[0])
        docker_engine.images.remove("loaded-by-us:1", force=True)
        client.images.export("loaded-by-us", tmp_path / "image.tar", referrers=True)
        assert len(index_of(tmp_path / "image.tar")) == 2
        with (tmp_path / "image.tar").open("rb") as file:
            assert docker_engine.images.load(file)[0].id == loaded.id
    finally:
        docker_engine.images.remove(loaded.id, force=True)


def test_what_no_engine_takes(api: Api, client: Client, docker_host: str, tmp_path: Path) -> None:
    Pusher(api, "for-devices").push(onnx_artifact(), "1")
    assert client.images.get("for-devices").kind == "onnx"
    with pytest.raises(ImageNotLoadable, match="onnx"):
        client.images.load("for-devices", engine=docker_host)
    client.images.export("for-devices", tmp_path / "artifact.tar")
    with tarfile.open(tmp_path / "artifact.tar") as tar:
        assert "manifest.json" not in tar.getnames()
    Pusher(api, "for-arm").push(runnable("x", architecture="arm64"))
    Pusher(api, "for-arm").push(runnable("y", architecture="s390x"))
    two = index(runnable("x", architecture="arm64"), runnable("y", architecture="s390x"))
    relabelled = two.manifest.replace(b'"amd64"', b'"mips64"').replace(b'"arm64"', b'"s390x"')
    Pusher(api, "for-arm").push(Image(relabelled, [], two.media_type), "1")
    with pytest.raises(NoSuchPlatform):
        client.images.load("for-arm", engine=docker_host)


def test_no_engine(api: Api, client: Client, tmp_path: Path) -> None:
    Pusher(api, "no-engine").push(runnable("x"), "1")
    for host in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(EngineUnreachable) as raised:
            client.images.load("no-engine", engine=host)
        assert host in raised.value.sentence()
        assert "--engine" in raised.value.sentence()
        assert ("nothing answers there (Connection refused)." in raised.value.sentence()) == host.startswith("tcp:")


def test_a_folder_that_is_not_there_is_named_without_our_temporary_file(api: Api, client: Client, tmp_path: Path) -> None:
    Pusher(api, "nowhere").push(runnable("x"), "1")
    with pytest.raises(FileNotFoundError) as missing:
        client.images.export("nowhere", tmp_path / "folder" / "image.tar")
    assert missing.value.filename == str(tmp_path / "folder")


def test_the_command_line(api: Api, server: RunningServer, docker_host: str, tmp_path: Path) -> None:
    image = runnable("cli")
    Pusher(api, "by-hand").push(image, "1")
    environment = {"HEDGEROW_URL": server.url, "HEDGEROW_TOKEN": server.owner_token}
    run = CliRunner(env=environment).invoke
    file = tmp_path / "by-hand.tar"
    written = run(cli, ["image", "export", "by-hand", str(file)])
    assert (written.exit_code, "by-hand:1" in written.output) == (0, True), written.output
    again = run(cli, ["image", "export", "by-hand", str(file)])
    assert isinstance(again.exception, OutputExists)
    assert json.loads(run(cli, ["image", "export", "by-hand:1", str(file), "--force", "--json"]).stdout)["digest"] == image.digest
    assert run(cli, ["image", "export", "by-hand", "-"]).stdout_bytes == file.read_bytes()
    Pusher(api, "by-hand").push(artifact(image, b"sbom", ARTIFACT_SBOM))
    assert ARTIFACT_SBOM in run(cli, ["image", "show", "by-hand"]).output
    assert run(cli, ["image", "export", "absent", "-"]).exit_code == 1
    loaded = run(cli, ["image", "load", "by-hand", "--engine", docker_host])
    assert (loaded.exit_code, "by-hand:1" in loaded.output) == (0, True), loaded.output
    engine = docker.DockerClient(base_url=docker_host)
    engine.images.remove("by-hand:1", force=True)
    engine.close()


class PoorLink(BaseHTTPRequestHandler):
    """Passes requests on; ``plan`` says what happens to the next answers for blobs: "cut" in the middle, or one byte "wrong"."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    plan: ClassVar[list[str]] = []
    ranges: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        sent = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        answered = httpx.get(self.upstream + self.path, headers=sent)
        content = answered.content
        self.send_response(answered.status_code)
        for name, value in answered.headers.items():
            if name in ("content-type", "content-range", "content-length", "etag"):
                self.send_header(name, value)
        self.end_headers()
        fate = self.plan.pop(0) if "/blobs/" in self.path and self.plan else ""
        if "/blobs/" in self.path:
            self.ranges.append(self.headers.get("range", ""))
        if fate == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.wfile.write(content[: len(content) // 2] if fate == "cut" else content)
        self.close_connection = fate == "cut"

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def poor_link(server: RunningServer) -> Iterator[Client]:
    PoorLink.upstream, PoorLink.plan[:], PoorLink.ranges[:] = server.url, [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), PoorLink) as proxy:
        serving = Thread(target=proxy.serve_forever)
        serving.start()
        try:
            with Client(Transport(f"http://127.0.0.1:{proxy.server_address[1]}", server.owner_token)) as client:
                yield client
        finally:
            proxy.shutdown()
            serving.join()


def test_an_export_goes_on_after_a_break(api: Api, client: Client, poor_link: Client, tmp_path: Path) -> None:
    image = container(b"0123456789" * 400_000)
    Pusher(api, "over-poor-link").push(image, "1")
    PoorLink.plan[:] = ["cut", "cut"]
    poor_link.images.export("over-poor-link", tmp_path / "poor.tar")
    client.images.export("over-poor-link", tmp_path / "good.tar")
    assert (tmp_path / "poor.tar").read_bytes() == (tmp_path / "good.tar").read_bytes()
    assert len(PoorLink.ranges) == 4
    assert [one for one in PoorLink.ranges if not one.startswith("bytes=0-")] != [], "only the rest was asked for"


def test_content_that_changed_on_the_way_leaves_no_file(api: Api, poor_link: Client, tmp_path: Path) -> None:
    Pusher(api, "changed").push(container(b"layer of an image"), "1")
    PoorLink.plan[:] = ["wrong"]
    with pytest.raises(DownloadDamaged, match="another content"):
        poor_link.images.export("changed", tmp_path / "image.tar")
    assert list(tmp_path.iterdir()) == []


def test_an_image_is_not_written_to_a_terminal() -> None:
    mine, terminal = os.openpty()
    with os.fdopen(mine), os.fdopen(terminal, "w") as stdout:
        argv = [sys.executable, "-c", "from hedgerow.cli.main import main; main()", "image", "export", "churn", "-"]
        ended = subprocess.run(argv, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "A terminal cannot show an image: name a FILE" in " ".join(ended.stderr.split())
