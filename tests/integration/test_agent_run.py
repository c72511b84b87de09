"""A real agent on a real broker with a small hub: deploys, restarts, refuses, reports, ships telemetry, boots offline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import Probe
from hedgerow.contracts.seal import seal
from hedgerow.contracts.status import StatusReport
from hedgerow.contracts.telemetry import TelemetryAck
from tests.agent_builders import Workspace, command, desired, shell
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.fixtures.brokers import Broker, MosquittoFactory
from tests.small_hub import SmallHub
from tests.waiting import free_port, wait_for

SLEEPER = shell("exec sleep 1000")
# Posts one message, then a line to its log; the environment has everything it needs.
POSTER = """
import json, os, sys, time, urllib.request
for number in range(int(sys.argv[1])):
    request = urllib.request.Request(
        os.environ["HEDGEROW_TELEMETRY_URL"], data=json.dumps({"n": number}).encode(), method="POST",
        headers={"authorization": "Bearer " + os.environ["HEDGEROW_TELEMETRY_TOKEN"], "idempotency-key": f"k{number}"})
    urllib.request.urlopen(request, timeout=20).read()
time.sleep(1000)
"""
# Answers /health with 200 until the file "sick" is there, in its working folder.
SICKLY = """
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.path.exists("sick") else 200); self.send_header("content-length", "0"); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""


@pytest.fixture
def workspace(broker: Broker) -> Workspace:
    return Workspace(broker_url=broker.url, uuid=os.urandom(16).hex())


@pytest.fixture
def hub(workspace: Workspace, broker: Broker) -> Iterator[SmallHub]:
    with SmallHub(workspace, broker.port) as made:
        yield made


@pytest.fixture
def agent(workspace: Workspace, tmp_path: Path) -> Iterator[AgentProcess]:
    with AgentProcess(workspace, tmp_path / "device") as made:
        yield made


def in_session(hub: SmallHub) -> None:
    wait_for(lambda: hub.model.session, what="the agent's session")


def test_a_deployed_module_runs_and_is_reported(hub: SmallHub, agent: AgentProcess) -> None:
    version = hub.deploy({"m": command("/bin/sh", "-c", "exec sleep 1000", variables={"A": "1"})})
    pid = agent.wait_pid("m")
    report = wait_for(lambda: hub.report if hub.state_of("m") == "running" else None, what="the report")
    assert report is not None
    assert (report.desired.version, report.desired.code) == (version, 200)
    assert report.modules["m"].pid == pid
    assert report.session == hub.model.session
    assert [d.action for d in report.decisions if d.module == "m"] == ["start"]
    environment = dict(line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if line)
    assert environment["A"] == "1"
    assert environment["HEDGEROW_MODULE"] == "m"
    assert environment["HEDGEROW_TELEMETRY_URL"] == f"http://127.0.0.1:{agent.port}/telemetry"
    assert "HOME" not in environment


@pytest.mark.alone
def test_a_killed_module_is_back_within_a_second_and_the_reason_is_recorded(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": SLEEPER})
    pid = agent.wait_pid("m")
    agent.wait_state("m", "running")
    os.kill(pid, signal.SIGKILL)
    agent.wait_pid("m", other_than=pid, timeout_s=1.0)
    status = wait_for_or_show(
        agent, lambda: (s := agent.module("m")) and s.restart_count == 1 and s, 5, "the count of the restart"
    )
    assert status
    assert any(d.action == "start" and "SIGKILL" in d.reason for d in agent.decisions())


def test_a_module_that_keeps_crashing_backs_off_and_others_do_not_suffer(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"bad": shell("echo no such sensor; exit 3"), "good": SLEEPER})
    agent.wait_state("good", "running")
    told = "exit code 3, its last words: no such sensor"
    # Between two tries a report may say that an action is under way.
    report = wait_for(lambda: _backing_off(agent, "bad", told), what="the reason of the backoff")
    assert report is not None
    assert report.modules["bad"].exit_code == 3
    assert report.desired.code == 500
    # A new desired state is a new cause: no waiting, and the count is back at zero.
    hub.deploy({"bad": shell("exec sleep 1000"), "good": SLEEPER})
    agent.wait_state("bad", "running")


def _backing_off(agent: AgentProcess, module: str, told: str) -> StatusReport | None:
    report = agent.report()
    status = report.modules.get(module) if report else None
    return report if status and status.state == "backoff" and told in status.reason else None


def test_policies_never_and_on_failure_leave_what_ended_well(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"done": shell("exit 0", restart_policy="on-failure"), "once": shell("exit 2", restart_policy="never")})
    assert agent.wait_state("done", "exited").exit_code == 0
    assert agent.wait_state("once", "failed").exit_code == 2
    assert [d.module for d in agent.decisions() if d.action == "start"] == ["done", "once"]


