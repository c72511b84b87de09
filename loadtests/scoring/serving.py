"""One server's life in a benchmark: started on held ports, waited for, checked, stopped, with all that it left behind gone.

What it says on stderr is kept in a file of the run's folder, so that a server that does not come up is told with its reason.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from hedgerow.process.procfs import session_members, signal_session
from loadtests.scoring.models import Sent
from loadtests.scoring.peers import Ports, Server
from loadtests.scoring.ports import HeldPorts
from runtime.models.onnx_model import silence_telemetry

_UP_WITHIN_S = 60.0
_GONE_WITHIN_S = 15.0
_KILLED_WITHIN_S = 5.0
_REASON_LINES = 6


class DidNotComeUp(RuntimeError):
    """Says why, as far as the server did."""


class WrongAnswer(RuntimeError):
    """A server answered something else than onnxruntime."""


@dataclass(frozen=True)
class Running:
    """A server that has given its first right answer."""

    server: Server
    process: subprocess.Popen[bytes]
    start_s: float
    log: Path

    def stop(self, gone_within_s: float = _GONE_WITHIN_S) -> float:
        """End it and all that it started, by force after a while; seconds until its first process was gone."""
        return _end(self.process, gone_within_s)


def start(make: Callable[[Ports], Server], name: str, logs: Path, first: Sent, wanted: Any) -> Running:
    """Start it and wait for its first right answer; once more on other ports if it does not come up.

    Raises DidNotComeUp, and what ``make`` raises.
    """
    try:
        return _started(make, logs / f"{name}.log", first, wanted)
    except DidNotComeUp as problem:
        print(f"{name} is started again on other ports: {problem}", flush=True)
        return _started(make, logs / f"{name}-again.log", first, wanted)


def _started(make: Callable[[Ports], Server], log: Path, first: Sent, wanted: Any) -> Running:
    with HeldPorts() as ports:
        server = make(ports)
    began = time.perf_counter()
    process = _launched(server, log)
    pause_s = 0.005
    while process.poll() is None and time.perf_counter() - began < _UP_WITHIN_S:
        if _answers(server, first, wanted):
            return Running(server, process, time.perf_counter() - began, log)
        time.sleep(pause_s)
        # A server that needs seconds is not asked two hundred times a second.
        pause_s = min(pause_s * 1.05, 0.05)
    code = process.poll()
    _end(process, _GONE_WITHIN_S)
    how = f"no right answer within {_UP_WITHIN_S:g} s" if code is None else f"it ended with code {code}"
    raise DidNotComeUp(f"{how}: {reason_in(_text(log) + _text(server.stdout))}")


def _launched(server: Server, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **server.environment}
    silence_telemetry(environment)
    with log.open("wb") as errors, _stdout_of(server) as output:
        return subprocess.Popen(
            server.argv, env=environment, cwd=server.folder, stdout=output, stderr=errors, start_new_session=True
        )


def _stdout_of(server: Server) -> IO[bytes]:
    return (server.stdout or Path(os.devnull)).open("wb")


def _answers(server: Server, first: Sent, wanted: Any) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        status, body, headers = ask(connection, server.path, first)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return status == 200 and np.array_equal(np.ravel(values_in(body, headers)), np.ravel(wanted))


def _text(file: Path | None) -> str:
    return file.read_text(errors="replace") if file is not None and file.is_file() else ""


def reason_in(text: str) -> str:
    """The last lines that speak of an error, or simply the last lines."""
    lines = [line.strip()[:300] for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line.lower() for word in ("error", "fail", "address", "refused"))]
    return " | ".join((telling or lines)[-_REASON_LINES:]) or "it said nothing"


def _end(process: subprocess.Popen[bytes], gone_within_s: float) -> float:
    began = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(gone_within_s)
    took_s = time.perf_counter() - began
    # Its children may outlive it, and would share the cores with whoever comes next.
    _wait_for_end_of(process.pid, gone_within_s - took_s)
    signal_session(process.pid, signal.SIGKILL)
    process.wait()
    _wait_for_end_of(process.pid, _KILLED_WITHIN_S)
    return took_s


def _wait_for_end_of(session: int, within_s: float) -> None:
    until = time.perf_counter() + within_s
    while session_members(session) and time.perf_counter() < until:
        time.sleep(0.02)


def check(running: Running, sent: Sequence[Sent], expected: Sequence[Any]) -> None:
    """Every body's answer, beside onnxruntime's own. Raises WrongAnswer."""
    connection = http.client.HTTPConnection("127.0.0.1", running.server.port, timeout=30)
    for one, wanted in zip(sent, expected, strict=True):
        status, body, headers = ask(connection, running.server.path, one)
        if status != 200:
            raise WrongAnswer(f"{status} {body[:300]!r}")
        found = values_in(body, headers)
        if not np.array_equal(np.ravel(found), np.ravel(wanted)):
            raise WrongAnswer(f"{np.ravel(found)[:10]} instead of {np.ravel(wanted)[:10]}")
    connection.close()


def ask(connection: http.client.HTTPConnection, path: str, sent: Sent) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection.request("POST", path, sent.body, dict(sent.headers))
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def values_in(body: bytes, headers: http.client.HTTPMessage) -> Any:
    """The one output of an answer: of /score, of /v2 in JSON, of /v2 in binary."""
    length = headers.get("inference-header-content-length")
    if length is not None:
        return np.frombuffer(body[int(length) :], dtype=np.int64)
    answer = json.loads(body)
    return answer["outputs"][0]["data"] if isinstance(answer, dict) and "outputs" in answer else answer


def told_by(port: int) -> dict[str, float]:
    """Counters of ours at /metrics, summed over their labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return sums_in(text)


def sums_in(page: str) -> dict[str, float]:
    """Series of a Prometheus page by name."""
    sums: dict[str, float] = {}
    for line in page.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums
