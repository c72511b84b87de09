"""Enrolment when things break: answers that get lost, agents killed in between, a key for one and two devices, copied cards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge_agent.device_config import read_device_config
from tests.enrollment_gate import gate_before
from tests.fixtures.parts import search_path
from tests.fixtures.real_process import RealProcess
from tests.registry_server import Api, RunningServer
from tests.waiting import wait_for


def new_key(api: Api, **wanted: object) -> dict[str, Any]:
    answered = api.post("/api/v1/enrollment-keys", json={"name": "line"} | wanted)
    assert answered.status_code == 201, answered.text
    return dict(answered.json())


def uses(api: Api, key: dict[str, Any]) -> int:
    return int(api.get(f"/api/v1/enrollment-keys/{key['id']}").json()["uses"])


def devices_of(api: Api, key: dict[str, Any]) -> list[str]:
    found = api.get("/api/v1/devices?limit=1000").json()["items"]
    return [one["uuid"] for one in found if key["id"] in one["enrolled_with"]]


def argv(url: str, key: dict[str, Any], folder: Path, *options: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "key").write_text(key["secret"])
    place = ["--key-file", str(folder / "key"), "-o", str(folder / "device.toml")]
    return [sys.executable, "-P", "-m", "edge_agent", "enroll", "--url", url, *place, *options]


def enroll(url: str, key: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": search_path()}
    return subprocess.run(argv(url, key, folder), capture_output=True, text=True, timeout=120, check=False, env=env)


def test_an_answer_that_got_lost_costs_nothing(server: RunningServer, api: Api, tmp_path: Path) -> None:
    key = new_key(api)
    with gate_before(server.url, "lose-answers") as gate:
        lost = enroll(gate.url, key, tmp_path)
        assert lost.returncode == 1
        assert gate.passed == 1
        (made,) = devices_of(api, key)
        assert not (tmp_path / "device.toml").exists()
        gate.mode = "pass"
        assert enroll(gate.url, key, tmp_path).returncode == 0
    assert read_device_config(tmp_path / "device.toml").device_uuid == made
    assert devices_of(api, key) == [made]
    assert uses(api, key) == 1


def test_an_agent_killed_between_question_and_answer_asks_again(server: RunningServer, api: Api, tmp_path: Path) -> None:
    key = new_key(api)
    with gate_before(server.url, "hold-answers") as gate:
        process = RealProcess(argv(gate.url, key, tmp_path, "--wait"), log=tmp_path / "log").start()
        wait_for(lambda: gate.passed == 1, timeout_s=60, what="the question to reach the server")
        process.kill()
    (made,) = devices_of(api, key)
    assert not (tmp_path / "device.toml").exists()
    # The lock of the dead one holds nobody up, and what it left half done is not in the way.
    assert enroll(server.url, key, tmp_path).returncode == 0
    assert read_device_config(tmp_path / "device.toml").device_uuid == made
    assert uses(api, key) == 1


def test_of_two_devices_with_a_key_for_one_one_enrols(server: RunningServer, api: Api, tmp_path: Path) -> None:
    key = new_key(api)
    folders = [tmp_path / "a", tmp_path / "b"]
    env = {"PATH": search_path()}
    both = [
        subprocess.Popen(argv(server.url, key, folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        for folder in folders
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    loser = next(errors for process, (_, errors) in zip(both, said, strict=True) if process.returncode)
    assert "used 1 times" in loser
    assert [(folder / "device.toml").exists() for folder in folders].count(True) == 1
    assert len(devices_of(api, key)) == uses(api, key) == 1


def test_two_that_enrol_one_device_at_once_do_not_spoil_it(server: RunningServer, api: Api, tmp_path: Path) -> None:
    key = new_key(api, uses_max=None)
    env = {"PATH": search_path()}
    command = argv(server.url, key, tmp_path)  # once: it writes the key's file, which the first would find empty for a moment
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    # The second finds the first at work, or done.
    assert sorted(process.returncode for process in both) == [0, 1], said
    assert len(devices_of(api, key)) == 1
    token = read_device_config(tmp_path / "device.toml").pull_token
    with server.client(token) as device:
        assert device.get("/v2/").status_code == 200


def test_a_copied_installation_is_one_device_and_the_first_copy_knows(server: RunningServer, api: Api, tmp_path: Path) -> None:
    """A card copied after its first question: both copies are the one device, and only the newest answer's token is good."""
    key = new_key(api, uses_max=None)
    original, copy = tmp_path / "original", tmp_path / "copy"
    assert enroll(server.url, key, original).returncode == 0
    shutil.copytree(original, copy)
    (copy / "device.toml").unlink()
    assert enroll(server.url, key, copy).returncode == 0
    first, second = (read_device_config(folder / "device.toml") for folder in (original, copy))
    assert first.device_uuid == second.device_uuid
    assert devices_of(api, key) == [first.device_uuid]
    answers = []
    for config in (first, second):
        with server.client(config.pull_token) as device:
            answers.append(device.get("/v2/").status_code)
    assert answers == [401, 200]
    kinds = [event["kind"] for event in api.get(f"/api/v1/events?subject=device/{first.name}").json()["items"]]
    assert sorted(kinds) == ["device.enrolled", "device.enrolled-again"]


def test_a_place_that_cannot_be_written_costs_no_use(server: RunningServer, api: Api, tmp_path: Path) -> None:
    key = new_key(api)
    command = argv(server.url, key, tmp_path)
    # Too long for what lies beside it: as good as a disk that is full or read-only, for root as well.
    command[-1] = str(tmp_path / ("d" * 240 + ".toml"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={"PATH": search_path()})
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert uses(api, key) == 0, "what cannot be kept is not asked for"
