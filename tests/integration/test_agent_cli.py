"""``python -m edge_agent``: check, status, and what it says to wrong input. Offline and without a control plane."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agent_builders import Workspace
from tests.agent_process import AgentProcess
from tests.agent_registry import open_registry
from tests.fixtures.brokers import MosquittoFactory
from tests.waiting import wait_for


def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "edge_agent", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin", **env})


def checks(config: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    answer = run("check", "--config", config, "--json")
    return answer.returncode, {row["name"]: row for row in json.loads(answer.stdout)}


def test_check_finds_a_device_that_is_ready(mosquitto: MosquittoFactory, tmp_path: Path) -> None:
    with mosquitto() as broker, open_registry() as registry:
        config = Workspace(broker_url=broker.url, registry_url=registry.url).write_toml(tmp_path / "device.toml")
        code, found = checks(config)
        assert [row for row in found.values() if not row["ok"]] == []
        assert code == 0
        assert "device porch" in found["configuration"]["detail"]
        assert not (tmp_path / "state").exists(), "a check changes nothing"


def test_check_names_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    config = Workspace(broker_url="mqtt://user:secret@127.0.0.1:1", registry_url="http://127.0.0.1:1").write_toml(
        tmp_path / "device.toml"
    )
    config.chmod(0o644)
    code, found = checks(config)
    assert code == 1
    assert {name for name, row in found.items() if not row["ok"]} == {"key file", "broker", "registry"}
    assert f"chmod 600 {config}" in found["key file"]["remedy"]
    assert all(row["remedy"] for row in found.values() if not row["ok"])
    assert "secret" not in json.dumps(found)
    text = run("check", "--config", config).stdout
    assert "failed broker" in text
    assert "ok     disk" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "device enroll"),
        ("= nonsense", "is not TOML"),
        ('name = "x"', "device_uuid"),
        ("name = 7", "DeviceConfig is not valid"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_bad_configuration_is_one_sentence_with_a_remedy(tmp_path: Path, command: str, content: str | None, words: str) -> None:
    config = tmp_path / "device.toml"
    if content is not None:
        config.write_text(content)
    answer = run(command, "--config", config)
    assert answer.returncode in (1, 2)
    assert words in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--overflow", "drop-everything", "drop-oldest"),
        ("--quota-bytes", "12", "between"),
        ("--max-message-bytes", "9000000", "between"),
        ("--log-format", "xml", "text, json"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, flag: str, value: str, words: str) -> None:
    config = Workspace().write_toml(tmp_path / "device.toml")
    answer = run("run", "--config", config, flag, value)
    assert answer.returncode == 2
    assert words in answer.stderr
    assert not (tmp_path / "state").exists()


def test_a_broker_url_of_another_kind_is_refused(tmp_path: Path) -> None:
    config = Workspace(broker_url="amqp://127.0.0.1").write_toml(tmp_path / "device.toml")
    answer = run("run", "--config", config)
    assert answer.returncode == 2
    assert "mqtt://HOST:PORT" in answer.stderr


def test_help_lists_every_setting_with_its_variable() -> None:
    text = run("run", "--help").stdout
    for words in ("--state-dir", "HEDGEROW_AGENT_STATE_DIR", "--stop-modules-on-exit", "--watch-parent", "--docker-allow"):
        assert words in text


@pytest.mark.parametrize("command", ["status", "check"])
def test_help_of_what_only_looks_leaves_out_what_means_nothing_to_it(command: str) -> None:
    text = run(command, "--help").stdout
    assert "--state-dir" in text
    assert "--quota-bytes" not in text


def test_status_reads_the_disk_with_and_without_an_agent(tmp_path: Path) -> None:
    nothing = run("status", "--state-dir", tmp_path / "state")
    assert nothing.returncode == 1
    assert "no report yet" in nothing.stdout
    with AgentProcess(Workspace(), tmp_path) as agent:
        wait_for(agent.report, what="the first report")
        assert f"running, pid {agent.process.pid}" in run("status", "--state-dir", agent.state).stdout
        agent.stop()
        stopped = run("status", "--state-dir", agent.state, "--json")
        document = json.loads(stopped.stdout)
        assert stopped.returncode == 0
        assert document["pid"] is None
        assert document["report"]["desired"]["code"] == 202
        assert [d["action"] for d in document["decisions"]] == ["agent-start", "agent-stop"]


def test_state_is_private_and_secrets_are_not_logged(tmp_path: Path) -> None:
    workspace = Workspace()
    with AgentProcess(workspace, tmp_path, "--log-level", "debug") as agent:
        wait_for(agent.report, what="the first report")
        assert agent.state.stat().st_mode & 0o077 == 0
        agent.stop()
        text = agent.log_text() + "".join(path.read_text(errors="replace") for path in agent.state.glob("*.json*"))
        assert workspace.config.device_key not in text
        assert workspace.config.pull_token not in text
