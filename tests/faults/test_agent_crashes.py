"""The agent killed (kill -9) in every situation, and its files damaged: modules do not notice, orders come to their end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import msgspec
import pytest

from hedgerow.contracts.edge import Probe
from hedgerow.process import Supervised
from tests.agent_builders import Workspace, command, shell
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.fixtures.brokers import Broker
from tests.process_folders import alive
from tests.small_disk import small_disk
from tests.small_hub import SmallHub
from tests.waiting import free_port, wait_for

SLEEPER = shell("exec sleep 1000")
KILLS = 6
# Keeps posting numbered messages and writes each number to a file once it was acknowledged; waits while nobody listens.
STEADY_POSTER = """
import json, os, time, urllib.request
url, token = os.environ["HEDGEROW_TELEMETRY_URL"], os.environ["HEDGEROW_TELEMETRY_TOKEN"]
number = int(open("told").read().split()[-1]) + 1 if os.path.exists("told") else 0
with open("told", "a") as told:
    while True:
        request = urllib.request.Request(url, data=str(number).encode(), method="POST",
            headers={"authorization": "Bearer " + token, "idempotency-key": f"k{number}"})
        try:
            urllib.request.urlopen(request, timeout=5).read()
        except OSError:
            time.sleep(0.02)
            continue
        told.write(f"{number}\\n"); told.flush()
        number += 1
"""
# Serves 200, or 500 while the file "sick" is there, and ignores SIGTERM; from its second start on it only sleeps.
STUBBORN = """
import http.server, os, signal, sys, time
if os.path.exists("started-before"):
    time.sleep(1000)
open("started-before", "w").close()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.path.exists("sick") else 200); self.send_header("content-length", "0"); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""


