"""How modules are asked whether they are well: real sockets, real commands with their time-outs and limits, real heartbeats."""

from __future__ import annotations

import http.client
import os
import sys
import threading
from pathlib import Path
from socket import create_server

from edge_agent.engines.asking import Asking, ask_http, ask_tcp
from edge_agent.engines.exec_process import run_in_folder
from edge_agent.engines.heartbeats import MODULES_MAX, Heartbeats
from edge_agent.engines.probes import Prober, Target
from hedgerow.clock import SystemClock
from hedgerow.contracts.edge import Limits, Probe
from tests.agent_builders import command, shell, wanted
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.process_folders import alive
from tests.small_hub import SmallHub
from tests.waiting import free_port, wait_for

ENVIRONMENT = {"PATH": os.environ["PATH"]}
# Says that it is well ten times a second, until the file "silent" is there.
BEATING = """
import os, time, urllib.request
url = os.environ["HEDGEROW_TELEMETRY_URL"].replace("/telemetry", "/heartbeat")
headers = {"authorization": "Bearer " + os.environ["HEDGEROW_TELEMETRY_TOKEN"]}
while True:
    if not os.path.exists("silent"):
        try:
            urllib.request.urlopen(urllib.request.Request(url, data=b"", method="POST", headers=headers), timeout=5).read()
        except OSError:
            pass
    time.sleep(0.1)
"""


def run(script: str, folder: Path, *, timeout_s: float = 20.0, limits: Limits | None = None, **more: str) -> str:
    return run_in_folder(["/bin/sh", "-c", script], folder, {**ENVIRONMENT, **more}, limits or Limits(), timeout_s)


# --- commands --------------------------------------------------------------------------------------------------------


def test_a_command_runs_in_the_modules_folder_with_its_environment(tmp_path: Path) -> None:
    assert run('test "$(pwd)" = "$WHERE"', tmp_path, WHERE=str(tmp_path)) == ""
    assert run("test -n $HOME", tmp_path, HOME="") == ""
    assert "exit code 1" in run('test "$(pwd)" = /', tmp_path)


def test_what_is_wrong_with_a_command_is_told(tmp_path: Path) -> None:
    assert (
        run("echo first; echo the sensor is gone >&2; exit 3", tmp_path) == "/bin/sh ended with exit code 3: the sensor is gone"
    )
    assert run("kill -9 $$", tmp_path) == "/bin/sh ended with signal 9"
    assert "No such file" in run_in_folder(["/no/such/check"], tmp_path, ENVIRONMENT, Limits(), 20.0)
    assert "could not be run" in run_in_folder(["/bin/true"], tmp_path / "missing", ENVIRONMENT, Limits(), 20.0)
    assert "could not be run" in run_in_folder(["/bin/tr\0ue"], tmp_path, ENVIRONMENT, Limits(), 20.0)


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    problem = run("sleep 1000 & echo $! > child; echo $$ > leader; wait", tmp_path, timeout_s=4.0)
    assert problem == "/bin/sh did not end within 4 s"
    for name in ("child", "leader"):
        pid = int((tmp_path / name).read_text())
        wait_for(lambda pid=pid: not alive(pid), timeout_s=30, what=f"the end of the {name}")  # type: ignore[misc]  # bound for this round


def test_what_a_good_command_leaves_behind_goes_too(tmp_path: Path) -> None:
    assert run("sleep 1000 > /dev/null 2>&1 & echo $! > child", tmp_path) == ""
    wait_for(lambda: not alive(int((tmp_path / "child").read_text())), timeout_s=30, what="the end of what it left")


def test_the_modules_limits_hold_and_endless_output_harms_nobody(tmp_path: Path) -> None:
    assert run('test "$(ulimit -n)" = 32', tmp_path, limits=Limits(open_files=32)) == ""
    assert run('test "$(ulimit -d)" = 102400', tmp_path, limits=Limits(memory_bytes=100 << 20)) == ""
    assert run("head -c 5000000 /dev/zero; exit 4", tmp_path).startswith("/bin/sh ended with exit code 4")


# --- connections -----------------------------------------------------------------------------------------------------


def test_a_port_that_takes_connections_is_well() -> None:
    with create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert ask_tcp(address, 5.0) == ""
        assert ask_tcp(address, 5.0, proxied=True) == ""
    assert "took no connection" in ask_tcp(address, 5.0)


def test_a_proxy_in_front_of_nothing_is_seen_through() -> None:
    with create_server(("127.0.0.1", 0)) as server:

        def close_at_once() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=close_at_once)
        thread.start()
        assert "closed the connection at once" in ask_tcp(f"http://127.0.0.1:{server.getsockname()[1]}", 5.0, proxied=True)
        thread.join()


