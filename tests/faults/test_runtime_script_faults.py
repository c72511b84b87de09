"""A scoring script does its worst: only the requests inside are cut, with a clear answer, and the next comes within a second."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.scoring_server import ScoringServer, script
from tests.waiting import wait_for

SCRIPT = """
    import ctypes, json, multiprocessing, os, signal, socket, struct, subprocess, sys, threading, time

    def init():
        signal.signal(signal.SIGUSR2, lambda *_: None)

    def deep(n):
        return deep(n + 1)

    def sockets():
        # What this process talks to its server through.
        for fd in range(3, 64):
            try:
                found = socket.socket(fileno=os.dup(fd))
            except OSError:
                continue
            if found.family == socket.AF_UNIX:
                yield fd, found

    def say(data):
        for _, connection in sockets():
            connection.sendall(data)
        time.sleep(30)

    def frame(*values):
        import msgspec
        body = msgspec.msgpack.encode(values)
        return struct.pack(">I", len(body)) + body

    def run(raw_data):
        do = json.loads(raw_data).get("do", "")
        if do == "null":
            ctypes.string_at(0)
        elif do == "abort":
            os.abort()
        elif do == "_exit":
            os._exit(9)
        elif do == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif do == "close":
            for fd, copy in list(sockets()):
                copy.close()
                os.close(fd)
            time.sleep(30)
        elif do == "memory":
            import resource
            resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
            libc = ctypes.CDLL(None)
            libc.malloc.restype = ctypes.c_void_p
            ctypes.memset(libc.malloc(ctypes.c_size_t(2**33)), 1, 1)
        elif do == "text":
            say(b"print to the wrong place\\n" * 10)
        elif do == "half":
            say(b"\\x7f\\xff\\xff\\xffHTTP/1.1 200 OK")
        elif do == "no array":
            say(struct.pack(">I", 3) + b"abc")
        elif do == "wrong frame":
            say(frame("answer", "one", 0.1))
        elif do == "part first":
            say(frame("part", 1, b"HTTP/1.1 200 OK\\r\\n\\r\\n") + frame("end", 1, 0.1))
        elif do == "orphan":
            if not os.fork():
                time.sleep(60)
            os._exit(5)
        elif do == "gil":
            # C code that never lets go: ctypes.PyDLL keeps the interpreter's lock.
            ctypes.PyDLL(None).sleep(60)
        elif do == "hang":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
            while True:
                time.sleep(1)
        elif do == "exit":
            sys.exit(3)
        elif do == "recursion":
            deep(0)
        elif do == "stdout":
            os.close(1)
            os.close(2)
            sys.stdout.close()
        elif do == "chdir":
            os.chdir("/")
        elif do == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        elif do == "pool":
            child = subprocess.Popen(["sleep", "60"])
            worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            worker.start()
            child.terminate()
            worker.terminate()
            worker.join(10)
            return [child.wait(10), worker.exitcode]
        elif do == "children":
            return [subprocess.Popen(["sleep", "600"], start_new_session=False).pid]
        return {"pid": os.getpid()}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    folder = tmp_path_factory.mktemp("faults")
    with ScoringServer(folder, "--script", script(folder, SCRIPT), "--timeout-ms", "1500", "--queue-wait-ms", "1500") as running:
        yield running


def do(server: ScoringServer, what: str) -> httpx.Response:
    return server.score({"do": what})


def next_one(server: ScoringServer) -> int:
    """The pid that answers next, well and within one second."""
    answer = do(server, "")
    assert answer.status_code == 200, answer.text
    assert answer.elapsed.total_seconds() < 1.0
    return int(answer.json()["pid"])


def standing_by(server: ScoringServer) -> None:
    """Wait until a standby is loaded again: a second fault right after the first finds none, and must wait for it to load."""
    wait_for(lambda: len(hosts(server)) >= 2, what="a standby process")
    wait_for(lambda: server.metric('hedgerow_script_processes{state="standby"}') == 1, what="a loaded standby")


def hosts(server: ScoringServer) -> list[int]:
    """Pids of the script's processes."""
    (worker,) = server.workers()
    return [int(pid) for pid in Path(f"/proc/{worker}/task/{worker}/children").read_text().split()]


