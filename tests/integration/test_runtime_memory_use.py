"""What a scoring server costs in memory: who holds what, and how often."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hedgerow.process.memory import pss_bytes
from tests import scoring_models as models
from tests.scoring_load import ScoringLoad
from tests.scoring_server import ScoringServer
from tests.waiting import wait_for

MB = 1_000_000
# Weights of the heavy model: 64 layers of a mebibyte.
LAYERS, SIDE = 64, 512
# Floats in a row of the wide model: 4 MiB.
WIDE = 2**20
_ROW = [5.1, 3.5, 1.4, 0.2]


# Blocks of five mebibytes that are freed while small ones behind each are still in use.
HOLES = """
import os, sys
from pathlib import Path
from runtime.memory import return_large_blocks

if sys.argv[1] == "returned":
    return_large_blocks()
# glibc learns from it that blocks of this size come and go.
bytearray(20 << 20)
large, small = [], []
for _ in range(10):
    large.append(bytearray(5 << 20))
    small.append(bytearray(3000))
full = Path("/proc/self/statm").read_text().split()[1]
large.clear()
print((int(full) - int(Path("/proc/self/statm").read_text().split()[1])) * os.sysconf("SC_PAGE_SIZE"))
"""


@cache
def heavy() -> Path:
    """x f32[N,512] -> x64 f32[N,512]: one product after the other, 64 MiB of weights, some milliseconds a run."""
    random = np.random.default_rng(5)
    weights = [random.standard_normal((SIDE, SIDE)).astype(np.float32) / SIDE for _ in range(LAYERS)]
    return models.build(
        "heavy",
        [helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"]) for number in range(LAYERS)],
        [models.value("x0", TensorProto.FLOAT, ["N", SIDE])],
        [models.value(f"x{LAYERS}", TensorProto.FLOAT, ["N", SIDE])],
        [numpy_helper.from_array(values, f"w{number}") for number, values in enumerate(weights)],
    )


@cache
def wide() -> Path:
    """x f32[N,2**20] -> y f32[N]: 4 MiB a row, and as much for what stands between."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("ReduceSum", ["b", "axes"], ["y"], keepdims=0),
    ]
    return models.build(
        "wide",
        nodes,
        [models.value("x", TensorProto.FLOAT, ["N", WIDE])],
        [models.value("y", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )


class Load(ScoringLoad):
    """Callers who keep their connection."""

    def __init__(self, port: int, row: list[float], *, clients: int, begun: int) -> None:
        self._port, self._body = port, json.dumps({"data": [row]}).encode()
        super().__init__(clients, begun=begun)

    def call(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self.stopped.is_set():
            connection.request("POST", "/score", self._body)
            response = connection.getresponse()
            response.read()
            self.ends["ok" if response.status == 200 else f"status {response.status}"] += 1
        connection.close()


def mapped(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def anonymous_bytes(pid: int) -> int:
    """Pages of a process that no file stands behind."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


def shared_bytes(pid: int) -> int:
    """Pages without a file behind them that another process has, too: those that a fork left in common."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Shared_Dirty:"))


def test_the_master_has_not_loaded_onnxruntime_and_shares_its_pages_with_the_worker(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        (worker,) = server.workers()
        assert server.score({"data": [_ROW]}).status_code == 200
        assert "onnxruntime" in mapped(worker)
        assert "onnxruntime" not in mapped(server.process.pid)
        shared, own = shared_bytes(worker), anonymous_bytes(server.process.pid)
        # A collection that looks at every object would copy nearly all pages; a third to a half is copied by counting references.
        assert shared > 0.5 * own, f"{shared / MB:.1f} of the master's {own / MB:.1f} MB are shared"


def test_a_small_model_under_load_takes_less_than_a_bound_and_grows_no_further(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        processes = [server.process.pid, *server.workers()]
        with Load(server.port, _ROW, clients=4, begun=1000) as load:
            begun = sum(map(anonymous_bytes, processes))
            wait_for(lambda: load.ends["ok"] > 4000, timeout_s=60, what="3000 more answers")
            assert sum(map(pss_bytes, processes)) < 110 * MB
            grown = sum(map(anonymous_bytes, processes)) - begun
        assert load.failures == {}
        assert grown < 3 * MB, f"grown by {grown / MB:.1f} MB"


def test_threads_share_one_copy_of_the_model(tmp_path: Path) -> None:
    with ScoringServer(tmp_path / "small", "--model", models.iris()) as server:
        (worker,) = server.workers()
        small = anonymous_bytes(worker)
    weights = LAYERS * SIDE * SIDE * 4
    with ScoringServer(tmp_path / "heavy", "--model", heavy(), "--queue-wait-ms", 20_000) as server:
        (worker,) = server.workers()
        # What opening the file took beside the model is gone already.
        loaded = anonymous_bytes(worker) - small
        assert weights * 0.9 < loaded < weights * 1.1, f"{loaded / MB:.1f} MB for {weights / MB:.1f} MB of weights"
        with Load(server.port, [0.5] * SIDE, clients=8, begun=100) as load:
            under_load = anonymous_bytes(worker) - small
        assert load.failures == {}
        assert under_load < weights * 1.1 + 5 * MB, f"{under_load / MB:.1f} MB for {weights / MB:.1f} MB of weights"


def test_what_trying_a_model_with_several_rows_took_is_given_back(tmp_path: Path) -> None:
    with ScoringServer(tmp_path / "small", "--model", models.iris()) as server:
        (worker,) = server.workers()
        small = anonymous_bytes(worker)
    with ScoringServer(tmp_path / "wide", "--model", wide()) as server:
        (worker,) = server.workers()
        kept = anonymous_bytes(worker) - small
        # Eight rows alone are 34 MB. One row stays as the example; the arena may keep its first region.
        assert kept < 6 * WIDE * 4, f"{kept / MB:.1f} MB"


def test_large_blocks_return_to_the_system_when_they_are_freed() -> None:
    returned, kept = (
        int(subprocess.run([sys.executable, "-c", HOLES, how], check=True, capture_output=True, text=True).stdout)
        for how in ("returned", "kept")
    )
    assert returned > 45 * MB
    assert kept < 10 * MB, "the C library returns them by itself: return_large_blocks is of no use any more"
