"""Updates on a real agent with real modules: kept when they are well, taken back when they are not, and the hub learns why."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hedgerow.contracts.edge import DesiredModule, ModuleSpec, Probe, UpdatePolicy
from tests.agent_builders import command, pin, shell
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.small_hub import SmallHub
from tests.waiting import free_port, wait_for

# Long enough that no test sees a commit it does not wait for.
PATIENT = UpdatePolicy(commit_after_s=3600.0)
SOON = UpdatePolicy(commit_after_s=0.5)
# Answers /metrics as the runtime does, with so many answers by status.
TELLING = """
import http.server, sys
page = "".join(f'hedgerow_requests_total{{route="infer",status="{status}"}} {count}\\n'
    for status, count in zip(("200", "503"), sys.argv[2:4]))
page += "".join(f'hedgerow_request_seconds_bucket{{route="infer",le="{edge}"}} {count}\\n'
    for edge, count in (("0.1", sys.argv[4]), ("+Inf", sys.argv[2])))
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = page.encode() if self.path == "/metrics" else b""
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""


def sleeper(number: int = 1000, **spec: Any) -> DesiredModule:
    return shell(f"exec sleep {number}", **spec)


def decided(agent: AgentProcess, action: str) -> list[str]:
    """The reasons of all decisions of one kind."""
    return [d.reason for d in agent.decisions() if d.action == action]


def wait_decided(agent: AgentProcess, action: str, text: str = "") -> None:
    wait_for_or_show(agent, lambda: any(text in reason for reason in decided(agent, action)), 40, f"{action} {text!r}")


def runs(agent: AgentProcess, number: int, name: str = "m") -> bool:
    """True when the module is ``sleep NUMBER``."""
    pid = agent.pid_of(name)
    try:
        return pid is not None and Path(f"/proc/{pid}/cmdline").read_bytes() == f"sleep\0{number}\0".encode()
    except OSError:
        return False


def wait_runs(agent: AgentProcess, number: int, name: str = "m") -> None:
    wait_for_or_show(agent, lambda: runs(agent, number, name), 40, f"sleep {number}")


