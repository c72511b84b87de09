"""How long large bodies keep everybody else waiting, and how many of them are scored.

    python -m loadtests.bench_large_bodies [--seconds 8] [--rounds 1] [--beside DIR]

One small convolutional net on [N, 3, 224, 224]. While four clients send large bodies one after another, one caller asks ``/``
on a connection of its own every 2 ms. Its latencies count from when it should have asked: one that took a second stands for the
499 that could not be asked meanwhile too. Clients and the caller are processes of their own. ``--beside`` is another checkout,
whose server is measured in turn with this one's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from loadtests.scoring.processes import cpu_s, family
from runtime.models.onnx_model import silence_telemetry

SIDE = 224
CLIENTS = 4
EVERY_S = 0.002
_PROBE = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """One kind of large request."""

    name: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Seen:
    """What one load was like: latencies of the probe in ms, large bodies a second, processor time for each, most memory."""

    p50_ms: float
    p99_ms: float
    longest_ms: float
    per_s: float
    cpu_ms: float
    rss_mb: float


def small_net(folder: Path) -> Path:
    """[N, 3, 224, 224] to ten values: a convolution with stride 4, the mean, a matrix. A millisecond an image."""
    random = np.random.default_rng(7)
    weights = [
        numpy_helper.from_array(random.standard_normal((8, 3, 3, 3)).astype(np.float32), "filters"),
        numpy_helper.from_array(random.standard_normal((8, 10)).astype(np.float32), "classes"),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "filters"], ["seen"], kernel_shape=[3, 3], strides=[4, 4], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["seen"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "classes"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "small-net", [image], [scores], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "net.onnx")
    return folder / "net.onnx"


def loads() -> list[Load]:
    random = np.random.default_rng(2)
    images = np.round(random.random((17, 3, SIDE, SIDE)), 4)
    kind = {"content-type": "application/json"}
    score = json.dumps({"data": images.tolist()}).encode()
    tensor = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": images.ravel().tolist()}
    infer = json.dumps({"inputs": [tensor]}).encode()
    raw = np.zeros((166, 3, SIDE, SIDE), dtype=np.float32)
    head = json.dumps(
        {"inputs": [tensor | {"shape": raw.shape, "data": None, "parameters": {"binary_data_size": raw.nbytes}}]}
    ).encode()
    binary = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return [
        Load(f"{len(score) / 1e6:.0f} MB of JSON, /score", "/score", kind, score),
        Load(f"{len(infer) / 1e6:.0f} MB of JSON, /v2", "/v2/models/model/infer", kind, infer),
        Load(f"{raw.nbytes / 1e6:.0f} MB of binary tensors, /v2", "/v2/models/model/infer", binary, head + raw.tobytes()),
    ]


def ask_on_time(port: int, told: Connection) -> None:
    """A process: asks ``/`` until it is told to end, then tells the latencies in ms."""
    found: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as caller:
        due = time.perf_counter()
        while not told.poll():
            now = time.perf_counter()
            if now < due:
                time.sleep(due - now)
            caller.sendall(_PROBE)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += caller.recv(65536)
            ended = time.perf_counter()
            while due < ended:
                found.append((ended - due) * 1000)
                due += EVERY_S
    told.send(found)


def send_on_and_on(port: int, load: Load, told: Connection) -> None:
    """A process: sends large bodies on several connections until it is told to end, then tells how many were answered."""
    over = threading.Event()
    counts = [0] * CLIENTS
    wrong: list[str] = []

    def client(place: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        while not over.is_set():
            connection.request("POST", load.path, load.body, load.headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                wrong.append(f"{answer.status}: {text[:200]!r}")
                return
            counts[place] += not over.is_set()
        connection.close()

    threads = [threading.Thread(target=client, args=(place,)) for place in range(CLIENTS)]
    for thread in threads:
        thread.start()
    told.recv()
    over.set()
    told.send((sum(counts), wrong))
    for thread in threads:
        thread.join()


def measure(port: int, server: int, load: Load | None, seconds: float) -> Seen:
    """The probe with ``load`` beside it, or with nothing."""
    started = multiprocessing.get_context("fork")
    sender, probe = started.Pipe(), started.Pipe()
    processes = []
    if load is not None:
        processes.append(started.Process(target=send_on_and_on, args=(port, load, sender[1])))
        processes[0].start()
        # The first bodies find cold memory.
        time.sleep(2)
    processes.append(started.Process(target=ask_on_time, args=(port, probe[1])))
    processes[-1].start()
    before = cpu_s(family(server))
    time.sleep(seconds)
    spent_s = cpu_s(family(server)) - before
    probe[0].send(None)
    latencies = sorted(probe[0].recv())
    count, wrong = 0, []
    if load is not None:
        sender[0].send(None)
        count, wrong = sender[0].recv()
    for process in processes:
        process.join()
    assert not wrong, wrong[0]
    per_s = count / (seconds + 2)
    cpu_ms = spent_s / max(per_s * seconds, 1) * 1000
    return Seen(_share(latencies, 0.5), _share(latencies, 0.99), latencies[-1], per_s, cpu_ms, most_memory_mb(server))


def _share(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def most_memory_mb(server: int) -> float:
    """The most that the largest of its processes ever had."""
    peaks = []
    for pid in family(server):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        peaks += [int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")]
    return max(peaks)


def start(model: Path, port: int, checkout: Path | None) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    silence_telemetry(environment)
    if checkout is not None:
        environment["PYTHONPATH"] = str(checkout)
    flags = ("--model", str(model), "--name", "model", "--port", str(port), "--log-level", "error", "--queue-wait-ms", "60000")
    argv = (sys.executable, "-P", "-m", "runtime", *flags)
    server = subprocess.Popen(argv, env=environment, cwd=model.parent, stdout=subprocess.DEVNULL)
    until = time.perf_counter() + 30
    while time.perf_counter() < until and server.poll() is None:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return server
        except OSError:
            time.sleep(0.02)
    server.kill()
    raise RuntimeError("the server did not come up")


def run(model: Path, load: Load | None, checkout: Path | None, seconds: float) -> Seen:
    """A server of its own, so that memory is this load's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start(model, port, checkout)
    try:
        return measure(port, server.pid, load, seconds)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Large bodies, and who waits for them.")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--only", default="", help="loads whose name has this text")
    options = parser.parse_args(arguments)
    checkouts = {"here": None, **({"beside": options.beside.resolve()} if options.beside else {})}
    print("| beside the probe | server | p50 ms | p99 ms | longest ms | bodies/s | CPU ms a body | most RSS MB |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory(prefix="hedgerow-bench-") as folder:
        model = small_net(Path(folder))
        for load in [None, *loads()]:
            name = load.name if load is not None else "nothing"
            if options.only not in name:
                continue
            found: dict[str, list[Seen]] = {which: [] for which in checkouts}
            for _ in range(options.rounds):
                for which, checkout in checkouts.items():
                    found[which].append(run(model, load, checkout, options.seconds))
            for which, seen in found.items():
                cells = [
                    f"{statistics.median(one.p50_ms for one in seen):.2f}",
                    f"{statistics.median(one.p99_ms for one in seen):.1f}",
                    f"{max(one.longest_ms for one in seen):.0f}",
                    f"{statistics.median(one.per_s for one in seen):.2f}",
                    f"{statistics.median(one.cpu_ms for one in seen):.0f}",
                    f"{max(one.rss_mb for one in seen):.0f}",
                ]
                print(f"| {name} | {which} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