@pytest.mark.alone
def test_killed_over_running_modules_it_adopts_them_without_a_restart(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy(dict.fromkeys("abc", SLEEPER))
    for name in "abc":
        agent.wait_state(name, "running")
    pids = {name: agent.pid_of(name) for name in "abc"}
    for _ in range(3):
        agent.kill()
        before = time.monotonic()
        agent.start()
        wait_for_or_show(agent, lambda: agent.metric("hedgerow_agent_desired_version") == 1, 10, "the desired state")
        wait_for_or_show(
            agent, lambda: agent.metric("hedgerow_agent_module_restarts_total") == 0 and _running(agent) == 3, 10, "adoption"
        )
        assert time.monotonic() - before < 5.0, "adoption took long even for a busy test machine"
        assert {name: agent.pid_of(name) for name in "abc"} == pids
    assert len([d for d in agent.decisions() if d.action == "start"]) == 3


def _running(agent: AgentProcess) -> int:
    return agent.get("/metrics")[1].count('state="running"} 1\n')


@pytest.mark.alone
def test_a_module_that_ended_while_nobody_watched_is_started_again(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": SLEEPER, "other": SLEEPER})
    pid, other = agent.wait_pid("m"), agent.wait_pid("other")
    agent.wait_state("m", "running")
    agent.kill()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: agent.pid_of("m") is None, what="the module's end")
    agent.start()
    agent.wait_pid("m", other_than=pid, timeout_s=3.0)
    status = wait_for_or_show(agent, lambda: (s := agent.module("m")) and s.restart_count == 1 and s, 5, "the count")
    assert status
    assert agent.pid_of("other") == other


@pytest.mark.alone
def test_a_module_killed_right_after_adoption_is_noticed_too(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": SLEEPER})
    pid = agent.wait_pid("m")
    agent.wait_state("m", "running")
    agent.kill()
    agent.start()
    os.kill(pid, signal.SIGKILL)
    agent.wait_pid("m", other_than=pid, timeout_s=3.0)


def test_a_killed_shim_takes_its_module_along_and_both_come_back(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": SLEEPER})
    pid = agent.wait_pid("m")
    agent.wait_state("m", "running")
    record = json.loads((agent.state / "modules/m/process/state.json").read_bytes())
    os.kill(record["shim_pid"], signal.SIGKILL)
    agent.wait_pid("m", other_than=pid)
    wait_for(lambda: not alive(pid), what="the end of the first one")


def test_backoff_goes_on_where_it_was(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": shell("exit 3")})
    status = wait_for_or_show(
        agent, lambda: (s := agent.module("m")) and s.restart_count >= 3 and s.state == "backoff" and s, 20, "backoff"
    )
    assert status
    agent.kill()
    starts = len([d for d in agent.decisions() if d.action == "start"])
    agent.start()
    wait_for_or_show(agent, lambda: (s := agent.module("m")) and s.restart_count > status.restart_count, 20, "the next restart")
    # No fresh start: at most the restart that was due, not the quick series of a module without a history.
    assert len([d for d in agent.decisions() if d.action == "start"]) <= starts + 2


def test_a_stop_for_unhealthiness_is_carried_to_its_end(hub: SmallHub, agent: AgentProcess) -> None:
    port = free_port()
    probe = Probe(path="/", period_s=0.1, failure_threshold=1)
    hub.deploy({"m": command(sys.executable, "-c", STUBBORN, str(port), port=port, probe=probe, stop_grace_s=4.0)})
    agent.wait_state("m", "running")
    pid = agent.wait_pid("m")
    (agent.state / "modules/m/work/sick").touch()
    wait_for_or_show(agent, lambda: any(d.action == "stop" for d in agent.decisions()), 10, "the stop")
    agent.kill()
    assert alive(pid)
    (agent.state / "modules/m/work/sick").unlink()  # it is well again, but its end was decided
    agent.start()
    agent.wait_pid("m", other_than=pid, timeout_s=30)
    assert len([d for d in agent.decisions() if d.action == "stop"]) == 2


def test_killed_in_the_middle_of_an_update_only_the_new_version_runs(hub: SmallHub, agent: AgentProcess) -> None:
    slow_to_end = shell("trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done")
    hub.deploy({"m": slow_to_end})
    pid = agent.wait_pid("m")
    agent.wait_state("m", "running")
    hub.deploy({"m": SLEEPER})
    wait_for_or_show(agent, lambda: any(d.action == "stop" for d in agent.decisions()), 10, "the stop")
    agent.kill()
    agent.start()
    agent.wait_pid("m", other_than=pid)
    agent.wait_state("m", "running")
    wait_for(lambda: not alive(pid), what="the end of the old version")
    # Between its fork and its exec a new process still has the supervising one's command line.
    wait_for(lambda: _command_line(agent.wait_pid("m")) == "sleep 1000", what="the new version's command")


def _command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()


def test_killed_again_and_again_under_telemetry_it_loses_and_doubles_nothing(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": command(sys.executable, "-c", STEADY_POSTER)})
    pid = agent.wait_pid("m")
    told = agent.state / "modules/m/work/told"
    chance = random.Random(7)
    for _ in range(KILLS):
        enough = (told.stat().st_size if told.exists() else 0) + chance.randrange(200, 2000)
        wait_for(lambda enough=enough: told.exists() and told.stat().st_size > enough, timeout_s=30, what="more telemetry")  # type: ignore[misc]  # bound for this round
        agent.kill()
        agent.start()
    assert agent.pid_of("m") == pid, "the module was restarted"
    Supervised(agent.state / "modules/m/process").signal(signal.SIGSTOP)
    acknowledged = told.read_text().split()
    wait_for_or_show(agent, lambda: len(hub.bodies()) >= len(acknowledged), 60, "everything at the hub")
    wait_for_or_show(agent, lambda: agent.metric("edgehub_queue_length") == 0, 30, "the acknowledgements")
    arrived = hub.bodies()
    assert arrived == [str(number) for number in range(len(arrived))]
    # One message may have been stored without the module having heard of it.
    assert len(arrived) - len(acknowledged) <= 1
    assert len({hello.epoch for hello in hub.model.hellos}) == 1


@pytest.mark.parametrize(
    "name", ["history.json", "intake.json", "starts.json", "report.json", "decisions.jsonl", "outbox.sqlite"]
)
@pytest.mark.parametrize("content", [b"\0" * 4096, b"garbage " * 1000])
def test_a_damaged_file_is_set_aside_and_the_modules_run_on(
    hub: SmallHub, agent: AgentProcess, name: str, content: bytes
) -> None:
    hub.deploy({"m": SLEEPER})
    pid = agent.wait_pid("m")
    agent.wait_state("m", "running")
    agent.kill()
    (agent.state / name).write_bytes(content)
    agent.start()
    wait_for_or_show(agent, lambda: _running(agent) == 1, 10, "the module in the metrics")
    agent.wait_state("m", "running")
    assert agent.pid_of("m") == pid


def test_a_damaged_desired_state_touches_nothing_until_the_hub_sends_it_again(
    hub: SmallHub, agent: AgentProcess, broker: Broker
) -> None:
    hub.deploy({"m": SLEEPER})
    pid = agent.wait_pid("m")
    agent.wait_state("m", "running")
    agent.kill()
    (agent.state / "desired.dsse.json").write_bytes(b"\xff" * 300)
    hub.model.refuse = "not now"
    agent.start()
    wait_for_or_show(agent, lambda: any(d.action == "set-aside" for d in agent.decisions()), 10, "the decision")
    wait_for(lambda: len(hub.model.hellos) >= 2, what="a hello of the new agent")
    assert hub.model.hellos[-1].accepted_desired_version == 0
    assert agent.pid_of("m") == pid
    hub.model.refuse = ""
    wait_for_or_show(agent, lambda: agent.metric("hedgerow_agent_desired_version") == 1, 20, "the desired state")
    assert agent.pid_of("m") == pid


def test_history_is_readable_json(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": shell("exit 1")})
    agent.wait_state("m", "backoff")
    history = msgspec.json.decode((agent.state / "history.json").read_bytes())
    assert history["modules"]["m"]["failures"] >= 1


@pytest.mark.alone
def test_a_full_disk_keeps_no_agent_from_looking_after_its_modules(broker: Broker, tmp_path: Path) -> None:
    workspace = Workspace(broker_url=broker.url, uuid=os.urandom(16).hex())
    with (
        small_disk(tmp_path / "device", "6m") as disk,
        SmallHub(workspace, broker.port) as hub,
        AgentProcess(workspace, disk) as agent,
    ):
        hub.deploy({"m": SLEEPER, "poster": command(sys.executable, "-c", STEADY_POSTER)})
        agent.wait_state("m", "running")
        pid, poster = agent.wait_pid("m"), agent.wait_pid("poster")
        wait_for(lambda: hub.bodies(), what="the first telemetry")
        agent.kill()
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)
        agent.start()
        wait_for_or_show(agent, lambda: _running(agent) == 2, 20, "the adoption")
        assert (agent.pid_of("m"), agent.pid_of("poster")) == (pid, poster)
        wait_for_or_show(agent, lambda: agent.metric("hedgerow_agent_intake_refused_total") > 0, 20, "a refused message")
        ballast.unlink()
        before = len(hub.bodies())
        wait_for_or_show(agent, lambda: len(hub.bodies()) > before + 20, 60, "telemetry again")
        assert hub.bodies() == [str(number) for number in range(len(hub.bodies()))]
        os.kill(pid, signal.SIGKILL)
        agent.wait_pid("m", other_than=pid, timeout_s=3.0)