def runs(pid: int) -> bool:
    """Whether it is there, and not only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


CUT = {
    "null": "signal 11 (SIGSEGV)",
    "abort": "signal 6 (SIGABRT)",
    "_exit": "exit code 9",
    "killed": "signal 9 (SIGKILL)",
    "close": "it closed its connection",
    "memory": "signal 11 (SIGSEGV)",
    "text": "signal 9 (SIGKILL)",
    "half": "signal 9 (SIGKILL)",
    "no array": "signal 9 (SIGKILL)",
    "wrong frame": "signal 9 (SIGKILL)",
    "orphan": "exit code 5",
}


@pytest.mark.parametrize("what", CUT)
def test_a_process_that_ends_takes_only_its_own_request_along(server: ScoringServer, what: str) -> None:
    standing_by(server)
    before = next_one(server)
    answer = do(server, what)
    assert answer.status_code == 502, answer.text
    assert answer.json()["message"].startswith(f"The scoring script's process ended while it scored this request ({CUT[what]})")
    assert answer.elapsed.total_seconds() < 1.2, "not only after the timeout"
    assert next_one(server) != before


@pytest.mark.parametrize("what", ["gil", "hang"])
def test_a_call_that_hangs_is_answered_on_time_whatever_it_does(server: ScoringServer, what: str) -> None:
    standing_by(server)
    before = next_one(server)
    answer = do(server, what)
    assert (answer.status_code, answer.json()) == (500, {"message": "Scoring timeout after 1500 ms"})
    assert answer.elapsed.total_seconds() < 2.2
    assert next_one(server) != before


@pytest.mark.parametrize(("what", "status"), [("exit", 500), ("recursion", 500), ("stdout", 200), ("chdir", 200), ("term", 200)])
def test_what_harms_nobody_costs_no_process(server: ScoringServer, what: str, status: int) -> None:
    standing_by(server)
    before = next_one(server)
    assert do(server, what).status_code == status
    assert next_one(server) == before


def test_children_of_a_script_end_by_sigterm_as_everywhere(server: ScoringServer) -> None:
    assert do(server, "pool").json() == [-15, -15]


def test_children_of_a_script_end_with_it(server: ScoringServer) -> None:
    standing_by(server)
    (child,) = do(server, "children").json()
    assert runs(child)
    do(server, "_exit")
    wait_for(lambda: not runs(child), what="the child's end")


def test_frames_out_of_order_reach_no_caller(server: ScoringServer) -> None:
    standing_by(server)
    answer = do(server, "part first")
    assert answer.status_code in (500, 502)
    assert answer.json()["message"]
    assert next_one(server)


def test_a_request_whose_caller_left_is_not_begun(tmp_path: Path) -> None:
    text = """
        import threading
        seen = []
        def init(): ...
        def run(data):
            if data == "seen":
                return seen
            seen.append(data)
            if data == "slow":
                threading.Event().wait(0.8)
            return data
    """
    with ScoringServer(tmp_path, "--script", script(tmp_path, text), "--queue-wait-ms", "5000") as server:
        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(server.post, "/score", "slow")
            wait_for(lambda: server.metric("hedgerow_in_flight") == 1, what="the slow call to begin")
            for how in ("closed", "reset", "stays"):
                caller = socket.create_connection(("127.0.0.1", server.port))
                body = how.encode()
                caller.sendall(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                wait_for(lambda: server.metric("hedgerow_queue_depth") >= 1, what="it to wait")
                if how == "reset":
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if how != "stays":
                    caller.close()
            assert slow.result(10).status_code == 200
            caller.settimeout(10)
            assert caller.recv(4096).startswith(b"HTTP/1.1 200 ")
            caller.close()
        assert server.post("/score", "seen").json() == ["slow", "stays"]


def test_without_standbys_the_next_request_waits_for_the_new_process(tmp_path: Path) -> None:
    arguments = ("--script", script(tmp_path, SCRIPT), "--standbys", "0", "--queue-wait-ms", "10000", "--timeout-ms", "500")
    with ScoringServer(tmp_path, *arguments) as server:
        for what, status in (("_exit", 502), ("hang", 500), ("_exit", 502)):
            (before,) = hosts(server)
            assert do(server, what).status_code == status
            after = do(server, "")
            assert after.status_code == 200
            assert after.json()["pid"] != before


def test_the_standby_is_imported_by_the_time_that_the_server_is_ready(tmp_path: Path) -> None:
    """A crash with the first request finds it there; and init() was called by one process before another began."""
    log = tmp_path / "inits"
    text = f"""
        import os, time
        time.sleep(1.5)
        def init():
            with open({str(log)!r}, "a") as log:
                log.write("begin ")
                log.flush()
                time.sleep(0.2)
                log.write("end ")
        def run(data):
            if data == "die":
                os.kill(os.getpid(), 11)
            return "fine"
    """
    with ScoringServer(tmp_path, "--script", script(tmp_path, text), "--workers", "1") as server:
        assert server.post("/score", "die").status_code == 502
        answer = server.post("/score", "")
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() < 1.0
        assert log.read_text().startswith("begin end begin end ")


def test_a_script_that_cannot_be_imported_says_so_once(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--script", script(tmp_path, "1 / 0\n"), wait=False) as server:
        wait_for(lambda: server.exit_code is not None, what="the end")
        assert server.exit_code == 3
        assert server.process.log_text().count("ZeroDivisionError: division by zero\n") == 1


def test_a_storm_of_crashes_is_no_storm_of_processes(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    text = f"""
        import os
        def init():
            open({str(log)!r}, "a").write("x")
        def run(data):
            if data == "die":
                os._exit(1)
            return "fine"
    """
    with ScoringServer(tmp_path, "--script", script(tmp_path, text), "--queue-wait-ms", "50") as server:
        began = time.monotonic()
        statuses = set()
        while time.monotonic() - began < 3:
            statuses.add(server.post("/score", "die").status_code)
        assert statuses == {502, 503}
        assert len(log.read_text()) <= 12, "0 + 0.2 + 0.4 + 0.8 + 1.6 s between them, two to begin with"
        wait_for(lambda: server.post("/score", "x").status_code == 200, timeout_s=5, what="an answer after the storm")


def test_a_new_process_that_cannot_load_is_tried_again_and_the_others_go_on(tmp_path: Path) -> None:
    gate = tmp_path / "broken"
    text = f"""
        import os
        def init():
            if os.path.exists({str(gate)!r}):
                raise RuntimeError("the disk is away")
        def run(data):
            if data == "die":
                os._exit(1)
            return os.getpid()
    """
    with ScoringServer(tmp_path, "--script", script(tmp_path, text)) as server:
        wait_for(lambda: server.metric('hedgerow_script_processes{state="standby"}') == 1, what="a loaded standby")
        gate.touch()
        server.post("/score", "die")
        assert server.post("/score", "x").status_code == 200, "the standby"
        server.wait_for_log("a new script process could not start")
        gate.unlink()
        wait_for(lambda: server.metric('hedgerow_script_processes{state="standby"}') == 1, what="the next standby")


@pytest.mark.parametrize("whom", ["worker", "master", "server's group"])
def test_killed_processes_leave_no_script_process_behind(tmp_path: Path, whom: str) -> None:
    with ScoringServer(tmp_path, "--script", script(tmp_path, SCRIPT), "--timeout-ms", "2000") as server:
        wait_for(lambda: len(hosts(server)) == 2, what="worker and standby")
        left = hosts(server)
        threading.Thread(target=lambda: _quietly(server, "hang"), daemon=True).start()
        wait_for(lambda: server.metric("hedgerow_in_flight") == 1, what="the call to begin")
        if whom == "worker":
            os.kill(server.workers()[0], signal.SIGKILL)
        elif whom == "master":
            server.process.kill()
        else:
            os.killpg(server.process.pid, signal.SIGKILL)
        wait_for(lambda: not any(runs(pid) for pid in left), timeout_s=15, what="the script's processes to end")
        if whom == "worker":
            wait_for(lambda: do(server, "").status_code == 200, timeout_s=10, what="the next worker's answer")


def _quietly(server: ScoringServer, what: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        do(server, what)


def test_sigterm_to_every_process_fails_no_call(tmp_path: Path) -> None:
    text = """
        import threading
        def init(): ...
        def run(data):
            threading.Event().wait(0.6)
            return data
    """
    with ScoringServer(tmp_path, "--script", script(tmp_path, text)) as server:
        wait_for(lambda: len(hosts(server)) == 2, what="worker and standby")
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(server.post, "/score", "x")
            wait_for(lambda: server.metric("hedgerow_in_flight") == 1, what="the call to begin")
            # As systemd does at a stop: everything in the service's control group.
            for pid in [*hosts(server), *server.workers(), server.process.pid]:
                os.kill(pid, signal.SIGTERM)
            assert answer.result(10).json() == "x"
        wait_for(lambda: not server.process.is_running, what="the server to end")
        assert server.exit_code == 0


def test_beside_a_call_that_hangs_the_others_of_its_process_end_well(tmp_path: Path) -> None:
    text = """
        import os, time
        thread_safe = True
        def init(): ...
        def run(data):
            time.sleep({"hang": 60, "slow": 0.9}.get(data, 0))
            return os.getpid()
    """
    with ScoringServer(tmp_path, "--script", script(tmp_path, text), "--timeout-ms", "1000") as server:
        before = server.post("/score", "x").json()
        with ThreadPoolExecutor(2) as threads:
            hanging = threads.submit(server.post, "/score", "hang")
            wait_for(lambda: server.metric("hedgerow_in_flight") == 1, what="the hanging call to begin")
            began = time.monotonic()
            wait_for(lambda: time.monotonic() > began + 0.5, what="half of the other's time")
            slow = threads.submit(server.post, "/score", "slow")
            assert hanging.result(10).status_code == 500
            assert slow.result(10).json() == before, "it was inside when the other's time was up"
        wait_for(lambda: not runs(before), what="the process to be killed when it is done")
        assert server.post("/score", "x").status_code == 200


def test_a_caller_that_leaves_its_stream_does_not_hold_the_process(tmp_path: Path) -> None:
    text = """
        from azureml.contrib.services.aml_request import rawhttp
        from azureml.contrib.services.aml_response import AMLResponse
        def init(): ...
        @rawhttp
        def run(request):
            if request.get_data() == b"stream":
                return AMLResponse((b"x" * 100_000 for _ in range(300)), 200)
            return AMLResponse("fine", 200)
    """
    with ScoringServer(tmp_path, "--script", script(tmp_path, text), "--queue-wait-ms", "5000") as server:
        for _ in range(3):
            caller = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            caller.sendall(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nstream")
            assert caller.recv(4096).startswith(b"HTTP/1.1 200 ")
            # It does not read the rest: the stream is held back, until it is gone.
            caller.close()
        answer = server.post("/score", "x")
        assert (answer.status_code, answer.text) == (200, "fine")
        assert server.metric("hedgerow_script_process_restarts_total") == 0
