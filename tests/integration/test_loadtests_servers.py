"""The scoring benchmark's harness with real servers: some do not come up, leave children behind, stand still, answer wrongly."""

from __future__ import annotations

import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from hedgerow.process.procfs import session_members
from loadtests.scoring import serving
from loadtests.scoring.models import Sent
from loadtests.scoring.open_loop import Asked, OpenLoop, Outcome, Plan
from loadtests.scoring.peers import Ports, Server

SENT = Sent(b"[1]", (("content-type", "application/json"),), np.array([1]))
# Answers as asked to, once; it has a child that hears no SIGTERM.
_SERVER = """
    import subprocess, sys
    from http.server import BaseHTTPRequestHandler, HTTPServer

    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    child.stdout.readline()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("content-length", "3")
            self.end_headers()
            self.wfile.write(b"[7]")

    HTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""


def server_of(source: str, folder: Path, ports: Ports) -> Server:
    return Server((sys.executable, "-c", textwrap.dedent(source), str(ports[0])), {}, folder, ports[0])


def test_a_server_that_ends_at_once_is_started_again_on_other_ports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Ports] = []

    def make(ports: Ports) -> Server:
        told.append(tuple(ports))
        return server_of(_SERVER if len(told) > 1 else "raise SystemExit('Failed to bind')", tmp_path, ports)

    running = serving.start(make, "odd", tmp_path, SENT, [7])
    try:
        assert "odd is started again" in capsys.readouterr().out
        assert "Failed to bind" in (tmp_path / "odd.log").read_text()
        serving.check(running, [SENT], [[7]])
        with pytest.raises(serving.WrongAnswer):
            serving.check(running, [SENT], [[8]])
    finally:
        running.stop(gone_within_s=0.2)
    assert len(told) == 2
    assert told[0] != told[1]


def test_one_that_never_comes_up_is_told_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(serving.DidNotComeUp, match="ended with code 1: error: no such model"):
        serving.start(
            lambda ports: server_of("raise SystemExit('error: no such model')", tmp_path, ports), "odd", tmp_path, SENT, 7
        )


def test_what_a_server_leaves_behind_is_gone_when_it_is_stopped(tmp_path: Path) -> None:
    running = serving.start(lambda ports: server_of(_SERVER, tmp_path, ports), "odd", tmp_path, SENT, [7])
    assert len(session_members(running.process.pid)) == 2
    running.stop(gone_within_s=0.5)
    assert session_members(running.process.pid) == []


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body go out together; apart, the kernel lets the second wait for 40 ms
    lock = threading.Lock()
    asked = 0

    def do_GET(self) -> None:
        with self.lock:
            type(self).asked += 1
            if self.path == "/still" and type(self).asked == 20:
                time.sleep(0.3)
        body = b"odd" if self.path == "/odd" else b"fine"
        self.send_response(503 if self.path == "/busy" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/cut":
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Says nothing."""


@contextmanager
def answering() -> Iterator[int]:
    _Answers.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def sent_to(path: str, *, rate: float | None, connections: int = 4) -> Outcome:
    with answering() as port:
        asked = [Asked(path, f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode(), b"fine")]
        return OpenLoop(Plan(port, asked, [0], connections, 1.0, rate)).run()


def test_requests_go_out_at_the_rate_that_was_asked_for() -> None:
    outcome = sent_to("/", rate=100)
    assert outcome.errors == 0
    assert 95 <= outcome.answered + outcome.unsent <= 101
    assert sent_to("/", rate=None).answered > 150


def test_who_waits_for_a_server_that_stands_still_counts_from_when_it_was_due() -> None:
    """At 100 a second thirty requests fall into a standstill of 0.3 s: in a closed loop, four would have noticed."""
    outcome = sent_to("/still", rate=100)
    (counts, worst_s) = outcome.minutes[0].latencies["/still"]
    slow = sum(count for step, count in counts.items() if step > 100 * np.log(50_000))
    assert worst_s >= 0.25
    assert slow >= 15


@pytest.mark.parametrize(
    ("path", "what"), [("/busy", "status 503"), ("/odd", "another answer"), ("/cut", "ConnectionError: closed by the server")]
)
def test_whatever_is_wrong_is_counted_by_what_it_is(path: str, what: str) -> None:
    outcome = sent_to(path, rate=50)
    assert outcome.minutes[0].errors.get(what, 0) >= 20, outcome
    assert outcome.examples[0].startswith(path) or path == "/cut"
