"""A workspace whose content lies in an object store: pushed to through ``/v2/``, pulled from, and pushed on elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hedgerow.contracts.names import ARTIFACT_SBOM
from tests.controller_process import Plane, add_image, plane
from tests.fixtures.oci_registry import OciRegistry
from tests.fixtures.s3_server import S3Server
from tests.oci_client import Pusher, artifact, container, digest_of, index, oci_code

LAYER = random.Random(5).randbytes(3_000_000)


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Iterator[S3Server]:
    with s3_server.bucket() as made:
        yield made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, bucket: S3Server) -> Iterator[Plane]:
    where = {
        "HEDGEROW_BLOBS": f"s3://{bucket.name}/ws",
        "HEDGEROW_BLOBS_ENDPOINT": bucket.url,
        "HEDGEROW_EGRESS_ALLOW": "127.0.0.1",
    }
    with plane(tmp_path_factory.mktemp("s3-plane"), environment=bucket.credentials | where) as running:
        yield running


@pytest.fixture
def http(made: Plane) -> Iterator[httpx.Client]:
    token = made.client.tokens.create("tool", role="contributor").secret
    with httpx.Client(base_url=made.client.info().url, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
        yield client


def test_what_is_pushed_lies_in_the_bucket_and_is_pulled_from_there(made: Plane, http: httpx.Client, bucket: S3Server) -> None:
    pusher, image, other = Pusher(http, "in-a-bucket"), container(LAYER), container(b"arm", architecture="arm64")
    location = pusher.begin().headers["location"]
    for at in range(0, len(LAYER), 1_000_000):
        assert pusher.chunk(location, LAYER[at : at + 1_000_000], at).status_code == 202
    assert pusher.finish(location, b"", digest_of(LAYER)).status_code == 201
    both = index(image, other)
    pusher.push(image)
    pusher.push(other)
    assert pusher.push(both, "stable").headers["docker-content-digest"] == both.digest
    pusher.push(artifact(both, b"sbom", ARTIFACT_SBOM))
    stored = " ".join(bucket.keys())
    assert all(digest.removeprefix("sha256:") in stored for digest in (digest_of(LAYER), image.digest, both.digest))
    assert not [path for path in made.folder.rglob("*") if path.is_file() and path.stat().st_size >= len(LAYER)]
    assert pusher.get("manifests/stable").content == both.manifest
    assert pusher.get(f"blobs/{digest_of(LAYER)}").content == LAYER
    part = pusher.get(f"blobs/{digest_of(LAYER)}", range="bytes=1500000-1500009")
    assert (part.status_code, part.content) == (206, LAYER[1_500_000:1_500_010])
    assert [one["artifactType"] for one in pusher.get(f"referrers/{both.digest}").json()["manifests"]] == [ARTIFACT_SBOM]


def test_what_is_refused_leaves_nothing_in_the_bucket(http: httpx.Client, bucket: S3Server) -> None:
    pusher, content = Pusher(http, "refused-in-a-bucket"), random.Random(6).randbytes(100_000)
    before = set(bucket.keys())
    wrong = pusher.finish(pusher.begin().headers["location"], content, digest_of(b"something else"))
    assert (wrong.status_code, oci_code(wrong)) == (400, "DIGEST_INVALID")
    cancelled = pusher.begin().headers["location"]
    pusher.chunk(cancelled, content)
    assert http.delete(cancelled).status_code == 204
    assert set(bucket.keys()) == before
    assert bucket.uploads() == []


def test_a_layer_is_mounted_from_next_door_without_being_stored_again(http: httpx.Client, bucket: S3Server) -> None:
    source, target = Pusher(http, "source-in-a-bucket"), Pusher(http, "target-in-a-bucket")
    image = container(b"one layer of the source")
    source.push(image, "1")
    before = sorted(bucket.keys())
    for content in image.blobs:
        assert target.begin(mount=digest_of(content), **{"from": "source-in-a-bucket"}).status_code == 201
    assert target.manifest(image, "1").status_code == 201
    assert sorted(bucket.keys()) == before


def test_an_image_of_the_bucket_is_pushed_elsewhere_and_back(
    made: Plane, bucket: S3Server, docker_registry: OciRegistry, tmp_path: Path
) -> None:
    image = add_image(made.client, tmp_path, name="from-a-bucket")
    elsewhere = made.client.images.push(image, f"{docker_registry.address}/from-a-bucket:1")
    sent = made.client.activities.wait(elsewhere.id).result
    record = made.client.images.get(image)
    accept = {"accept": record.media_type}
    there = httpx.get(f"http://{docker_registry.address}/v2/from-a-bucket/manifests/1", headers=accept)
    assert sent["digest"] == there.headers["docker-content-digest"] == record.digest
    token = made.client.tokens.create("pusher", role="contributor").secret
    ours = f"{httpx.URL(made.client.info().url).netloc.decode()}/back-in-a-bucket:1"
    back = made.client.images.push(image, ours, username="hedgerow", password=token)
    assert made.client.activities.wait(back.id).result["digest"] == record.digest
    assert made.client.images.get("back-in-a-bucket:1").digest == record.digest
    made.client.images.export("back-in-a-bucket:1", tmp_path / "image.tar")
    assert (tmp_path / "image.tar").stat().st_size > record.size_bytes
