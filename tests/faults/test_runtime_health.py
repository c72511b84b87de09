"""Health that means it: what probes see while a server loads, drains, has no script process, stands still or lost its master."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import scoring_models as models
from tests.scoring_server import ScoringServer, script
from tests.waiting import wait_for

PAGES = ("/", "/v2/health/live", "/v2/health/ready")
# init() waits for a flag, so that the test says when the script is loaded.
SLOW_TO_LOAD = """
    import os, pathlib, time
    HERE = pathlib.Path(__file__).parent
    def init():
        while not (HERE / "go").exists():
            time.sleep(0.01)
    def run(data):
        if data == "die": os._exit(1)
        while data == "slow" and not (HERE / "done").exists():
            time.sleep(0.01)
        return os.getpid()
    """


def seen(server: ScoringServer, port: int | None = None) -> tuple[int, int, int]:
    """Status of GET /, live and ready."""
    url = f"http://127.0.0.1:{port or server.port}"
    first, live, ready = (server.client.get(url + page).status_code for page in PAGES)
    return first, live, ready


def port_in_log(server: ScoringServer) -> int:
    """Where it listens, before its ready-file says so."""
    return int(
        wait_for(lambda: server.process.log_text().partition("listening on http://127.0.0.1:")[2], what="the port").split()[0]
    )


def answers(server: ScoringServer, path: str = "/v2/health/live") -> bool:
    """Whether a probe with a second's patience gets its 200."""
    try:
        return httpx.get(server.url + path, timeout=1.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_alive_but_not_ready_while_it_loads(tmp_path: Path) -> None:
    file = script(tmp_path, SLOW_TO_LOAD)
    with ScoringServer(tmp_path, "--script", file, wait=False) as server:
        port = port_in_log(server)
        wait_for(lambda: server.client.get(f"http://127.0.0.1:{port}/").text == "loading", what="the word for it")
        assert seen(server, port) == (503, 200, 503)
        (file.parent / "go").touch()
        wait_for(server.ready_file.exists, what="the ready-file")
        assert seen(server) == (200, 200, 200)
        assert server.get("/").text == "Healthy"


def test_not_ready_while_no_script_process_is(tmp_path: Path) -> None:
    file = script(tmp_path, SLOW_TO_LOAD)
    flag = file.parent / "go"
    flag.touch()
    with ScoringServer(tmp_path, "--script", file, "--standbys", "0") as server:
        flag.unlink()
        assert server.post("/score", "die").status_code == 502
        assert seen(server) == (503, 200, 503)
        flag.touch()
        wait_for(lambda: seen(server) == (200, 200, 200), what="the next process")
        assert server.post("/score", "x").status_code == 200


def test_a_standby_keeps_it_ready(tmp_path: Path) -> None:
    file = script(tmp_path, SLOW_TO_LOAD)
    flag = file.parent / "go"
    flag.touch()
    with ScoringServer(tmp_path, "--script", file, "--standbys", "1") as server:
        wait_for(lambda: server.metric('hedgerow_script_processes{state="standby"}') == 1, what="the standby")
        flag.unlink()
        assert server.post("/score", "die").status_code == 502
        assert seen(server) == (200, 200, 200)
        flag.touch()


def test_alive_but_not_ready_while_it_drains(tmp_path: Path) -> None:
    file = script(tmp_path, SLOW_TO_LOAD)
    (file.parent / "go").touch()
    with ScoringServer(tmp_path, "--script", file) as server, contextlib.ExitStack() as closing:
        slow, *probes = [
            closing.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10)) for _ in range(4)
        ]
        slow.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nslow")
        wait_for(lambda: server.metric("hedgerow_in_flight") == 1, what="the slow request")
        # Half a request keeps a connection from counting as silent.
        for probe, page in zip(probes, PAGES, strict=True):
            probe.sendall(f"GET {page} HTTP/1.1\r\n".encode())
        wait_for(lambda: server.metric("hedgerow_connections ") == 5, what="all connections, and the one that asks")
        os.kill(server.process.pid, signal.SIGTERM)
        server.process.wait_until(lambda: not accepts(server), what="the closed door")
        found = []
        for probe in probes:
            probe.sendall(b"host: x\r\n\r\n")
            found.append(int(probe.recv(4096).split()[1]))
        assert found == [503, 200, 503]
        (file.parent / "done").touch()
        assert slow.recv(4096).startswith(b"HTTP/1.1 200")


def accepts(server: ScoringServer) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=0.2):
            return True
    except OSError:
        return False


def test_a_loop_that_stands_still_is_not_alive(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        assert answers(server)
        (worker,) = server.workers()
        with stopped(worker):
            assert not any(answers(server, page) for page in PAGES)
        wait_for(lambda: answers(server), what="it to go on")
        assert server.metric("hedgerow_event_loop_lag_seconds") > 1.0, "and it is told afterwards"


def test_a_master_without_workers_is_not_alive_and_gets_some(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        (worker,) = server.workers()
        with stopped(server.process.pid):
            os.kill(worker, signal.SIGKILL)
            # The kernel still takes connections for the master; nobody answers them.
            assert not any(answers(server, page) for page in PAGES)
        wait_for(lambda: answers(server, "/v2/health/ready"), what="the next worker")


def test_workers_without_a_master_end(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        (worker,) = server.workers()
        url = server.url
        os.kill(server.process.pid, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{worker}").exists(), what="the worker's end")
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)
