"""What a server leaves behind when it is killed, when the disk is full, when content rots, when a peer falls silent."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from registry.store import facts, schema
from registry.store.database import open_database
from registry.store.tables import RECORDS
from registry.workspace import open_workspace
from tests.registry_server import Api, RunningServer, problem_of, running_server
from tests.registry_stores import digest_of_text
from tests.small_disk import small_disk
from tests.waiting import wait_for

OCTETS = {"content-type": "application/octet-stream"}
MEGABYTE = 1024 * 1024


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def blob_files(server: RunningServer) -> list[str]:
    """Names of finished blobs."""
    return sorted(path.name for path in (server.workspace / "blobs").glob("sha256/*/*"))


def uploads(server: RunningServer) -> list[Path]:
    return list((server.workspace / "blobs").glob("uploads/*"))


def raw_put(server: RunningServer, digest: str, length: int) -> socket.socket:
    """A connection with the head of an upload sent."""
    connection = socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=10)
    head = (
        f"PUT /api/v1/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.owner_token}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode())
    return connection


def test_a_server_killed_in_the_middle_of_an_upload_leaves_nothing_visible(tmp_path: Path) -> None:
    content = b"x" * (3 * MEGABYTE)
    digest = digest_of_text("x" * (3 * MEGABYTE))
    with running_server(tmp_path) as server:
        with raw_put(server, digest, len(content)) as connection:
            connection.sendall(content[: 2 * MEGABYTE])
            wait_for(lambda: any(path.stat().st_size >= MEGABYTE for path in uploads(server)), what="half of the upload on disk")
            server.process.kill()
        assert blob_files(server) == []
        server.start()
        with server.client() as api:
            assert api.head(f"/api/v1/blobs/{digest}").status_code == 404
            body = {"name": "m", "files": [{"path": "f", "digest": digest, "size_bytes": len(content)}]}
            assert problem_of(api.post("/api/v1/models", json=body))["code"] == "blob_missing"
            assert api.get("/api/v1/models").json()["items"] == []
            assert api.upload(content).digest == digest
            assert api.post("/api/v1/models", json=body).json()["version"] == 1


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    digest = digest_of_text("never finished")
    with running_server(tmp_path) as server:
        with raw_put(server, digest, 5 * MEGABYTE) as connection:
            connection.sendall(b"y" * (2 * MEGABYTE))
            wait_for(lambda: uploads(server), what="the upload to begin")
        wait_for(lambda: not uploads(server), what="the rest of the upload to be cleared away")
        assert blob_files(server) == []
        with server.client() as api:
            assert api.get("/healthz").status_code == 200
        assert "Traceback" not in server.process.log_text()


def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        with server.client() as api:
            manifest = api.register("m", api.upload(b"weights"))
        server.process.kill()
        server.start()
        with server.client() as api:
            assert api.get("/api/v1/models/m:1").json() == manifest
            assert api.get("/api/v1/models/m:1/files/model.onnx").content == b"weights"


def test_a_full_disk_is_a_sentence_and_nothing_half_done(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "12m") as disk, running_server(disk) as server, server.client() as api:
        big = os.urandom(20 * MEGABYTE)
        digest = "sha256:" + sha256(big).hexdigest()
        refused = api.put(f"/api/v1/blobs/{digest}", content=big, headers=OCTETS)
        assert (refused.status_code, problem_of(refused)["code"]) == (503, "storage_unavailable")
        assert "No space left" in problem_of(refused)["message"]
        assert uploads(server) == []
        assert blob_files(server) == []
        entry = api.upload(b"small enough")

        fill(disk / "filler")
        outcomes = [
            api.post("/api/v1/models", json={"name": "m", "files": [{"path": "f", "digest": entry.digest, "size_bytes": 12}]})
            for _ in range(30)
        ]
        failed = [answered for answered in outcomes if answered.status_code != 201]
        assert failed, "the database still found room on a full disk"
        for answered in failed:
            assert (answered.status_code, problem_of(answered)["code"]) == (503, "database_unavailable")
        assert api.get("/api/v1/models").status_code == 200, "reading goes on"
        (disk / "filler").unlink()

        made = len(outcomes) - len(failed)
        assert api.register("m", entry)["version"] == made + 1
        assert len(api.get("/api/v1/models", params={"name": "m"}).json()["items"]) == made + 1
        assert "Traceback" not in server.process.log_text()


def test_no_room_to_start_is_a_sentence(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        fill(disk / "filler")
        workspace = disk / "workspace"
        argv = [sys.executable, "-P", "-m", "registry.server", "--workspace", str(workspace), "--port", "0"]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path)
        assert ended.returncode == 1
        assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
        assert "space" in ended.stderr


def test_rot_on_disk_never_reaches_a_client_as_content(tmp_path: Path) -> None:
    content = os.urandom(5 * MEGABYTE)
    with running_server(tmp_path) as server, server.client() as api:
        manifest = api.register("m", api.upload(content))
        path = next((server.workspace / "blobs").glob("sha256/*/*"))
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(4 * MEGABYTE)
            file.write(b"rot")
        for address in (f"/api/v1/blobs/{manifest['files'][0]['digest']}", "/api/v1/models/m:1/files/model.onnx"):
            with pytest.raises(httpx.RemoteProtocolError):
                api.get(address)
        wait_for(lambda: "is damaged on disk" in server.process.log_text(), what="the damage in the log")
        path.unlink()
        answered = api.get("/api/v1/models/m:1/files/model.onnx")
        assert (answered.status_code, problem_of(answered)["code"]) == (404, "blob_unknown")
        api.upload(content)
        assert api.get("/api/v1/models/m:1/files/model.onnx").content == content


def test_slow_uploads_do_not_starve_calls(tmp_path: Path) -> None:
    digest = digest_of_text("slow")
    with running_server(tmp_path, "--threads", "8") as server, server.client() as api, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(raw_put(server, digest, 50 * MEGABYTE)) for _ in range(4)]
        for connection in slow:
            connection.sendall(b"z" * 1024)
        wait_for(lambda: len(uploads(server)) == 4, what="four uploads under way")
        refused = api.put(f"/api/v1/blobs/{digest}", content=b"z" * (5 * MEGABYTE), headers=OCTETS)
        assert (refused.status_code, problem_of(refused)["code"]) == (503, "too_many_transfers")
        assert api.upload(b"a small one").size_bytes == 11
        assert api.get("/api/v1/models").status_code == 200


# Migrates inside one transaction and stops just before its commit.
HALF_A_MIGRATION = """
import sys
from hashlib import sha256
from pathlib import Path
from registry.store import facts, schema
from registry.store.database import open_database
from registry.workspace import open_workspace
workspace = open_workspace(Path(sys.argv[1]))
database = open_database(sys.argv[2] or None, workspace.folder)
with database.write() as connection:
    schema.migrate(connection, schema.RECORDS_PART, workspace.folder)
    facts.initialise(connection, workspace.id)
    print("migrated", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_kill_9_in_the_middle_of_a_migration_and_then_again(tmp_path: Path, request: pytest.FixtureRequest, backend: str) -> None:
    url = request.getfixturevalue("postgres_url") if backend == "postgresql" else ""
    workspace = open_workspace(tmp_path / "workspace")
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", HALF_A_MIGRATION, str(workspace.folder), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"migrated\n"
    child.kill()
    child.communicate()

    database = open_database(url or None, workspace.folder)
    try:
        with database.read() as connection:
            assert schema.stored_revision(connection, schema.RECORDS_PART) is None, "half a migration is visible"
        schema.upgrade(database, workspace)
        with database.read() as connection:
            assert schema.stored_revision(connection, schema.RECORDS_PART) == schema.RECORDS_PART.head
            assert facts.value(connection, facts.WORKSPACE_ID) == workspace.id
            assert [connection.execute(table.select()).first() for table in RECORDS.sorted_tables if table.name == "runs"] == [
                None
            ]
    finally:
        database.close()


def test_kill_9_at_any_moment_of_the_first_start(tmp_path: Path) -> None:
    """Whatever a start had got to, the next one finishes it."""
    for number in range(8):
        folder = tmp_path / f"w{number}"
        folder.mkdir()
        server = RunningServer(folder)
        server.process.start()
        signs = [
            "format.json",
            "run/server.lock",
            "records.db",
            "run/migrate.lock",
            "series.db",
            "run/owner.token",
            "run/server.wake",
        ]
        sign = server.workspace / signs[number % len(signs)]
        wait_for(sign.exists, what=f"{sign.name} to appear")
        server.process.kill()
        try:
            server.start()
            with server.client() as api:
                assert api.register("m", api.upload(b"w"))["version"] == 1
        finally:
            server.process.stop()


def test_a_database_that_goes_away_and_comes_back(tmp_path: Path, postgres_server: object, postgres_url: str) -> None:
    with running_server(tmp_path, "--database", postgres_url) as server, server.client() as api:
        api.register("m", api.upload(b"w"))
        database = postgres_url.rpartition("/")[2]
        with contextlib.closing(postgres_server.connect("postgres")) as admin:  # type: ignore[attr-defined]  # the fixture's class
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [database])
        # Connections are checked before use: nobody has to notice.
        assert api.get("/api/v1/models").status_code == 200
        assert api.register("m", api.upload(b"w"))["version"] == 2


def test_an_old_client_that_says_only_http_1_0(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=10) as connection:
            head = f"GET /api/v1/models HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {server.owner_token}\r\n\r\n"
            connection.sendall(head.encode())
            text = b"".join(iter(lambda: connection.recv(4096), b""))
        assert text.endswith(b'{"items":[],"next":null}')
        with Api(server.url, server.owner_token) as api:
            assert api.get("/api/v1/models").status_code == 200