def test_an_http_answer_must_be_200_and_in_time() -> None:
    with create_server(("127.0.0.1", 0)) as silent:
        assert "got no answer within 0.2 s" in ask_http(f"http://127.0.0.1:{silent.getsockname()[1]}", "/", 0.2)


# --- heartbeats ------------------------------------------------------------------------------------------------------


class ByHand(SystemClock):
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


def test_a_heartbeat_counts_for_its_period_and_a_little_more() -> None:
    clock = ByHand()
    heartbeats = Heartbeats(clock)
    asking = Asking(lambda *_: None, lambda *_: "", heartbeats)
    target = Target(wanted(), "r1", Probe(kind="heartbeat", period_s=5.0, timeout_s=2.0))
    heartbeats.on_heartbeat("m")
    clock.now_s = 101.0
    assert asking.ask(target, began_s=101.0) == "no heartbeat has come yet", "it was of the run before"
    heartbeats.on_heartbeat("m")
    clock.now_s = 108.0
    assert asking.ask(target, began_s=101.0) == ""
    clock.now_s = 108.5
    assert asking.ask(target, began_s=101.0) == "its last heartbeat was 7.5 s ago"


def test_heartbeats_of_modules_that_come_and_go_do_not_pile_up() -> None:
    heartbeats = Heartbeats(SystemClock())
    for number in range(MODULES_MAX + 1):
        heartbeats.on_heartbeat(f"m{number}")
    assert heartbeats.since_s("m0", 0.0) is None
    assert heartbeats.since_s("m1", 0.0) is not None


# --- the prober ------------------------------------------------------------------------------------------------------


def test_a_question_that_hangs_is_asked_once_at_a_time() -> None:
    asked, answer = threading.Semaphore(0), threading.Event()

    def ask(_target: Target, _began_s: float) -> str:
        asked.release()
        answer.wait(30)
        return ""

    changed = threading.Event()
    prober = Prober(ask, SystemClock(), changed.set)
    target = Target(wanted(), "r1", Probe(period_s=0.01))
    prober.watch([target])
    assert asked.acquire(timeout=30)
    for _ in range(20):
        prober.watch([target])
    assert not asked.acquire(timeout=0.3), "it was asked again while the first question hung"
    answer.set()
    assert changed.wait(30)
    finding = prober.finding("m", "r1")
    assert finding is not None
    assert finding.health == "ready"
    prober.close()


# --- a real agent ----------------------------------------------------------------------------------------------------


def _told(agent: AgentProcess, text: str) -> None:
    wait_for_or_show(agent, lambda: any(text in d.reason for d in agent.decisions()), 30, f"a decision with {text!r}")


def test_a_module_that_fails_its_own_check_or_falls_silent_is_restarted(hub: SmallHub, agent: AgentProcess) -> None:
    often = {"period_s": 0.3, "failure_threshold": 3}
    check = Probe(kind="exec", command=["/bin/sh", "-c", "test ! -e sick || { echo no frames; exit 1; }"], **often)  # type: ignore[arg-type]  # plain values
    beat = Probe(kind="heartbeat", timeout_s=3.0, **often)  # type: ignore[arg-type]  # plain values
    hub.deploy(
        {
            "checked": shell("exec sleep 1000", probe=check),
            "beating": command(sys.executable, "-c", BEATING, probe=beat),
        }
    )
    agent.wait_state("checked", "running", timeout_s=30)
    agent.wait_state("beating", "running", timeout_s=30)
    pids = {name: agent.wait_pid(name) for name in ("checked", "beating")}
    modules = agent.state / "modules"
    (modules / "checked/work/sick").touch()
    (modules / "beating/work/silent").touch()
    _told(agent, "ended with exit code 1: no frames (3 times in a row)")
    _told(agent, "its last heartbeat was")
    (modules / "checked/work/sick").unlink()
    (modules / "beating/work/silent").unlink()
    for name, pid in pids.items():
        agent.wait_pid(name, other_than=pid, timeout_s=30)
        agent.wait_state(name, "running", timeout_s=30)


def test_a_tcp_probe_waits_for_the_port(hub: SmallHub, agent: AgentProcess) -> None:
    port = free_port()
    listen = (
        f"import socket; s = socket.create_server(('127.0.0.1', {port})); s.accept()[0].recv(1); import time; time.sleep(1000)"
    )
    gate = agent.folder / "gate"
    waiting = f'while [ ! -e {gate} ]; do sleep 0.05; done; exec {sys.executable} -c "{listen}"'
    hub.deploy({"m": shell(waiting, port=port, probe=Probe(kind="tcp", period_s=30.0))})
    agent.wait_state("m", "starting", timeout_s=30)
    gate.touch()
    agent.wait_state("m", "running", timeout_s=30)


def test_only_a_module_can_send_heartbeats(agent: AgentProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=20)
    connection.request("POST", "/heartbeat", headers={"authorization": "Bearer m.0123"})
    assert connection.getresponse().status == 401
    connection.close()
