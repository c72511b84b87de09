"""``hedgerow agent events``, ``support-bundle`` and the checks of what lies on the device."""

from __future__ import annotations

import http.server
import json
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from edge_agent.checks.state_folder import modules, state_files, state_folder
from edge_agent.checks.surroundings import clock_of_registry
from edge_agent.methods.redaction import HIDDEN, Redaction
from edge_agent.state_store import StateStore
from edge_agent.telemetry.tokens import Tokens
from hedgerow.contracts.status import Decision
from tests.agent_builders import Workspace, desired, shell
from tests.agent_process import AgentProcess
from tests.waiting import wait_for

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "edge_agent", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin"})


@pytest.fixture
def state(tmp_path: Path) -> StateStore:
    """The folder of an agent that ran once and decided three things."""
    store = StateStore(tmp_path / "state")
    store.prepare()
    decisions = [
        Decision(at=NOW + timedelta(seconds=number), module=module, action="start", reason=f"reason {number}")
        for number, module in enumerate((None, "pump", "fan"))
    ]
    store.decisions.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in decisions) + b'{"torn')
    return store


def test_events_are_the_decisions_with_their_reasons(state: StateStore) -> None:
    everything = run("events", "--state-dir", state.folder)
    assert everything.returncode == 0
    assert [line.rpartition(" ")[2] for line in everything.stdout.splitlines()] == ["0", "1", "2"]
    newest = run("events", "--state-dir", state.folder, "--tail", "1", "--json").stdout
    assert json.loads(newest)["module"] == "fan"
    assert "reason 1" in run("events", "--state-dir", state.folder, "--module", "pump").stdout
    assert run("events", "--state-dir", state.folder, "--module", "pump", "--tail", "0").stdout == ""
    assert "nothing was decided yet" in run("events", "--state-dir", state.folder / "none").stdout


def test_a_support_bundle_holds_everything_but_secrets(tmp_path: Path) -> None:
    workspace = Workspace(broker_url="mqtt://press:broker-password@127.0.0.1:1")
    script = (
        "echo starts with password=hunter22 and url amqp://me:letmein@host or redis://:let2in@host;"
        "echo $HEDGEROW_TELEMETRY_TOKEN; echo pump-secret-value; sleep 1000 # $0"
    )
    module = shell(script, variables={"PUMP_SECRET": "pump-secret-value", "PLAIN": "plain-value"})
    agent = AgentProcess(workspace, tmp_path)
    agent.state.mkdir(mode=0o700)
    command = [*module.spec.command, "--db-password", "argument-secret"]
    module = msgspec.structs.replace(module, spec=msgspec.structs.replace(module.spec, command=command))
    StateStore(agent.state).desired.write_bytes(workspace.signed(desired({"pump": module})))
    with agent:
        agent.wait_state("pump", "running")
        wait_for(lambda: "pump-secret" in _log_of(agent, "pump"), what="the module's words")
        bundle = tmp_path / "bundle.tar.gz"
        made = run("support-bundle", "--config", agent.config, "-o", bundle, "--json")
        assert made.returncode == 0, made.stderr
        again = run("support-bundle", "--config", agent.config, "-o", bundle)
        assert (again.returncode, "written over" in again.stderr) == (2, True)
    with tarfile.open(bundle) as archive:
        texts = {name.removeprefix("support-bundle/"): _text(archive, name) for name in archive.getnames()}
    assert {
        "versions.json",
        "device.json",
        "checks.json",
        "desired.json",
        "state/decisions.jsonl",
        "logs/pump.log",
    } <= texts.keys()
    assert sorted(json.loads(made.stdout)["files"]) == sorted(texts)
    config = workspace.config
    for secret in (
        config.device_key,
        config.pull_token,
        "broker-password",
        "hunter22",
        "letmein",
        "let2in",
        "argument-secret",
        Tokens(config.key_bytes()).of("pump"),
        "pump-secret-value",
        "plain-value",
    ):
        assert [name for name, text in texts.items() if secret in text] == [], secret
    assert "starts with password=" in texts["logs/pump.log"]
    assert json.loads(texts["device.json"])["device_key"] == HIDDEN
    assert {check["name"] for check in json.loads(texts["checks.json"])} >= {"configuration", "telemetry buffer", "desired state"}
    assert bundle.stat().st_mode & 0o077 == 0


def _text(archive: tarfile.TarFile, name: str) -> str:
    member = archive.extractfile(name)
    assert member is not None
    return member.read().decode()