def test_a_program_that_is_not_there_is_told_and_tried_again(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": command("/no/such/program")})
    status = agent.wait_state("m", "backoff")
    assert "/no/such/program" in status.reason
    assert any(d.action == "start-failed" for d in agent.decisions())


def test_an_update_replaces_and_a_removal_cleans_up(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": SLEEPER, "old": SLEEPER})
    first, unchanged = agent.wait_pid("m"), agent.wait_pid("old")
    hub.deploy({"m": shell("exec sleep 2000"), "old": SLEEPER})
    agent.wait_pid("m", other_than=first)
    assert agent.pid_of("old") == unchanged
    hub.deploy({})
    wait_for_or_show(agent, lambda: not list((agent.state / "modules").iterdir()), 20, "the modules to be gone")


def test_a_changed_policy_restarts_nothing(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": SLEEPER})
    pid = agent.wait_pid("m")
    version = hub.deploy({"m": shell("exec sleep 1000", restart_policy="never", startup_order=3)})
    wait_for(
        lambda: hub.report is not None and hub.report.desired.version == version and hub.report.desired.code == 200, what="v2"
    )
    assert agent.pid_of("m") == pid


def test_stopped_and_running_again(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": SLEEPER})
    pid = agent.wait_pid("m")
    hub.deploy({"m": shell("exec sleep 1000", status="stopped")})
    agent.wait_state("m", "stopped")
    assert agent.pid_of("m") is None
    hub.deploy({"m": SLEEPER})
    agent.wait_pid("m", other_than=pid)


@pytest.mark.alone
def test_a_slow_stop_delays_nobody(hub: SmallHub, agent: AgentProcess) -> None:
    stubborn = shell("trap '' TERM; while :; do sleep 1; done", stop_grace_s=6.0)
    hub.deploy({"stubborn": stubborn, "m": SLEEPER})
    agent.wait_pid("stubborn")
    pid = agent.wait_pid("m")
    hub.deploy({"m": SLEEPER})
    wait_for_or_show(agent, lambda: any(d.action == "stop" for d in agent.decisions()), 10, "the stop")
    os.kill(pid, signal.SIGKILL)
    agent.wait_pid("m", other_than=pid, timeout_s=1.0)
    assert agent.pid_of("stubborn") is not None


def test_an_unhealthy_module_is_restarted(hub: SmallHub, agent: AgentProcess) -> None:
    port = free_port()
    probe = Probe(path="/health", period_s=0.1, timeout_s=1.0, failure_threshold=3)
    hub.deploy({"m": command(sys.executable, "-c", SICKLY, str(port), port=port, probe=probe, restart_policy="on-unhealthy")})
    assert agent.wait_state("m", "running").address == f"http://127.0.0.1:{port}"
    pid = agent.wait_pid("m")
    sick = agent.state / "modules" / "m" / "work" / "sick"
    sick.touch()
    wait_for_or_show(agent, lambda: any("answered 500 (3 times" in d.reason for d in agent.decisions()), 10, "the finding")
    sick.unlink()
    agent.wait_pid("m", other_than=pid)
    agent.wait_state("m", "running")


@pytest.mark.alone
def test_a_hung_module_is_noticed(hub: SmallHub, agent: AgentProcess) -> None:
    port = free_port()
    probe = Probe(path="/health", period_s=0.2, timeout_s=0.3, failure_threshold=2)
    hub.deploy({"m": command(sys.executable, "-c", SICKLY, str(port), port=port, probe=probe, stop_grace_s=0.5)})
    agent.wait_state("m", "running")
    pid = agent.wait_pid("m")
    os.kill(pid, signal.SIGSTOP)
    agent.wait_pid("m", other_than=pid)
    agent.wait_state("m", "running")


def test_startup_order_waits_for_readiness(hub: SmallHub, agent: AgentProcess) -> None:
    port = free_port()
    # The first is ready once the test lets it be.
    gate = agent.folder / "gate"
    waiting = f"while [ ! -e {gate} ]; do sleep 0.05; done; exec {sys.executable} -c '{SICKLY}' {port}"
    first = shell(waiting, port=port, probe=Probe(path="/health", period_s=0.1), startup_order=0)
    hub.deploy({"first": first, "second": shell("exec sleep 1000", startup_order=1)})
    agent.wait_state("first", "starting")
    second = wait_for_or_show(agent, lambda: (s := agent.module("second")) and "after first" in s.reason and s, 10, "the wait")
    assert second
    assert agent.pid_of("second") is None
    gate.touch()
    agent.wait_state("second", "running")


@pytest.mark.parametrize("what", ["forged", "foreign", "older", "incarnation"])
def test_what_may_not_run_is_refused_and_reported_with_its_code(what: str, hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": SLEEPER})
    version = hub.deploy({"m": SLEEPER})
    pid = agent.wait_pid("m")
    wait_for(lambda: hub.report is not None and hub.report.desired.code == 200, what="the good state")
    evil = {"evil": shell("exec sleep 999")}
    cases: dict[str, tuple[Workspace, int, dict[str, Any]]] = {
        "forged": (Workspace(), 401, {"version": version + 1}),
        "foreign": (hub.workspace, 403, {"version": version + 1, "uuid": "another"}),
        "older": (hub.workspace, 409, {"version": version - 1}),
        "incarnation": (hub.workspace, 409, {"version": version + 1, "incarnation": "inc-0"}),
    }
    signer, code, fields = cases[what]
    hub.send("desired", signer.signed(desired(evil, **{"uuid": hub.workspace.uuid, **fields})))
    wait_for(lambda: hub.report is not None and hub.report.desired.code == code, what=f"code {code}")
    assert any(d.action == "refuse-desired" and str(code) in d.reason for d in agent.decisions())
    assert agent.pid_of("m") == pid
    assert agent.pid_of("evil") is None
    # The next good one takes the refusal away.
    hub.deploy({"m": SLEEPER})
    wait_for(lambda: hub.report is not None and hub.report.desired.code == 200, what="the good state again")


def test_telemetry_of_a_module_reaches_the_hub_once(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": command(sys.executable, "-c", POSTER, "100")})
    expected = [json.dumps({"n": n}) for n in range(100)]
    wait_for_or_show(agent, lambda: len(hub.bodies()) >= 100, 20, "the telemetry")
    assert hub.bodies() == expected
    wait_for(lambda: agent.metric("edgehub_queue_length") == 0, what="the acknowledgements")
    assert agent.metric("edgehub_messages_received_total") == 100
    assert {m.module for messages in hub.model.stored.values() for m in messages} == {"m"}


def test_lost_batches_and_silent_acks_lose_nothing(hub: SmallHub, agent: AgentProcess) -> None:
    in_session(hub)
    hub.drop = 2
    hub.mute = True
    hub.deploy({"m": command(sys.executable, "-c", POSTER, "50")})
    wait_for_or_show(agent, lambda: agent.metric("edgehub_messages_received_total") == 50, 20, "the messages")
    hub.mute = False
    wait_for_or_show(agent, lambda: len(hub.bodies()) >= 50, 40, "the telemetry")
    wait_for_or_show(agent, lambda: agent.metric("edgehub_queue_length") == 0, 40, "the acknowledgements")
    assert hub.bodies() == [json.dumps({"n": n}) for n in range(50)]


def test_forged_acks_and_welcomes_change_nothing(hub: SmallHub, agent: AgentProcess) -> None:
    in_session(hub)
    hub.mute = True
    hub.deploy({"m": command(sys.executable, "-c", POSTER, "5")})
    wait_for_or_show(agent, lambda: agent.metric("edgehub_queue_length") == 5, 20, "the messages")
    wait_for(lambda: hub.model.batches, what="a batch")
    batch = hub.model.batches[0]
    ack = TelemetryAck(
        device_uuid=batch.device_uuid,
        session=hub.model.session or "",
        incarnation=hub.model.incarnation,
        epoch=batch.epoch,
        stream=batch.stream,
        watermark=5,
        chain="0" * 64,
    )
    stolen_password = b"not the device key".ljust(32)
    hub.send("acks", seal(stolen_password, hub.workspace.uuid, "acks", encode(ack)))
    hub.send("acks", b"garbage")
    hub.send("welcome", b"hedgerow-seal-v1 " + b"0" * 64 + b"\n{}")
    wait_for(lambda: agent.metric("hedgerow_agent_messages_refused_total") == 3, what="the refusals")
    assert agent.metric("edgehub_queue_length") == 5


def test_a_refused_session_is_told_and_tried_again(workspace: Workspace, hub: SmallHub, agent: AgentProcess) -> None:
    in_session(hub)
    hub.model.refuse = "another agent holds this device's session"
    agent.stop()
    agent.start()
    wait_for(lambda: len(hub.model.hellos) >= 3, what="repeated hellos")
    assert agent.metric("hedgerow_agent_session") == 0
    assert [d.reason for d in agent.decisions() if d.action == "session-refused"] == [hub.model.refuse]
    assert [hello.starts for hello in hub.model.hellos][0:2] == [1, 2]
    assert len({hello.instance for hello in hub.model.hellos}) == 2
    hub.model.refuse = ""
    wait_for(lambda: agent.metric("hedgerow_agent_session") == 1, timeout_s=20, what="the session")


def test_a_broker_that_goes_away_and_comes_back(mosquitto: MosquittoFactory, tmp_path: Path) -> None:
    with mosquitto() as own:
        workspace = Workspace(broker_url=own.url)
        with SmallHub(workspace, own.port) as hub, AgentProcess(workspace, tmp_path / "device") as agent:
            hub.deploy({"m": command(sys.executable, "-c", POSTER, "20")})
            wait_for_or_show(agent, lambda: len(hub.bodies()) == 20, 20, "the first telemetry")
            own.kill()
            wait_for(lambda: agent.metric("hedgerow_agent_connected") == 0, what="the lost connection")
            os.kill(agent.wait_pid("m"), signal.SIGKILL)  # it posts the same keys again: repeats, nothing new
            own.start()
            hub.deploy({"m": command(sys.executable, "-c", POSTER, "30")})
            wait_for_or_show(agent, lambda: len(hub.bodies()) >= 30, 40, "the telemetry after the cut")
            assert hub.bodies() == [json.dumps({"n": n}) for n in range(30)]


def test_both_brokers_carry_the_protocol(embedded_broker: Broker, tmp_path: Path) -> None:
    workspace = Workspace(broker_url=embedded_broker.url)
    with SmallHub(workspace, embedded_broker.port) as hub, AgentProcess(workspace, tmp_path / "device") as agent:
        hub.deploy({"m": command(sys.executable, "-c", POSTER, "200")})
        wait_for_or_show(agent, lambda: len(hub.bodies()) >= 200, 30, "the telemetry")
        assert hub.bodies() == [json.dumps({"n": n}) for n in range(200)]


def test_a_restored_hub_gets_what_it_lacks(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": command(sys.executable, "-c", POSTER, "40")})
    wait_for_or_show(agent, lambda: len(hub.bodies()) == 40, 20, "the telemetry")
    wait_for(lambda: agent.metric("edgehub_queue_length") == 0, what="the acknowledgements")
    with hub.lock:
        hub.model.restore(keep=10)
    agent.stop()
    agent.start()
    wait_for_or_show(agent, lambda: len(hub.bodies()) == 40, 20, "the replay")
    assert hub.bodies() == [json.dumps({"n": n}) for n in range(40)]


@pytest.mark.alone
def test_it_boots_offline_and_runs_what_it_knows(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": SLEEPER})
    pid = agent.wait_pid("m")
    agent.stop()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: agent.pid_of("m") is None, what="the module's end")
    config = agent.config.read_text().replace(hub.workspace.broker_url, "mqtt://192.0.2.1:1883")
    agent.config.write_text(config)
    agent.start()
    agent.wait_pid("m", other_than=pid, timeout_s=3.0)


def test_a_second_agent_on_the_same_folder_is_refused_with_the_pid(agent: AgentProcess) -> None:
    argv = [sys.executable, "-P", "-m", "edge_agent", "run", "--config", str(agent.config)]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert str(agent.process.pid) in second.stderr


def test_sigterm_leaves_the_modules_and_the_option_stops_them_in_reverse_order(
    workspace: Workspace, hub: SmallHub, tmp_path: Path
) -> None:
    with AgentProcess(workspace, tmp_path / "device") as agent:
        hub.deploy({"a": shell("exec sleep 1000", startup_order=1), "b": shell("exec sleep 1000", startup_order=2)})
        first = agent.wait_pid("a")
        agent.wait_state("b", "running")
        agent.stop()
        assert agent.pid_of("a") == first
    with AgentProcess(workspace, tmp_path / "device", "--stop-modules-on-exit") as agent:
        agent.wait_pid("a")
        # By its pid: what the last agent reported of it is still on the disk.
        agent.wait_pid("b")
        agent.stop()
        assert agent.pid_of("a") is None
        assert agent.pid_of("b") is None
        assert [d.module for d in agent.decisions() if d.action == "stop"] == ["b", "a"]


def test_it_ends_with_its_parent_when_told_to_watch(workspace: Workspace, tmp_path: Path) -> None:
    config = workspace.write_toml(tmp_path / "device.toml")
    argv = [sys.executable, "-P", "-m", "edge_agent", "run", "--config", str(config), "--watch-parent"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        wait_for(lambda: (tmp_path / "state" / "report.json").exists(), what="the first report")
        assert child.poll() is None
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10) == 0


def test_an_idle_agent_is_small(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": SLEEPER})
    agent.wait_state("m", "running")
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    rss_kb = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert rss_kb <= 52 * 1024
