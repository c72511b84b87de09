"""The agent killed (kill -9) at each step of an update: the trial goes on or is taken back, and never do two versions run."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import msgspec

from hedgerow.contracts.edge import Probe, UpdatePolicy
from tests.agent_builders import shell
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.process_folders import alive
from tests.small_hub import SmallHub
from tests.waiting import wait_for

OLD = shell("exec sleep 1000")
PATIENT = UpdatePolicy(commit_after_s=3600.0, ready_within_s=3600.0)
SOON = UpdatePolicy(commit_after_s=1.0, ready_within_s=3600.0)
# Ignores SIGTERM for as long as the file "stay" is there, in either version.
STUBBORN = "trap 'while [ -e stay ]; do sleep 0.05; done; exit 0' TERM; while :; do sleep 0.05; done"


def wait_decided(agent: AgentProcess, action: str, *, times: int = 1) -> None:
    def look() -> bool:
        return sum(d.action == action for d in agent.decisions()) >= times

    wait_for_or_show(agent, look, 40, f"{times} x {action}")


def command_line(agent: AgentProcess) -> str:
    pid = agent.pid_of("m")
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip() if pid else ""
    except OSError:
        return ""


def wait_runs(agent: AgentProcess, text: str) -> int:
    wait_for_or_show(agent, lambda: text in command_line(agent), 40, f"a module with {text!r}")
    return agent.wait_pid("m")


def work(agent: AgentProcess, name: str) -> Path:
    return agent.state / "modules/m/work" / name


def test_killed_while_the_old_version_stops_the_trial_begins_with_the_next_agent(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": shell(STUBBORN)})
    old = wait_runs(agent, "stay")
    work(agent, "stay").touch()
    hub.deploy({"m": shell("exec sleep 2000", update=SOON)})
    wait_decided(agent, "stop")
    agent.kill()
    work(agent, "stay").unlink()
    agent.start()
    wait_runs(agent, "sleep 2000")
    assert not alive(old)
    wait_decided(agent, "commit")


def test_killed_on_trial_the_next_agent_goes_on_with_it(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": OLD})
    wait_runs(agent, "sleep 1000")
    well = Probe(kind="exec", command=["/bin/sh", "-c", "test -e well"], period_s=0.3, start_patience_s=3600.0)
    hub.deploy({"m": shell("exec sleep 2000", probe=well, update=SOON)})
    new = wait_runs(agent, "sleep 2000")
    wait_decided(agent, "trial")
    for _ in range(2):
        agent.kill()
        agent.start()
        agent.wait_state("m", "starting", timeout_s=30)
    work(agent, "well").touch()
    wait_decided(agent, "commit")
    assert agent.pid_of("m") == new


def test_a_new_version_that_ends_while_no_agent_looks_is_taken_back(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": OLD})
    wait_runs(agent, "sleep 1000")
    hub.deploy({"m": shell("exec sleep 2000", update=PATIENT)})
    new = wait_runs(agent, "sleep 2000")
    wait_decided(agent, "trial")
    agent.kill()
    os.kill(new, signal.SIGKILL)
    wait_for(lambda: agent.pid_of("m") is None, timeout_s=30, what="the module's end")
    agent.start()
    wait_decided(agent, "rollback")
    wait_runs(agent, "sleep 1000")


def test_killed_in_the_middle_of_a_rollback_it_is_carried_to_its_end(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": OLD})
    wait_runs(agent, "sleep 1000")
    sick = Probe(kind="exec", command=["/bin/sh", "-c", "test ! -e sick"], period_s=0.2, failure_threshold=1)
    hub.deploy({"m": shell(STUBBORN, probe=sick, update=PATIENT, stop_grace_s=600.0)})
    new = wait_runs(agent, "stay")
    # Of the new version: the report may still be the one on the old. One that was never well would be waited for.
    wait_for_or_show(agent, lambda: (s := agent.module("m")) and s.trial and s.state == "running", 60, "the trial running")
    work(agent, "stay").touch()
    work(agent, "sick").touch()
    wait_decided(agent, "rollback")
    wait_decided(agent, "stop", times=2)
    agent.kill()
    assert alive(new)
    work(agent, "sick").unlink()  # well again, but taken back it is
    work(agent, "stay").unlink()
    agent.start()
    wait_runs(agent, "sleep 1000")
    assert not alive(new)
    wait_for_or_show(agent, lambda: (r := agent.report()) and r.desired.code == 500, 30, "the outcome")
    refused = msgspec.json.decode((agent.state / "versions.json").read_bytes())["modules"]["m"]["refused"]
    assert "ended with exit code 1" in refused["reason"]


def test_killed_again_and_again_a_bad_version_is_taken_back_in_the_end(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": OLD})
    wait_runs(agent, "sleep 1000")
    hub.deploy({"m": shell("sleep 0.5; exit 9", update=UpdatePolicy(max_failures=2, commit_after_s=3600.0))})
    chance = random.Random(11)
    for _ in range(5):
        # Wherever it is in the update by then.
        began_s, moment_s = time.monotonic(), chance.uniform(0.0, 0.6)
        wait_for(lambda began_s=began_s, moment_s=moment_s: time.monotonic() >= began_s + moment_s, timeout_s=30, what="a moment")  # type: ignore[misc]  # bound for this round
        agent.kill()
        agent.start()
    wait_decided(agent, "rollback")
    wait_runs(agent, "sleep 1000")
    wait_for_or_show(agent, lambda: (r := agent.report()) and r.modules["m"].rolled_back_from, 30, "the report")


def test_a_damaged_memory_of_versions_costs_the_way_back_and_no_module(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": OLD})
    pid = wait_runs(agent, "sleep 1000")
    agent.wait_state("m", "running", timeout_s=30)
    agent.kill()
    (agent.state / "versions.json").write_bytes(b"\0" * 4096)
    agent.start()
    agent.wait_state("m", "running", timeout_s=30)
    assert agent.pid_of("m") == pid
    assert any(d.action == "set-aside" and "versions.json" in d.reason for d in agent.decisions())
