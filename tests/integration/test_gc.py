"""``hedgerow gc`` from the command to the freed disk, with a real server and controller, on both databases and on S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hedgerow.contracts.api import CollectedGarbage
from hedgerow.sdk.blobs import freed_by, upload_missing
from hedgerow.sdk.errors import ActivityFailed, ApiError
from hedgerow.sdk.files import collect
from tests.controller_process import Plane, add_model, plane
from tests.fixtures.s3_server import S3Server
from tests.registry_stores import BACKENDS
from tests.waiting import wait_for

NO_LEASE = {"HEDGEROW_BLOB_LEASE_S": "0"}


@pytest.fixture(params=BACKENDS)
def running(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    with plane(tmp_path, database=url, environment=NO_LEASE) as made:
        yield made


def garbage(running: Plane, folder: Path, count: int) -> list[Path]:
    """Uploaded content that nothing refers to."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}").write_bytes(os.urandom(1000))
    upload_missing(running.client.transport, collect([folder]))
    return [blob_file(running.folder, file.entry.digest) for file in collect([folder])]


def blob_file(workspace: Path, digest: str) -> Path:
    hexadecimal = digest.removeprefix("sha256:")
    return workspace / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal


def collected(running: Plane, *, dry_run: bool = False) -> CollectedGarbage:
    client = running.client
    return freed_by(client.activities.wait(client.blobs.collect_garbage(dry_run=dry_run).id))


def hedgerow(running: Plane, *words: str) -> str:
    argv = [str(Path(sys.executable).with_name("hedgerow")), "-w", str(running.folder), *words]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_command_says_what_would_go_and_then_what_went(running: Plane, tmp_path: Path) -> None:
    lost = garbage(running, tmp_path / "lost", 25)
    kept = tmp_path / "kept"
    kept.write_bytes(b"weights")
    manifest = running.client.models.register("kept", kept)
    lines = hedgerow(running, "gc", "--dry-run").splitlines()
    assert lines[-1] == "Would free 25 blobs (25.0 kB)"
    assert lines[-2] == "and 5 more"
    assert len(lines) == 22
    assert all(path.exists() for path in lost)
    freed = json.loads(hedgerow(running, "gc", "--json"))
    assert (freed["blobs"], freed["size_bytes"], freed["dry_run"], len(freed["first"])) == (25, 25_000, False, 20)
    assert not any(path.exists() for path in lost)
    assert blob_file(running.folder, manifest.files[0].digest).exists()
    assert hedgerow(running, "gc") == "Freed 0 blobs (0 B)\n"
    running.client.models.delete("kept:1")
    assert collected(running).size_bytes == 7
    assert running.client.activities.list().items[0].kind == "blobs.collect"


def test_a_collection_that_is_killed_is_done_again_by_the_next_controller(running: Plane, tmp_path: Path) -> None:
    lost = garbage(running, tmp_path / "lost", 600)
    running.controller.stop()
    activity = running.client.blobs.collect_garbage()
    running.start_controller()
    wait_for(lambda: not all(path.exists() for path in lost), timeout_s=30, what="the collection to begin deleting")
    running.controller.kill()
    running.start_controller()
    ended = running.client.activities.wait(activity.id)
    assert ended.state == "succeeded"
    assert not any(path.exists() for path in lost)


def test_two_collections_asked_for_at_once_go_one_after_the_other(running: Plane, tmp_path: Path) -> None:
    lost = garbage(running, tmp_path / "lost", 3)
    running.controller.stop()
    first, second = (running.client.blobs.collect_garbage() for _ in range(2))
    assert first.id != second.id
    running.start_controller()
    running.client.activities.wait(first.id)
    # One after the other: the second finds nothing left.
    assert freed_by(running.client.activities.wait(second.id)).blobs == 0
    assert not any(path.exists() for path in lost)


def test_contents_on_s3_come_back_checked_and_are_collected(tmp_path: Path, s3_server: S3Server) -> None:
    with s3_server.bucket() as bucket:
        environment = (
            NO_LEASE | bucket.credentials | {"HEDGEROW_BLOBS": f"s3://{bucket.name}/ws", "HEDGEROW_BLOBS_ENDPOINT": bucket.url}
        )
        with plane(tmp_path, environment=environment) as running:
            content = os.urandom(20_000_000)
            (tmp_path / "m.bin").write_bytes(content)
            manifest = running.client.models.register("far", tmp_path / "m.bin")
            (path,) = running.client.models.download("far", tmp_path / "out")
            assert path.read_bytes() == content
            garbage(running, tmp_path / "lost", 5)
            assert len(bucket.keys()) == 6
            assert not (running.folder / "blobs" / "sha256").exists()
            freed = collected(running)
            assert (freed.blobs, freed.size_bytes) == (5, 5000)
            (key,) = bucket.keys()
            assert key.endswith(manifest.files[0].digest.removeprefix("sha256:"))
            bucket.put(key, content[:-1] + b"x" if content[-1:] != b"x" else content[:-1] + b"y")
            with pytest.raises(ApiError) as refused:
                running.client.models.download("far", tmp_path / "again")
            assert refused.value.problem.code == "blob_damaged"


def test_an_image_is_built_from_contents_on_s3_and_pulled_checked(tmp_path: Path, s3_server: S3Server) -> None:
    with s3_server.bucket() as bucket:
        environment = bucket.credentials | {"HEDGEROW_BLOBS": f"s3://{bucket.name}/ws", "HEDGEROW_BLOBS_ENDPOINT": bucket.url}
        with plane(tmp_path, environment=environment) as running:
            client = running.client
            reference = add_model(client, tmp_path / "m")
            client.activities.wait(client.images.build("doubling", [reference]).id)
            digest = client.images.get("doubling:1").digest
            url = f"{client.info().url}/v2/doubling/manifests/{digest}"
            headers = {"authorization": f"Bearer {client.transport.token}"}
            assert httpx.get(url, headers=headers).status_code == 200
            key = next(key for key in bucket.keys() if key.endswith(digest.removeprefix("sha256:")))  # noqa: SIM118 - a bucket is no dictionary
            bucket.put(key, b"rotten")
            assert httpx.get(url, headers=headers).status_code == 503


def test_an_object_store_that_is_away_is_a_sentence(tmp_path: Path) -> None:
    environment = S3Server.credentials | {"HEDGEROW_BLOBS": "s3://nowhere/ws", "HEDGEROW_BLOBS_ENDPOINT": "http://127.0.0.1:9"}
    with plane(tmp_path, environment=environment) as running:
        (tmp_path / "m").write_bytes(os.urandom(300_000))
        with pytest.raises(ApiError) as refused:
            running.client.models.register("m", tmp_path / "m")
        assert (refused.value.status, refused.value.problem.code) == (503, "object_store_unavailable")
        with pytest.raises(ActivityFailed):
            collected(running)
