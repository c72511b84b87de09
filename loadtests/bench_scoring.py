"""Scoring beside its peers: one model, one machine, servers in turn.

    python -m loadtests.bench_scoring [--rounds 3] [--seconds 3] [--only tiny|cnn|script|bare]

Each round starts every server in turn, waits for its first right answer (= start-up), checks the answers of all the different
bodies against onnxruntime, warms up, loads it with wrk on the same cores, reads CPU time and memory of all its processes, and
stops it. Ratios are medians of per-round ratios, so they hold on a noisy machine. Servers' output goes nowhere, ours included.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.process.memory import pss_bytes
from loadtests import scoring_models as models
from loadtests import scoring_peers as peers
from loadtests.scoring_models import Sent
from loadtests.scoring_peers import Server
from runtime.models.onnx_model import silence_telemetry

_WRK = """
local bodies = {}
local file = io.open("%(file)s", "rb")
while true do
  local size = file:read(12)
  if not size then break end
  bodies[#bodies + 1] = file:read(tonumber(size))
end
file:close()
wrk.method = "POST"
%(headers)s
local prepared = {}
local at = 0
init = function() for i, body in ipairs(bodies) do prepared[i] = wrk.format(nil, nil, nil, body) end end
request = function() at = at %% #prepared + 1; return prepared[at] end
"""


@dataclass(frozen=True)
class Load:
    """What one server made of one kind of load."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    wrong: int


@dataclass(frozen=True)
class Ran:
    """One server in one round."""

    loads: dict[int, Load]
    pss_mb: float
    start_s: float
    stop_s: float


def free_port() -> int:
    """With two more free above it, for servers that want three."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def family(root: int) -> list[int]:
    """A process and all below it."""
    found, parents = [], {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    for pid in parents:
        at = pid
        while at in parents and at != root:
            at = parents[at]
        if at == root:
            found.append(pid)
    return found


def cpu_s(pids: Sequence[int]) -> float:
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def ask(connection: http.client.HTTPConnection, path: str, sent: Sent) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection.request("POST", path, sent.body, dict(sent.headers))
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def check(port: int, server: Server, sent: Sequence[Sent], expected: Sequence[Any]) -> None:
    """Every body's answer, beside onnxruntime's own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for one, wanted in zip(sent, expected, strict=True):
        status, body, headers = ask(connection, server.path, one)
        assert status == 200, (server.name, status, body[:300])
        found = values_in(body, headers)
        assert np.array_equal(np.ravel(found), np.ravel(wanted)), (server.name, found, wanted)
    connection.close()


def values_in(body: bytes, headers: http.client.HTTPMessage) -> Any:
    length = headers.get("inference-header-content-length")
    if length is not None:
        return np.frombuffer(body[int(length) :], dtype=np.int64)
    answer = json.loads(body)
    return answer["outputs"][0]["data"] if isinstance(answer, dict) and "outputs" in answer else answer


def start(server: Server, port: int, first: Sent, wanted: Any) -> tuple[subprocess.Popen[bytes], float]:
    """Start it; seconds until its first right answer."""
    environment = {**os.environ, **server.environment}
    silence_telemetry(environment)
    began = time.perf_counter()
    process = subprocess.Popen(
        server.argv,
        env=environment,
        cwd=server.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while time.perf_counter() - began < 90:
        if process.poll() is not None:
            break
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError, http.client.HTTPException):
            status, body, headers = ask(connection, server.path, first)
            if status == 200 and np.array_equal(np.ravel(values_in(body, headers)), np.ravel(wanted)):
                return process, time.perf_counter() - began
        connection.close()
        time.sleep(0.005)
    process.kill()
    raise RuntimeError(f"{server.name} did not come up (exit code {process.poll()})")


def stop(process: subprocess.Popen[bytes]) -> float:
    began = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return time.perf_counter() - began


def wrk(port: int, path: str, script: Path, connections: int, seconds: float) -> tuple[float, float, float, int, int]:
    """Requests, p50 and p99 in ms, requests in all, and what was not 2xx or was cut."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "--timeout", "10s", "-s", str(script)]
    text = subprocess.run([*argv, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True).stdout
    per_s = float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0])
    total = int(re.findall(r"(\d+) requests in", text)[0])
    wrong = sum(int(number) for number in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    wrong += sum(int(number) for line in re.findall(r"Socket errors: (.*)", text) for number in re.findall(r"\d+", line))
    return per_s, _ms(text, "50%"), _ms(text, "99%"), total, wrong


def _ms(text: str, which: str) -> float:
    found = re.findall(rf"^\s+{which}\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
    number, unit = found[0]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}[unit]


def script_for(folder: Path, sent: Sequence[Sent], name: str) -> Path:
    data = folder / f"{name}.bodies"
    with data.open("wb") as file:
        for one in sent:
            file.write(f"{len(one.body):012d}".encode() + one.body)
    headers = "\n".join(f'wrk.headers["{key}"] = "{value}"' for key, value in sent[0].headers)
    script = folder / f"{name}.lua"
    script.write_text(_WRK % {"file": data, "headers": headers})
    return script


def run(
    server: Server, port: int, sent: Sequence[Sent], expected: Sequence[Any], connections: Sequence[int], seconds: float
) -> Ran:
    process, start_s = start(server, port, sent[0], expected[0])
    try:
        check(port, server, sent, expected)
        script = script_for(server.folder, sent, f"wrk-{port}")
        wrk(port, server.path, script, max(connections), 1.0)
        loads = {}
        for count in connections:
            pids = family(process.pid)
            before = cpu_s(pids)
            per_s, p50_ms, p99_ms, total, wrong = wrk(port, server.path, script, count, seconds)
            loads[count] = Load(per_s, p50_ms, p99_ms, (cpu_s(pids) - before) / max(total, 1) * 1e6, wrong)
        pss_mb = sum(pss_bytes(pid) for pid in family(process.pid)) / 1e6
    finally:
        stop_s = stop(process)
    return Ran(loads, pss_mb, start_s, stop_s)


def rounds_of(
    makers: Sequence[tuple[Callable[[int], Server | None], Sequence[Sent]]],
    expected: Sequence[Any],
    connections: Sequence[int],
    options: argparse.Namespace,
) -> dict[str, list[Ran]]:
    """Every server in turn, several times."""
    found: dict[str, list[Ran]] = defaultdict(list)
    broken: set[int] = set()
    for _ in range(options.rounds):
        for place, (maker, sent) in enumerate(makers):
            port = free_port()
            server = maker(port) if place not in broken else None
            if server is None:
                broken.add(place)
                continue
            try:
                ran = run(server, port, sent, expected, connections, options.seconds)
                found[server.name].append(ran)
            except (RuntimeError, AssertionError, OSError, subprocess.CalledProcessError) as problem:
                print(f"{server.name} is left out: {problem}")
                broken.add(place)
    return found


def show(title: str, found: dict[str, list[Ran]], base: str, connections: Sequence[int]) -> None:
    """A table for docs/benchmarks.md."""
    print(f"\n### {title}\n")
    many = max(connections)
    heads = [
        f"req/s c{many}",
        f"x {base}",
        f"p50 ms c{many}",
        f"p99 ms c{many}",
        "p50 ms c1",
        "CPU us/req",
        "PSS MB",
        "start s",
        "stop s",
        "wrong",
    ]
    print("| server | " + " | ".join(heads) + " |\n|---|" + "--:|" * len(heads))
    for name, rans in found.items():
        pairs = zip(rans, found.get(base, []), strict=False)
        ratios = [ran.loads[many].per_s / other.loads[many].per_s for ran, other in pairs]
        cells = [
            f"{_median(ran.loads[many].per_s for ran in rans):.0f}",
            f"{statistics.median(ratios):.2f}" if ratios else "",
            f"{_median(ran.loads[many].p50_ms for ran in rans):.3f}",
            f"{_median(ran.loads[many].p99_ms for ran in rans):.2f}",
            f"{_median(ran.loads[1].p50_ms for ran in rans):.3f}" if 1 in connections else "",
            f"{_median(ran.loads[many].cpu_us for ran in rans):.1f}",
            f"{_median(ran.pss_mb for ran in rans):.0f}",
            f"{_median(ran.start_s for ran in rans):.2f}",
            f"{_median(ran.stop_s for ran in rans):.2f}",
            str(sum(load.wrong for ran in rans for load in ran.loads.values())),
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _median(values: Any) -> float:
    return float(statistics.median(list(values)))


def answers(model: Path, rows: Sequence[Any]) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [session.run(None, {name: one})[0] for one in rows]


def bare(model: Path, rows: Sequence[Any], threads: int, seconds: float) -> float:
    """Runs a second of nothing but ``session.run``: ``threads`` Python threads, one thread inside each run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    counts = [0] * threads
    until = time.perf_counter() + seconds

    def work(place: int) -> None:
        while time.perf_counter() < until:
            session.run(None, {name: rows[counts[place] % len(rows)]})
            counts[place] += 1

    workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / seconds


def tiny(folder: Path, options: argparse.Namespace) -> None:
    model = models.tiny(folder)
    rows = list(models.tiny_rows(1000))
    expected = answers(model, rows)
    score = [models.as_score(row) for row in rows]
    found = rounds_of(
        [
            (lambda port: peers.azmlinfsrv(model, port, folder, workers=1), score),
            (lambda port: peers.azmlinfsrv(model, port, folder, workers=2), score),
            (lambda port: peers.ours(model, port, folder), score),
        ],
        expected,
        (32, 1),
        options,
    )
    show("Tiny model, JSON /score", found, "azmlinfsrv w1", (32, 1))
    v2, binary = [models.as_v2(row, "X") for row in rows], [models.as_v2_binary(row, "X") for row in rows]
    infer = "/v2/models/model/infer"
    found = rounds_of(
        [
            (lambda port: peers.mlserver(model, port, folder), v2),
            (lambda port: peers.pytriton(model, port, folder), binary),
            (lambda port: named(peers.ours(model, port, folder), "hedgerow v2 json", infer), v2),
            (lambda port: named(peers.ours(model, port, folder), "hedgerow v2 binary", infer), binary),
        ],
        expected,
        (32, 1),
        options,
    )
    show("Tiny model, Open Inference Protocol", found, "mlserver pw0", (32, 1))
    if "pytriton" in found:
        show("The same beside PyTriton", found, "pytriton", (32, 1))


def scripts(folder: Path, options: argparse.Namespace) -> None:
    model = models.tiny(folder)
    rows = list(models.tiny_rows(1000))
    score = [models.as_score(row) for row in rows]
    found = rounds_of(
        [
            (lambda port: peers.azmlinfsrv(model, port, folder, workers=1), score),
            (lambda port: peers.azmlinfsrv(model, port, folder, workers=2), score),
            (lambda port: peers.ours(model, port, folder, script=True), score),
            (lambda port: peers.ours(model, port, folder, script=True, workers=2), score),
        ],
        answers(model, rows),
        (32, 1),
        options,
    )
    show("The same score.py", found, "azmlinfsrv w1", (32, 1))


def cnn(folder: Path, options: argparse.Namespace) -> None:
    model = models.cnn(folder)
    pictures = list(models.images(16))
    expected = answers(model, pictures)
    score = [models.as_score(picture) for picture in pictures]
    found = rounds_of(
        [
            (lambda port: peers.azmlinfsrv(model, port, folder, workers=2), score),
            (lambda port: peers.ours(model, port, folder), score),
        ],
        expected,
        (8, 1),
        options,
    )
    show("Convolutional net, JSON /score", found, "azmlinfsrv w2", (8, 1))
    binary = [models.as_v2_binary(picture, "image") for picture in pictures]
    limits = []
    cores = len(os.sched_getaffinity(0))
    found = defaultdict(list)
    for _ in range(options.rounds):
        limits.append(bare(model, pictures, cores, options.seconds))
        maker = lambda port: named(peers.ours(model, port, folder), "hedgerow v2 binary", "/v2/models/model/infer")  # noqa: E731 - used once
        one_round = argparse.Namespace(**{**vars(options), "rounds": 1})
        for name, rans in rounds_of([(maker, binary)], expected, (8, 1), one_round).items():
            found[name] += rans
    show("Convolutional net, binary tensors", found, "hedgerow v2 binary", (8, 1))
    ratios = [ran.loads[8].per_s / limit for rans in found.values() for ran, limit in zip(rans, limits, strict=False)]
    if ratios:
        print(f"\nbare session.run loop, {cores} threads: {_median(limits):.0f} runs/s; served: {_median(ratios):.2f} of it")


def named(server: Server, name: str, path: str) -> Server:
    return Server(name, server.argv, server.environment, server.folder, path, server.ready_path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Scoring beside its peers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", choices=("tiny", "script", "cnn"))
    options = parser.parse_args(arguments)
    parts = {"tiny": tiny, "script": scripts, "cnn": cnn}
    with tempfile.TemporaryDirectory(prefix="hedgerow-bench-") as folder:
        for name, part in parts.items():
            if options.only in (None, name):
                part(Path(folder), options)


if __name__ == "__main__":
    main()