def test_a_new_version_that_is_well_is_on_trial_and_then_kept(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": sleeper(1000)})
    wait_runs(agent, 1000)
    version = hub.deploy({"m": sleeper(2000, update=PATIENT)})
    wait_runs(agent, 2000)
    status = wait_for_or_show(agent, lambda: (s := agent.module("m")) and s.trial and s, 30, "the trial in the report")
    assert status
    assert "on trial" in status.reason
    report = agent.report()
    assert report is not None
    assert (report.desired.code, report.desired.version) == (202, version)
    pid = agent.wait_pid("m")
    # Another bound for the same version takes effect at once and restarts nothing.
    hub.deploy({"m": sleeper(2000, update=SOON)})
    wait_decided(agent, "commit", "it was well for 0.5 s")
    wait_for(lambda: hub.report is not None and hub.report.desired.code == 200, timeout_s=30, what="the hub to hear of it")
    assert agent.pid_of("m") == pid
    assert agent.metric("hedgerow_agent_update_commits_total") == 1


def test_a_new_version_that_crashes_is_taken_back_and_the_hub_learns_which_and_why(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": sleeper(1000), "other": sleeper(1000)})
    wait_runs(agent, 1000)
    wait_runs(agent, 1000, "other")
    other = agent.pid_of("other")
    bad = shell("echo no such camera; exit 7", update=PATIENT)
    version = hub.deploy({"m": bad, "other": sleeper(1000)})
    wait_decided(agent, "rollback", "exit code 7, its last words: no such camera")
    wait_runs(agent, 1000)
    report = wait_for(
        lambda: (r := hub.report) is not None and r.desired.code == 500 and r.modules["m"].state == "running" and r,
        timeout_s=30,
        what="the report",
    )
    assert report
    assert report.desired.version == version
    assert report.desired.message.startswith("m: rolled back: it ended with exit code 7")
    assert report.modules["m"].rolled_back_from
    assert "no such camera" in (report.modules["m"].rollback_reason or "")
    assert not report.modules["m"].trial
    assert agent.pid_of("other") == other
    # Neither the next agent nor the next desired state tries it again.
    pid = agent.pid_of("m")
    agent.kill()
    agent.start()
    hub.deploy({"m": bad, "other": sleeper(3000)})
    wait_runs(agent, 3000, "other")
    wait_for(
        lambda: (r := hub.report) and (r.desired.version, r.desired.code) == (hub.version, 500), timeout_s=30, what="the report"
    )
    assert agent.pid_of("m") == pid
    # A third version goes on from the one that was kept.
    hub.deploy({"m": sleeper(4000, update=SOON), "other": sleeper(3000)})
    wait_runs(agent, 4000)
    wait_decided(agent, "commit")


def test_one_that_cannot_be_started_is_taken_back_at_once(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": sleeper(1000)})
    wait_runs(agent, 1000)
    hub.deploy({"m": command("/no/such/program", update=PATIENT)})
    wait_decided(agent, "rollback", "/no/such/program")
    wait_runs(agent, 1000)


def test_one_that_does_not_become_ready_is_taken_back(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": sleeper(1000)})
    wait_runs(agent, 1000)
    never = Probe(kind="exec", command=["/bin/false"])
    hub.deploy({"m": sleeper(2000, probe=never, update=UpdatePolicy(ready_within_s=4.0))})
    wait_decided(agent, "rollback", "not ready within 4 s: /bin/false ended with exit code 1")
    wait_runs(agent, 1000)


def test_one_that_answers_with_errors_or_slowly_is_taken_back(hub: SmallHub, agent: AgentProcess) -> None:
    bounds = UpdatePolicy(commit_after_s=3600.0, max_error_rate=0.1, max_latency_p95_s=0.5)

    def serving(good: int, bad: int, fast: int, **spec: Any) -> DesiredModule:
        port = free_port()
        numbers = [str(number) for number in (port, good, bad, fast)]
        return command(sys.executable, "-c", TELLING, *numbers, port=port, probe=Probe(path="/", period_s=0.5), **spec)

    first = serving(100, 0, 100)
    hub.deploy({"m": first})
    agent.wait_state("m", "running", timeout_s=30)
    hub.deploy({"m": serving(80, 20, 80, update=bounds)})
    wait_decided(agent, "rollback", "20 of 100 answers were errors, 10.00% are allowed")
    agent.wait_state("m", "running", timeout_s=30)
    hub.deploy({"m": serving(100, 0, 90, update=bounds)})
    wait_decided(agent, "rollback", "its p95 latency is inf s, 0.5 s are allowed")


def test_a_first_version_has_only_its_restart_policy(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": shell("exit 3", update=UpdatePolicy(max_failures=0))})
    wait_for_or_show(agent, lambda: (s := agent.module("m")) and s.restart_count >= 2, 60, "restarts")
    assert decided(agent, "rollback") == []


def test_what_runs_is_restarted_while_its_next_image_cannot_be_had(hub: SmallHub, agent: AgentProcess) -> None:
    hub.deploy({"m": sleeper(1000)})
    wait_runs(agent, 1000)
    pid = agent.wait_pid("m")
    unreachable = DesiredModule(spec=ModuleSpec(image="shuttle:1"), image=pin("f"))
    hub.deploy({"m": unreachable})
    wait_for_or_show(agent, lambda: any("Cannot pull" in s.reason for s in [agent.module("m")] if s), 30, "the failed pull")
    os.kill(pid, 9)
    agent.wait_pid("m", other_than=pid, timeout_s=30)
    wait_runs(agent, 1000)


def test_an_image_that_may_not_be_pulled_is_waited_for(hub: SmallHub, agent: AgentProcess) -> None:
    spec = ModuleSpec(image="shuttle:1", pull_policy="never")
    hub.deploy({"m": DesiredModule(spec=spec, image=pin("f")), "other": sleeper(1000)})
    wait_for_or_show(
        agent, lambda: (s := agent.module("m")) and "its pull policy is never" in s.reason, 30, "the reason in the report"
    )
    wait_runs(agent, 1000, "other")