def _log_of(agent: AgentProcess, module: str) -> str:
    path = agent.state / "modules" / module / "process" / "log"
    return path.read_text(errors="replace") if path.exists() else ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("authorization: Bearer abc.def-ghi", f"authorization: Bearer {HIDDEN}"),
        ('{"api_key": "abcdef"}', f'{{"api_key": "{HIDDEN}"}}'),
        ("https://x.blob.example/c?sv=1&sig=abc%2Fdef&se=2", f"https://x.blob.example/c?sv=1&sig={HIDDEN}&se=2"),
        ("DB_PASSWORD=abcdef next", f"DB_PASSWORD={HIDDEN} next"),
        ("mqtt://me:word@host:1883", f"mqtt://{HIDDEN}@host:1883"),
        ("the value s3cr3t! stands here", f"the value {HIDDEN} stands here"),
        ("nothing to hide: 12:00:00", "nothing to hide: 12:00:00"),
    ],
)
def test_secrets_are_taken_out_of_text(text: str, shown: str) -> None:
    assert Redaction(["s3cr3t!"]).text(text) == shown


# --- checks ----------------------------------------------------------------------------------------------------------------


def test_a_buffer_that_is_damaged_is_found_and_left_alone(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    database = sqlite3.connect(store.outbox)
    database.execute("CREATE TABLE t (x)")
    database.executemany("INSERT INTO t VALUES (?)", [("x" * 500,) for _ in range(200)])
    database.commit()
    database.close()
    config = Workspace().config
    assert [check.ok for check in state_files(config, tmp_path)] == [True]
    damaged = bytearray(store.outbox.read_bytes())
    damaged[8192:16384] = b"\xff" * 8192
    store.outbox.write_bytes(damaged)
    (found,) = state_files(config, tmp_path)
    assert (found.name, found.ok, bool(found.remedy)) == ("telemetry buffer", False, True)
    assert store.outbox.read_bytes() == damaged


def test_a_desired_state_that_was_changed_is_found(tmp_path: Path) -> None:
    workspace = Workspace()
    store = StateStore(tmp_path)
    store.desired.write_bytes(workspace.signed(desired({"pump": shell("true")}, version=7)))
    (good,) = state_files(workspace.config, tmp_path)
    assert (good.ok, "version 7" in good.detail) == (True, True)
    store.desired.write_bytes(Workspace().signed(desired({"pump": shell("true")}, version=8)))
    (bad,) = state_files(workspace.config, tmp_path)
    assert (bad.name, bad.ok) == ("desired state", False)


def test_files_that_were_moved_aside_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "history.json.damaged").touch()
    (found,) = state_files(Workspace().config, tmp_path)
    assert (found.ok, found.warning) == (True, True)
    assert "history.json.damaged" in found.detail


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert state_folder(tmp_path / "not" / "there").ok
    blocked = tmp_path / "file"
    blocked.touch()
    assert not state_folder(blocked).ok


def test_modules_that_are_unwell_are_named(tmp_path: Path) -> None:
    workspace = Workspace()
    agent = AgentProcess(workspace, tmp_path)
    agent.state.mkdir(mode=0o700)
    StateStore(agent.state).desired.write_bytes(workspace.signed(desired({"pump": shell("exit 3"), "fan": shell("sleep 1000")})))
    with agent:
        agent.wait_state("fan", "running")

        def unwell() -> str:
            """Between two waits it runs for a moment."""
            found = {check.name: check for check in modules(agent.state)}
            assert found["agent"].ok
            return "" if "modules" not in found or found["modules"].ok else found["modules"].detail

        detail = wait_for(unwell, what="the check to name the module", timeout_s=30)
        assert detail.startswith("pump (")
        assert "fan" not in detail
    (stopped,) = modules(agent.state)
    assert (stopped.name, stopped.ok, stopped.warning) == ("agent", True, True)


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Nobody reads it."""


@pytest.fixture
def registry() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_clock_that_is_wrong_is_told_by_the_registry(registry: str) -> None:
    config = Workspace(registry_url=registry).config
    (right,) = clock_of_registry(config, datetime.now(UTC))
    (wrong,) = clock_of_registry(config, datetime.now(UTC) - timedelta(hours=3))
    assert (right.ok, wrong.ok) == (True, False)
    assert "Set the clock" in wrong.remedy
    assert list(clock_of_registry(Workspace().config, datetime.now(UTC))) == []


@pytest.mark.parametrize("command", ["status", "events"])
def test_a_path_with_a_slip_of_the_pen_is_no_device_without_a_report(command: str, tmp_path: Path) -> None:
    refused = run(command, "--config", tmp_path / "pres-1.toml")
    assert refused.returncode == 2
    assert "Cannot read the device configuration" in refused.stderr
    assert refused.stdout == ""


def test_an_upgrade_that_is_tried_dry_needs_its_wheel_too(tmp_path: Path) -> None:
    wheel, config = tmp_path / "hedgerow-0.2.0-py3-none-any.whl", tmp_path / "device.toml"
    refused = run("upgrade", "--dry-run", "--config", config, "--wheel", wheel)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "there is no file" in refused.stderr
    wheel.touch()
    assert "build release 0.2.0" in run("upgrade", "--dry-run", "--config", config, "--wheel", wheel).stdout
