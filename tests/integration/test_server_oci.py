"""The OCI pull API as container tools and devices use it, on a real server."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest

from hedgerow.contracts.image import ImageRecord, PlatformImage
from hedgerow.contracts.names import MEDIA_OCI_CONFIG, MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_MANIFEST
from registry.store import images, tokens
from registry.store.database import Database, open_database
from registry.store.tables import desired_images, devices
from registry.store.time_text import to_text
from tests.fixtures.parts import program
from tests.registry_server import Api, RunningServer
from tests.registry_stores import NOW


@dataclass
class Stored:
    """An image in the registry: a real OCI manifest over a config and one layer."""

    name: str
    version: int
    manifest: bytes
    digest: str
    layer: bytes
    layer_digest: str


@pytest.fixture(scope="module")
def database(server: RunningServer) -> Iterator[Database]:
    opened = open_database(None, server.workspace)
    yield opened
    opened.close()


def store_image(api: Api, database: Database, name: str, layer: bytes) -> Stored:
    config = api.upload(
        json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    )
    content = api.upload(layer)
    manifest = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_OCI_MANIFEST,
            "config": {"mediaType": MEDIA_OCI_CONFIG, "digest": config.digest, "size": config.size_bytes},
            "layers": [{"mediaType": MEDIA_OCI_LAYER_GZIP, "digest": content.digest, "size": content.size_bytes}],
        }
    )
    top = api.upload(manifest)
    with database.write() as connection:
        version = images.next_version(connection, name)
        record = ImageRecord(
            name=name,
            version=version,
            kind="docker",
            digest=top.digest,
            media_type=MEDIA_OCI_MANIFEST,
            size_bytes=top.size_bytes,
            platforms=[PlatformImage(platform="linux/amd64", digest=top.digest, size_bytes=top.size_bytes)],
            models=[],
            tool_version="test",
            created_at=NOW,
        )
        parts = [
            (top.digest, MEDIA_OCI_MANIFEST),
            (config.digest, MEDIA_OCI_CONFIG),
            (content.digest, MEDIA_OCI_LAYER_GZIP),
        ]
        images.insert(connection, record, parts)
    return Stored(name, version, manifest, top.digest, layer, content.digest)


def test_a_damaged_layer_is_not_handed_out(api: Api, server: RunningServer, database: Database) -> None:
    image = store_image(api, database, "rotten", b"layer of the rotten image")
    path = next((server.workspace / "blobs" / "sha256").glob(f"*/{image.layer_digest.removeprefix('sha256:')}"))
    path.chmod(0o600)
    path.write_bytes(b"LAYER" + image.layer[5:])
    for headers in ({}, {"range": "bytes=6-9"}):
        answered = api.get(f"/v2/rotten/blobs/{image.layer_digest}", headers=headers)
        assert (answered.status_code, b"damaged" in answered.content) == (503, True)


def device_token(database: Database, uuid: str, *wanted: Stored) -> str:
    """The token of a device whose desired state names these images."""
    with database.write() as connection:
        connection.execute(devices.insert().values(uuid=uuid, name=uuid, tags="{}", key_generation=1, enrolled_at=to_text(NOW)))
        for image in wanted:
            connection.execute(
                desired_images.insert().values(
                    device_uuid=uuid, module=image.name, image_name=image.name, image_version=image.version
                )
            )
        return tokens.create(connection, name=uuid, role="device", subject=uuid, now=NOW).secret or ""


def oci_code(answered: httpx.Response) -> str:
    body = answered.json()
    assert body.keys() == {"errors"}, answered.text
    return str(body["errors"][0]["code"])


def test_a_pull_step_by_step(server: RunningServer, api: Api, database: Database) -> None:
    image = store_image(api, database, "steps", b"layer" * 1000)
    with httpx.Client(base_url=server.url) as docker:
        invited = docker.get("/v2/")
        assert (invited.status_code, oci_code(invited)) == (401, "UNAUTHORIZED")
        assert invited.headers["www-authenticate"].startswith(f'Bearer realm="{server.url}/v2/token"')
        docker.auth = ("anybody", api.token("puller"))
        assert docker.get("/v2/").headers["docker-distribution-api-version"] == "registry/2.0"
        for reference in ("1", "latest", image.digest):
            for method in ("HEAD", "GET"):
                answered = docker.request(method, f"/v2/steps/manifests/{reference}")
                assert answered.status_code == 200, answered.text
                assert answered.headers["content-type"] == MEDIA_OCI_MANIFEST
                assert answered.headers["docker-content-digest"] == image.digest
                assert answered.headers["content-length"] == str(len(image.manifest))
                assert answered.content == (image.manifest if method == "GET" else b"")
        assert docker.get(f"/v2/steps/blobs/{image.layer_digest}").content == image.layer
        part = docker.get(f"/v2/steps/blobs/{image.layer_digest}", headers={"range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, b"layer")


def test_tags(api: Api, database: Database) -> None:
    for number in range(11):
        store_image(api, database, "tagged", b"layer %d" % number)
    lexical = ["1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert api.get("/v2/tagged/tags/list").json() == {"name": "tagged", "tags": lexical}
    first = api.get("/v2/tagged/tags/list", params={"n": 4})
    assert first.json()["tags"] == lexical[:4]
    following = first.headers["link"].partition(">")[0].removeprefix("<")
    assert api.get(following).json()["tags"] == lexical[4:8]
    assert (
        api.get("/v2/tagged/manifests/latest").headers["docker-content-digest"]
        != api.get("/v2/tagged/manifests/9").headers["docker-content-digest"]
    )


def test_what_is_not_there(api: Api, database: Database) -> None:
    image = store_image(api, database, "present", b"layer")
    expected = {
        "/v2/absent/tags/list": (404, "NAME_UNKNOWN"),
        "/v2/absent/manifests/1": (404, "MANIFEST_UNKNOWN"),
        "/v2/present/manifests/2": (404, "MANIFEST_UNKNOWN"),
        "/v2/present/manifests/x": (404, "MANIFEST_UNKNOWN"),
        # A layer is no manifest, and another image's layer is not this one's.
        f"/v2/present/manifests/{image.layer_digest}": (404, "MANIFEST_UNKNOWN"),
        f"/v2/absent/blobs/{image.layer_digest}": (404, "BLOB_UNKNOWN"),
        "/v2/present/blobs/sha256:abc": (404, "BLOB_UNKNOWN"),
        "/v2/UPPER/manifests/1": (400, "NAME_INVALID"),
        "/v2/_catalog?n=x": (400, "UNSUPPORTED"),
        "/v2/a/b/c/manifests/1": (404, "NAME_UNKNOWN"),
        "/v2/present/tags/list?n=x": (400, "UNSUPPORTED"),
    }
    assert {path: (answered.status_code, oci_code(answered)) for path in expected for answered in [api.get(path)]} == expected


def test_the_catalog_names_images_and_models(server: RunningServer, api: Api, database: Database) -> None:
    for name in ("c-zebra", "c.zebra", "models", "zoo", "a"):
        store_image(api, database, name, b"layer of " + name.encode())
    for name in ("iris", "a-model"):
        api.register(name, api.upload(b"weights"))
    everything = api.get("/v2/_catalog").json()["repositories"]
    assert everything == sorted(everything)
    assert {"c-zebra", "c.zebra", "models", "models/a-model", "models/iris", "zoo"} <= set(everything)
    paged, path = [], "/v2/_catalog?n=2"
    while path:
        page = api.get(path)
        paged += page.json()["repositories"]
        path = page.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert paged == everything
    with server.client(device_token(database, "d-catalog", store_image(api, database, "c-device", b"x"))) as device:
        assert device.get("/v2/_catalog").status_code == 403
    with server.client(api.token("puller", scopes=["images:*"])) as scoped:
        assert scoped.get("/v2/_catalog").status_code == 403


def test_a_device_pulls_what_its_desired_state_names(server: RunningServer, api: Api, database: Database) -> None:
    wanted = store_image(api, database, "fleet-image", b"layer one")
    other_version = store_image(api, database, "fleet-image", b"layer two")
    other_image = store_image(api, database, "secret-image", b"layer three")
    mine, theirs = device_token(database, "d-1", wanted), device_token(database, "d-2", other_image)
    with server.client(mine) as device:
        assert device.get(f"/v2/fleet-image/manifests/{wanted.digest}").content == wanted.manifest
        assert device.get(f"/v2/fleet-image/blobs/{wanted.layer_digest}").content == b"layer one"
        assert device.get("/v2/fleet-image/tags/list").json()["tags"] == ["1"]
        for path in (
            "/v2/fleet-image/manifests/2",
            f"/v2/fleet-image/manifests/{other_version.digest}",
            f"/v2/fleet-image/blobs/{other_version.layer_digest}",
            f"/v2/secret-image/manifests/{other_image.digest}",
            "/v2/secret-image/tags/list",
            # Not even under a name that it may use.
            f"/v2/fleet-image/blobs/{other_image.layer_digest}",
        ):
            assert device.get(path).status_code == 404, path
        for path in ("/api/v1/models", f"/api/v1/blobs/{wanted.layer_digest}", "/", "/api/v1/tokens"):
            assert device.get(path).status_code == 403, path
        assert device.put(f"/api/v1/blobs/{wanted.layer_digest}", content=b"x").status_code in (403, 415)
    with server.client(theirs) as device:
        assert device.get(f"/v2/fleet-image/manifests/{wanted.digest}").status_code == 404
    with database.write() as connection:
        connection.execute(desired_images.delete())
    with server.client(mine) as device:
        assert device.get(f"/v2/fleet-image/manifests/{wanted.digest}").status_code == 404, "no longer wanted, no longer given"


def test_skopeo_copies_an_image(server: RunningServer, api: Api, database: Database, tmp_path: Path) -> None:
    image = store_image(api, database, "copied", b"\x1f\x8b layer of no real archive")
    address = server.url.removeprefix("http://")
    argv = [
        program("skopeo"),
        "--policy",
        str(_any_policy(tmp_path)),
        "copy",
        "--src-tls-verify=false",
        f"--src-creds=anybody:{api.token('puller')}",
        f"docker://{address}/copied:1",
        f"dir:{tmp_path / 'copy'}",
    ]
    copied = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert copied.returncode == 0, copied.stderr
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == image.manifest
    assert (tmp_path / "copy" / image.layer_digest.removeprefix("sha256:")).read_bytes() == image.layer


def _any_policy(folder: Path) -> Path:
    policy = folder / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return policy


def test_basic_credentials_that_are_none(server: RunningServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        for text in (
            "Basic !!!",
            "Basic " + base64.b64encode(b"nocolon").decode(),
            "Basic " + base64.b64encode(b"a:b").decode(),
            "Digest x",
        ):
            answered = client.get("/v2/", headers={"authorization": text})
            assert (answered.status_code, oci_code(answered)) == (401, "UNAUTHORIZED"), text
