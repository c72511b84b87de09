"""``GET /api/v1/backup``, ``hedgerow backup`` and ``hedgerow restore``: real servers, real commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hedgerow.contracts.backup import BackupEnd
from hedgerow.contracts.backup_archive import read_members
from tests.fixtures.control_plane import processes_of
from tests.fixtures.parts import search_path
from tests.registry_server import Api, RunningServer, problem_of, running_server
from tests.waiting import wait_for

HEDGEROW = str(Path(sys.executable).with_name("hedgerow"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path) as started:
        yield started


@pytest.fixture
def owner(server: RunningServer) -> Iterator[Api]:
    with server.client() as api:
        yield api


def run(folder: Path, *words: str, database: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command as a person runs it."""
    environment = {"PATH": search_path(), "HOME": str(folder)} | ({"HEDGEROW_DATABASE": database} if database else {})
    argv = [HEDGEROW, *words]
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def names_in(file: Path) -> list[str]:
    with tarfile.open(file) as tar:
        return tar.getnames()


def test_only_owners_get_one(server: RunningServer, owner: Api) -> None:
    for role in ("contributor", "reader", "puller"):
        with server.client(owner.token(role)) as other:
            answered = other.get("/api/v1/backup")
            assert (answered.status_code, problem_of(answered)["code"]) == (403, "role_forbids")
    with server.client("") as nobody:
        assert nobody.get("/api/v1/backup").status_code == 401


def test_it_is_one_whole_archive_and_an_event(server: RunningServer, owner: Api, tmp_path: Path) -> None:
    owner.register("m", owner.upload(b"w" * 5_000_000))
    answered = owner.get("/api/v1/backup")
    assert (answered.status_code, answered.headers["content-type"]) == (200, "application/x-tar")
    assert answered.headers["cache-control"] == "no-store"
    (tmp_path / "b.tar").write_bytes(answered.content)
    with (tmp_path / "b.tar").open("rb") as file:
        *_, end = read_members(file, "b.tar")
    assert isinstance(end, BackupEnd)
    assert (end.blobs, end.blob_bytes, end.rows["records/model_versions"]) == (1, 5_000_000, 1)
    assert not any(name.startswith("keys/") for name in names_in(tmp_path / "b.tar"))
    told = [event for event in owner.get("/api/v1/events").json()["items"] if event["kind"] == "workspace.backed-up"]
    assert [(event["actor"]["name"], event["details"]["blobs"], event["details"]["keys"]) for event in told] == [
        ("this-machine", "1", "left out")
    ]


def test_what_goes_in_is_said_in_the_query(owner: Api, tmp_path: Path) -> None:
    owner.register("m", owner.upload(b"weights"))
    (tmp_path / "b.tar").write_bytes(owner.get("/api/v1/backup", params={"blobs": "false", "keys": "true"}).content)
    names = names_in(tmp_path / "b.tar")
    assert {"keys/signing.key", "keys/devices.key"} < set(names)
    assert not any(name.startswith("blobs/") for name in names)
    for wrong in ({"blobs": "maybe"}, {"key": "true"}):
        assert owner.get("/api/v1/backup", params=wrong).status_code == 400


def test_nothing_is_left_in_the_workspace(server: RunningServer, owner: Api) -> None:
    for _ in range(2):
        with owner.stream("GET", "/api/v1/backup") as answered:
            next(answered.iter_raw())  # and hang up
    assert owner.get("/api/v1/backup").status_code == 200
    assert list((server.workspace / "work").iterdir()) == []


