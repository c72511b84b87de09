"""Uploads to an object store that are cut off: nothing is visible, and what is left in the store is taken back."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from registry.blobs.choose import open_store
from registry.blobs.errors import ObjectStoreUnavailable
from tests.controller_process import Plane
from tests.fixtures.s3_gate import Rule, s3_gate
from tests.fixtures.s3_server import S3Server
from tests.waiting import wait_for

MEGABYTE = 1024 * 1024
LATER = timedelta(hours=1)


def second_part(fate: Literal["hold", "refuse"]) -> Rule:
    return lambda method, path: fate if method == "PUT" and "partNumber=2" in path else "pass"


def started(bucket: S3Server) -> list[str]:
    """Keys of multi-part uploads that did not end."""
    return [str(upload["Key"]) for upload in bucket.uploads()]


def collected(workspace: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    argv = [sys.executable, "-P", "-m", "registry.controller.garbage_work", "--workspace", str(workspace)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ) | dict(environment))
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1])["result"])


@pytest.mark.usefixtures("credentials")
def test_a_server_killed_in_the_middle_of_an_upload_leaves_parts_that_gc_takes_back(tmp_path: Path, s3_server: S3Server) -> None:
    content = os.urandom(40 * MEGABYTE)
    digest = f"sha256:{sha256(content).hexdigest()}"
    with s3_server.bucket() as bucket, s3_gate(bucket.url, second_part("hold")) as gate:
        where = bucket.credentials | {"HEDGEROW_BLOBS": f"s3://{bucket.name}/ws", "HEDGEROW_BLOBS_ENDPOINT": gate.url}
        plane = Plane(tmp_path / "ws", environment=where)
        try:
            server = plane.start_server()
            url = f"{plane.client.info().url}/api/v1/blobs/{digest}"
            headers = {"authorization": f"Bearer {plane.client.transport.token}", "content-type": "application/octet-stream"}

            def put() -> None:
                with suppress(httpx.HTTPError):
                    answered.append(httpx.put(url, content=content, headers=headers, timeout=60).status_code)

            answered: list[int] = []
            upload = threading.Thread(target=put)
            upload.start()
            wait_for(gate.held.is_set, timeout_s=30, what="the second part being on its way")
            assert len(started(bucket)) == 1
            assert bucket.keys() == []
            store = open_store(plane.folder / "blobs", f"s3://{bucket.name}/ws", gate.url)
            assert store.sweep(datetime.now(UTC) + LATER).count == 0, "its writer lives"
            assert len(started(bucket)) == 1
            server.kill()
            upload.join(60)
            assert not upload.is_alive()
            assert answered == []
            assert bucket.keys() == [], "nothing is visible"
            gate.rule = lambda *_: "pass"
            dry = store.sweep(datetime.now(UTC) + LATER, dry_run=True)
            assert len(started(bucket)) == 1
            freed = collected(plane.folder, where | {"HEDGEROW_BLOB_LEASE_S": "0", "HEDGEROW_BLOBS_ENDPOINT": bucket.url})
            # Its parts in the store, and the temporary on this machine.
            assert (freed["leftovers"], dry.count) == (2, 2)
            assert freed["leftover_bytes"] == dry.size_bytes == 40 * MEGABYTE + 16 * MEGABYTE
            assert started(bucket) == []
            assert list((plane.folder / "blobs" / "uploads").iterdir()) == []
            plane.start_server()
            url = f"{plane.client.info().url}/api/v1/blobs/{digest}"
            assert httpx.head(url, headers=headers).status_code == 404
            put()
            assert answered == [201]
            assert len(bucket.keys()) == 1
            assert started(bucket) == []
        finally:
            plane.close()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in S3Server.credentials.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("credentials")
def test_an_upload_that_fails_in_the_middle_leaves_nothing(tmp_path: Path, s3_server: S3Server) -> None:
    content = os.urandom(40 * MEGABYTE)
    with s3_server.bucket() as bucket, s3_gate(bucket.url, second_part("refuse")) as gate:
        store = open_store(tmp_path, f"s3://{bucket.name}/ws", gate.url)
        with pytest.raises(ObjectStoreUnavailable) as refused:
            store.put(io.BytesIO(content))
        assert "folder" not in refused.value.sentence()
        assert bucket.keys() == started(bucket) == []
        assert list((tmp_path / "uploads").iterdir()) == []


@pytest.mark.usefixtures("credentials")
def test_only_old_uploads_of_this_workspace_are_taken_back(tmp_path: Path, s3_server: S3Server) -> None:
    with s3_server.bucket() as bucket, s3_gate(bucket.url, lambda *_: "pass") as gate:
        store = open_store(tmp_path, f"s3://{bucket.name}/ws", gate.url)
        for key in ("ws/sha256/aa/ours", "other/sha256/aa/theirs", "ws/notes"):
            bucket.begin_upload(key)
        assert store.sweep(datetime.now(UTC) - LATER).count == 0
        assert store.sweep(datetime.now(UTC) + LATER).count == 1
        assert sorted(started(bucket)) == ["other/sha256/aa/theirs", "ws/notes"]


@pytest.mark.usefixtures("credentials")
def test_whoever_may_not_list_uploads_collects_the_rest(tmp_path: Path, s3_server: S3Server) -> None:
    with s3_server.bucket() as bucket, s3_gate(bucket.url, lambda _, path: "refuse" if "uploads" in path else "pass") as gate:
        bucket.begin_upload("ws/sha256/aa/ours")
        store = open_store(tmp_path, f"s3://{bucket.name}/ws", gate.url)
        remains = tmp_path / "uploads" / "cut-off"
        remains.parent.mkdir()
        remains.write_bytes(b"12345")
        assert store.sweep(datetime.now(UTC) + LATER).count == 1
        assert not remains.exists()


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("bucket", ["http://127.0.0.1:9", "no such bucket"])
def test_a_bucket_that_is_not_there_is_told_of_soon_and_in_its_own_words(
    bucket: str, tmp_path: Path, s3_server: S3Server
) -> None:
    store = open_store(tmp_path, "s3://nowhere/ws", bucket if bucket.startswith("http") else s3_server.url)
    began = time.monotonic()
    with pytest.raises(ObjectStoreUnavailable, match="object store that holds the contents"):
        store.put(io.BytesIO(b"x"))
    assert time.monotonic() - began < 20
    assert list((tmp_path / "uploads").iterdir()) == []
