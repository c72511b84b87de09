"""`hedgerow up`: four processes that start together, live through crashes and end together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hedgerow.sdk.client import Client
from hedgerow.sdk.connect import connect
from hedgerow.sdk.errors import ServerUnreachable
from tests.fixtures.control_plane import ControlPlane, processes_of
from tests.waiting import wait_for


def run_up(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "registry.up", "--workspace", str(folder), *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("option", ["--gc-every-s", "--events-keep-days"])
def test_a_time_below_nothing_is_refused(tmp_path: Path, option: str) -> None:
    answer = run_up(tmp_path / "workspace", f"{option}=-1")
    assert answer.returncode == 2
    assert f"cannot be '-1': it must be 0 or more. Correct the option {option}." in answer.stderr
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("option", ["--registry-logins", "--egress-ca-file"])
def test_a_file_that_is_not_there_is_named_at_once(tmp_path: Path, option: str) -> None:
    answer = run_up(tmp_path / "workspace", f"{option}={tmp_path}/missing.json")
    assert answer.returncode == 2
    assert f"cannot be '{tmp_path}/missing.json': there is no such file. Correct {option}." in answer.stderr
    assert not (tmp_path / "workspace").exists()


def test_all_roles_run_and_say_who_they_are(client: Client) -> None:
    info = client.info()
    assert {status.role for status in info.roles} == {"server", "hub", "controller", "broker"}
    assert all(status.pid for status in info.roles)


def test_stopping_it_leaves_nothing(control_plane: ControlPlane) -> None:
    control_plane.process.stop(grace_s=30)
    assert control_plane.process.log_text().count("Traceback") == 0
    assert processes_of(control_plane.workspace) == []
    with pytest.raises(ServerUnreachable):
        connect(control_plane.workspace, start=False)


def test_it_comes_back_with_the_same_identity(control_plane: ControlPlane) -> None:
    with control_plane.client() as client:
        before = client.info()
    control_plane.process.stop(grace_s=30)
    control_plane.start()
    with control_plane.client() as client:
        after = client.info()
    assert (before.workspace_id, before.incarnation) == (after.workspace_id, after.incarnation)


@pytest.mark.parametrize("role", ["server", "hub", "controller", "broker"])
def test_a_killed_role_is_started_again(control_plane: ControlPlane, role: str) -> None:
    before = control_plane.role_pid(role)
    assert before is not None
    os.kill(before, signal.SIGKILL)

    wait_for(lambda: control_plane.role_pid(role) not in (None, before), timeout_s=20, what=f"a new {role}")
    with control_plane.client() as client:
        assert {status.role: status.pid for status in client.info().roles}[role] == control_plane.role_pid(role)


def test_the_roles_end_with_a_killed_supervisor_and_the_next_one_starts_clean(control_plane: ControlPlane) -> None:
    control_plane.process.kill()
    wait_for(lambda: not processes_of(control_plane.workspace), timeout_s=30, what="the end of all roles")
    control_plane.start()
    with control_plane.client() as client:
        assert client.info().workspace_id


def test_a_second_one_is_refused_with_the_pid_of_the_first(control_plane: ControlPlane) -> None:
    answer = run_up(control_plane.workspace, "--port", "0", "--broker-port", "0", "--balancer-port", "0")
    assert answer.returncode == 1
    assert f"already running as process {control_plane.process.pid}" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("option", ["--port", "--broker-port", "--balancer-port"])
def test_a_taken_port_is_one_sentence_and_nothing_is_started(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"--port": "0", "--broker-port": "0", "--balancer-port": "0", option: str(taken.getsockname()[1])}
        answer = run_up(tmp_path / "w", *[word for pair in ports.items() for word in pair])
    assert answer.returncode == 1
    assert f"Choose another with {option}" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert processes_of(tmp_path) == []


def test_a_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "format.json").write_text('{"format": 99, "workspace_id": "x"}')
    answer = run_up(tmp_path, "--port", "0", "--broker-port", "0", "--balancer-port", "0")
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert "newer Hedgerow (format 99" in answer.stderr


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    answer = run_up(tmp_path, "--port", "0", "--broker-port", "0", "--balancer-port", "0")
    assert answer.returncode == 1
    assert "no Hedgerow workspace" in answer.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_wrong_setting_names_itself(tmp_path: Path) -> None:
    answer = run_up(tmp_path / "w", "--port", "eighty")
    assert answer.returncode == 2
    assert "Setting port cannot be 'eighty'" in answer.stderr


@pytest.mark.parametrize("role", ["server", "hub", "controller", "broker"])
def test_each_process_tells_a_wrong_setting_by_its_exit_code(tmp_path: Path, role: str) -> None:
    argv = [sys.executable, "-P", "-m", f"registry.{role}", "--workspace", str(tmp_path / "w")]
    environment = {**os.environ, "HEDGEROW_WATCH_PARENT": "perhaps"}
    answer = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment)
    assert answer.returncode == 2
    assert "Setting watch_parent cannot be 'perhaps'" in answer.stderr


def test_folder_mode_starts_a_control_plane_and_ends_it_with_the_client(tmp_path: Path) -> None:
    with connect(tmp_path / "w") as client:
        assert client.info().url.startswith("http://127.0.0.1:")
        assert client.models.list().items == []
    wait_for(lambda: not processes_of(tmp_path), timeout_s=20, what="the end of the control plane")


def test_a_deep_folder_has_no_length_limit(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with connect(deep / "w") as client:
        assert client.models.list().items == []
