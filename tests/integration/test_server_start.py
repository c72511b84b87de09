"""Starting and stopping a server: ready files, ports, the role lock, the owner token, both databases."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import hedgerow
from hedgerow.atomic_write import atomic_write
from tests.fixtures.parts import search_path
from tests.registry_server import Api, RunningServer, problem_of, running_server, server_command
from tests.waiting import wait_for


def start_and_fail(folder: Path, *options: str) -> str:
    """The one line that a server which cannot start writes."""
    environment = {"PATH": search_path(), "HOME": str(folder)}
    argv = server_command(folder / "workspace", *options)
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, cwd=folder, env=environment)
    assert ended.returncode == 1, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    return ended.stderr.strip()


def test_ready_means_ready_and_stopped_leaves_nothing(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with running_server(tmp_path, "--ready-file", str(ready)) as server:
        wait_for(ready.exists, what="the ready file, which is written a moment after the server's own")
        facts = json.loads(ready.read_bytes())
        assert facts == server.facts == {"url": server.url, "pid": server.process.pid}
        with server.client() as api:
            assert api.get("/api/v1/workspace").json()["hedgerow_version"] == hedgerow.__version__
        run = server.workspace / "run"
        token = run / "owner.token"
        assert token.stat().st_mode & 0o777 == 0o600
    left = {path.name for path in run.iterdir()}
    assert left <= {"owner.token", "server.lock", "migrate.lock", "processes"}
    assert not ready.exists()
    assert "Traceback" not in server.process.log_text()


def test_the_owner_token_is_kept_as_long_as_it_is_good(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        first = server.owner_token
        file = server.workspace / "run" / "owner.token"
    with running_server(tmp_path) as server:
        assert server.owner_token == first
    file.write_text("hrw_0_rubbish\n")
    with running_server(tmp_path) as server, server.client(first) as old, server.client() as new:
        assert server.owner_token != first
        # Whoever found the lost file has nothing.
        assert old.get("/api/v1/models").status_code == 401
        assert new.get("/api/v1/tokens").status_code == 200
        second = server.owner_token
    file.chmod(0o644)
    with running_server(tmp_path) as server:
        assert server.owner_token != second, "a token that others could read is not a secret any more"
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert start_and_fail(tmp_path, "--port", str(port)) == (
            f"hedgerow server: Port {port} on 127.0.0.1 is taken by another program. "
            "Choose another with --port (0 picks a free one)."
        )


def test_a_second_server_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        assert str(server.process.pid) in start_and_fail(tmp_path)
        with server.client() as api:
            assert api.get("/api/v1/models").status_code == 200, "the loser must not take the winner's socket away"
    with running_server(tmp_path):
        pass


def test_folders_that_are_no_workspaces(tmp_path: Path) -> None:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    assert "holds files but no Hedgerow workspace" in start_and_fail(tmp_path)
    (folder / "thesis.txt").unlink()
    atomic_write(folder / "format.json", b'{"format": 99, "workspace_id": "00"}')
    assert "newer Hedgerow" in start_and_fail(tmp_path)


def test_wrong_options_end_with_2(tmp_path: Path) -> None:
    for options in (["--nonsense"], ["--port", "x"]):
        ended = subprocess.run(server_command(tmp_path, *options), capture_output=True, text=True, timeout=30, check=False)
        assert ended.returncode == 2
        assert options[0].lstrip("-") in ended.stderr
        assert "Traceback" not in ended.stderr


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    argv = server_command(tmp_path / "workspace", "--watch-parent", "--ready-file", str(ready))
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, cwd=tmp_path)
    try:
        wait_for(lambda: ready.exists() or child.poll() is not None, what="the server to be ready")
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10) == 0
        assert not ready.exists()
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_polite_signal_stops_it_with_0(tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready"
    child = subprocess.Popen(server_command(tmp_path / "workspace", "--ready-file", str(ready)), cwd=tmp_path)
    try:
        wait_for(lambda: ready.exists() or child.poll() is not None, what="the server to be ready")
        child.send_signal(number)
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait()


def test_a_workspace_deep_down(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with running_server(deep) as server, server.client() as api:
        assert api.get("/api/v1/models").status_code == 200
        assert (server.workspace / "run" / "server.sock").is_socket()


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_url: str) -> Iterator[RunningServer]:
    with running_server(tmp_path, "--database", postgres_url) as running:
        yield running


def test_the_same_on_postgresql(on_postgres: RunningServer) -> None:
    assert not (on_postgres.workspace / "records.db").exists()
    with on_postgres.client() as api:
        entry = api.upload(b"weights")
        assert [api.register("m", entry, tags={"a": "b"})["version"] for _ in range(2)] == [1, 2]
        assert len(api.get("/api/v1/models", params={"tag": "a=b"}).json()["items"]) == 2
        assert api.get("/api/v1/models/m:1/files/model.onnx").content == b"weights"
        assert api.post("/api/v1/images", json={"name": "i", "models": ["m"]}).status_code == 202
        assert api.post("/api/v1/environments", json={"name": "e"}).status_code == 201
        assert api.get("/metrics").status_code == 200
        assert api.get("/").status_code == 200
        for path in ("/api/v1/activities/%00", "/api/v1/models/a%00", "/api/v1/models?after=%00", "/api/v1/tokens?after=x%00"):
            answered = api.get(path)
            assert (answered.status_code, problem_of(answered)["code"]) == (400, "malformed_request"), path
        for text in ('"\\ud800"', '"\\u0000"'):
            body = f'{{"name": "t", "files": [], "description": {text}}}'.encode()
            assert api.post("/api/v1/models", content=body, headers={"content-type": "application/json"}).status_code == 400


def test_a_postgresql_that_is_away(tmp_path: Path) -> None:
    said = start_and_fail(tmp_path, "--database", "postgresql://hedgerow:s3cret@127.0.0.1:1/none")
    assert "database cannot be used" in said
    assert "s3cret" not in said


def test_the_database_of_another_workspace(tmp_path: Path, postgres_url: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with running_server(tmp_path / "a", "--database", postgres_url):
        pass
    assert "belongs to workspace" in start_and_fail(tmp_path / "b", "--database", postgres_url)


def test_calls_under_way_are_finished_before_it_ends(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        url, token = server.url, server.owner_token
        with Api(url, token) as api:
            digest = "sha256:dd3a7be4dbe2e7c3e1e0e6dcd2b5d6a4d5c5f0b6e7f5a4c3b2a190807060504f"
            stopped: list[bool] = []

            def body() -> Iterator[bytes]:
                yield b"first half"
                os.kill(server.process.pid, signal.SIGTERM)
                wait_for(lambda: not accepts(url), what="the server to stop listening")
                stopped.append(True)
                yield b"second half"

            answered = api.put(f"/api/v1/blobs/{digest}", content=body(), headers={"content-type": "application/octet-stream"})
        assert stopped
        assert problem_of(answered)["code"] == "digest_mismatch"


def accepts(url: str) -> bool:
    """Whether a new request is answered."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=0.2) as probe:
            probe.settimeout(0.2)
            probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return bool(probe.recv(1))
    except OSError:
        return False