def test_from_one_command_to_the_other(server: RunningServer, owner: Api, tmp_path: Path) -> None:
    manifest = owner.register("m", owner.upload(b"weights"))
    saved = run(tmp_path, "-w", str(server.workspace), "backup", "b.tar", "--with-keys", "--json")
    assert saved.returncode == 0, saved.stderr
    document = json.loads(saved.stdout)
    assert (document["file"], document["end"]["blobs"], document["header"]["has_keys"]) == ("b.tar", 1, True)
    assert document["size_bytes"] == (tmp_path / "b.tar").stat().st_size
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    assert run(tmp_path, "-w", str(server.workspace), "backup", "plain.tar").returncode == 0

    again = run(tmp_path, "-w", str(server.workspace), "backup", "b.tar")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "--force" in again.stderr
    assert run(tmp_path, "-w", str(server.workspace), "backup", "b.tar", "--with-keys", "--force").returncode == 0

    restored = run(tmp_path, "restore", "b.tar", "--workspace", "elsewhere/workspace", "--json")
    assert restored.returncode == 0, restored.stderr
    assert json.loads(restored.stdout)["blobs"] == 1
    server.process.stop()
    with running_server(tmp_path / "elsewhere") as second, second.client() as api:
        assert api.get("/api/v1/models/m:1").json()["digest"] == manifest["digest"]
        told = [event["kind"] for event in api.get("/api/v1/events").json()["items"]]
        assert "workspace.restored" in told
        assert second.owner_token != owner.headers["authorization"].removeprefix("Bearer ")


def test_what_restore_refuses_is_one_sentence(server: RunningServer, tmp_path: Path) -> None:
    assert run(tmp_path, "-w", str(server.workspace), "backup", "b.tar").returncode == 0
    (tmp_path / "foreign.tar").write_bytes(b"x" * 5000)
    (tmp_path / "short.tar").write_bytes((tmp_path / "b.tar").read_bytes()[:-600])
    for words, said in (
        (["b.tar"], "--new-identity"),
        (["b.tar", "--workspace", str(server.workspace), "--new-identity"], "not empty"),
        (["foreign.tar", "--new-identity"], "no archive of Hedgerow"),
        (["short.tar", "--new-identity"], "cut off"),
        (["absent.tar"], "No such file"),
        (["b.tar", "--new-identity", "--blobs", "ftp"], "blobs"),
    ):
        answered = run(tmp_path, "restore", *words)
        assert answered.returncode in (1, 2), words
        assert answered.stderr.count("\n") == 1, answered.stderr
        assert said in answered.stderr
    assert run(tmp_path, "restore", "b.tar", "--keys", "k", "--new-identity").returncode == 2
    assert {entry.name for entry in tmp_path.iterdir()} == {"workspace", "server.log", "b.tar", "foreign.tar", "short.tar"}
    told = run(tmp_path, "restore", "b.tar", "--new-identity")
    assert (told.returncode, "enrol every device again" in told.stdout) == (0, True)


def test_a_connection_that_breaks_leaves_no_file(server: RunningServer, owner: Api, tmp_path: Path) -> None:
    owner.register("m", owner.upload(os.urandom(64_000_000)))
    argv = [HEDGEROW, "-w", str(server.workspace), "backup", "b.tar"]
    child = subprocess.Popen(argv, cwd=tmp_path, env={"PATH": search_path(), "HOME": str(tmp_path)}, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob(".b.tar.*")), what="bytes of the backup", timeout_s=20)
        server.process.kill()
        _, said = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 1, said
    assert said.count(b"\n") == 1
    assert list(tmp_path.glob("*b.tar*")) == []


def test_a_workspace_that_does_not_run_is_started_for_its_backup(server: RunningServer, owner: Api, tmp_path: Path) -> None:
    owner.register("m", owner.upload(b"weights"))
    server.process.stop()
    saved = run(tmp_path, "-w", str(server.workspace), "backup", "b.tar")
    assert saved.returncode == 0, saved.stderr
    assert any(name.startswith("blobs/") for name in names_in(tmp_path / "b.tar"))
    wait_for(lambda: not processes_of(tmp_path), timeout_s=30, what="the end of what was started")


def test_nothing_is_started_where_there_is_nothing(tmp_path: Path) -> None:
    answered = run(tmp_path, "-w", str(tmp_path / "absent"), "backup", "b.tar")
    assert (answered.returncode, answered.stderr.count("\n")) == (1, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_ends_half_way_is_no_whole_answer(server: RunningServer, owner: Api) -> None:
    """What no command looks at: HTTP itself says that the answer was cut off."""
    owner.register("m", owner.upload(os.urandom(64_000_000)))
    with owner.stream("GET", "/api/v1/backup") as answered:
        chunks = answered.iter_raw()
        next(chunks)
        server.process.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)
