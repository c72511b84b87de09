"""What contents go through: a killed server, a full disk, rot; whoever asks gets right bytes or none."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.blobs import CHUNK_BYTES
from registry.blobs.folder import FolderStore
from tests.faults.test_server_faults import MEGABYTE, OCTETS, blob_files, raw_put, uploads
from tests.registry_server import Api, RunningServer, problem_of, running_server
from tests.small_disk import small_disk
from tests.waiting import wait_for


def digest_of(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def collected(server: RunningServer, **environment: str) -> dict[str, Any]:
    """What a garbage collection freed, as the controller would run it."""
    argv = [sys.executable, "-P", "-m", "registry.controller.garbage_work", "--workspace", str(server.workspace)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True, env=dict(os.environ) | environment)
    return dict(json.loads(done.stdout.splitlines()[-1])["result"])


def test_what_a_killed_upload_left_is_swept(tmp_path: Path) -> None:
    content = os.urandom(6 * MEGABYTE)
    with running_server(tmp_path) as server:
        with raw_put(server, digest_of(content), len(content)) as connection:
            connection.sendall(content[: 5 * MEGABYTE])
            wait_for(lambda: any(path.stat().st_size >= 4 * MEGABYTE for path in uploads(server)), what="most of it on disk")
            (remains,) = uploads(server)
            os.utime(remains, (0, 0))
            assert collected(server)["leftovers"] == 0, "its writer lives"
            server.process.kill()
        assert blob_files(server) == []
        os.utime(remains, (0, 0))
        freed = collected(server)
        assert freed["leftovers"] == 1
        assert freed["leftover_bytes"] >= 4 * MEGABYTE
        assert uploads(server) == []
        server.start()
        with server.client() as api:
            assert api.head(f"/api/v1/blobs/{digest_of(content)}").status_code == 404
            assert api.upload(content).size_bytes == len(content)


def test_a_full_disk_in_the_middle_of_a_batch_records_none_of_it(tmp_path: Path) -> None:
    contents = [os.urandom(MEGABYTE) for _ in range(14)]
    body = b"".join(sha256(one).digest() + len(one).to_bytes(8, "big") + one for one in contents)
    with small_disk(tmp_path / "disk", "10m") as disk, running_server(disk) as server, server.client() as api:
        refused = api.post("/api/v1/blobs/batch", content=body, headers=OCTETS)
        assert (refused.status_code, problem_of(refused)["code"]) == (503, "storage_unavailable")
        assert uploads(server) == []
        missing = api.post("/api/v1/blobs/missing", json={"digests": [digest_of(one) for one in contents]}).json()
        assert missing == {"missing": [digest_of(one) for one in contents]}
        # What was whole before the disk was full is content without a row: the collection frees it.
        whole = len(blob_files(server))
        assert collected(server, HEDGEROW_BLOB_LEASE_S="0")["blobs"] == whole
        assert blob_files(server) == []
        assert api.upload(b"there is room again").size_bytes == 19
        assert "Traceback" not in server.process.log_text()


def test_rot_is_found_by_ranges_before_a_wrong_byte_leaves(tmp_path: Path) -> None:
    content = os.urandom(3 * CHUNK_BYTES)
    with running_server(tmp_path) as server, server.client() as api:
        manifest = api.register("m", api.upload(content))
        path = next((server.workspace / "blobs").glob("sha256/*/*"))
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(2 * CHUNK_BYTES)
            file.write(b"rotten")
        for address in (f"/api/v1/blobs/{manifest['files'][0]['digest']}", "/api/v1/models/m:1/files/model.onnx"):
            received = whole_until_broken(api, address, f"bytes={CHUNK_BYTES // 2}-")
            assert received == content[CHUNK_BYTES // 2 : 2 * CHUNK_BYTES]
            answered = api.get(address, headers={"range": f"bytes={2 * CHUNK_BYTES + 1}-"})
            assert (answered.status_code, problem_of(answered)["code"]) == (503, "blob_damaged")


def test_a_sweep_whose_clock_is_ahead_takes_no_upload_that_lives(tmp_path: Path) -> None:
    store, done = FolderStore(tmp_path), threading.Event()

    def sweep() -> None:
        while not done.is_set():
            store.sweep(datetime.now(UTC) + timedelta(days=1))

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(300):
            with store.stage(io.BytesIO(b"%d" % number)) as staged:
                staged.confirm()
            assert store.has(staged.digest)
    finally:
        done.set()
        sweeper.join()


@pytest.mark.parametrize("kept", [0, 2 * CHUNK_BYTES], ids=["to nothing", "where a chunk ends"])
def test_a_file_that_was_cut_off_is_never_sent_as_if_it_were_whole(tmp_path: Path, kept: int) -> None:
    with running_server(tmp_path) as server, server.client() as api:
        manifest = api.register("m", api.upload(os.urandom(3 * CHUNK_BYTES)))
        path = next((server.workspace / "blobs").glob("sha256/*/*"))
        path.chmod(0o600)
        os.truncate(path, kept)
        digest = manifest["files"][0]["digest"]
        for address in (f"/api/v1/blobs/{digest}", "/api/v1/models/m:1/files/model.onnx", f"/v2/models/m/blobs/{digest}"):
            assert api.get(address).status_code == 503
            assert api.head(address).status_code == 503


def whole_until_broken(api: Api, address: str, part: str) -> bytes:
    received = bytearray()

    def read() -> None:
        with api.stream("GET", address, headers={"range": part}) as response:
            assert response.status_code == 206
            for piece in response.iter_raw():
                received.extend(piece)

    with pytest.raises(httpx.RemoteProtocolError):
        read()
    return bytes(received)
