"""Other scoring servers for the benchmark, each in a virtual environment of its own, made once and kept in the user's cache.

A peer that cannot be installed or started here is named with the reason and left out; nothing stands in for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

# Versions as measured in docs/benchmarks.md; a later one may be quicker or slower.
AZMLINFSRV = ("azureml-inference-server-http==1.5.1", "onnxruntime==1.31.1")
MLSERVER = ("mlserver==1.7.1", "onnxruntime==1.31.1", "uvloop==0.21.0")
PYTRITON = ("nvidia-pytriton==0.7.0", "onnxruntime==1.23.2", "numpy<2")

SCORE = """
    import json, os
    import numpy as np
    import onnxruntime as ort

    def init():
        global session, name
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

    def run(raw_data):
        rows = np.array(json.loads(raw_data)["data"], dtype=np.float32)
        return session.run(None, {name: rows})[0].tolist()
"""
_MLSERVER_MODEL = """
    import os
    import numpy as np
    import onnxruntime as ort
    from mlserver import MLModel
    from mlserver.codecs import NumpyCodec
    from mlserver.types import InferenceRequest, InferenceResponse

    class Onnx(MLModel):
        async def load(self) -> bool:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
            self.input = self.session.get_inputs()[0].name
            return True

        async def predict(self, payload: InferenceRequest) -> InferenceResponse:
            rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
            answer = self.session.run(None, {self.input: rows})[0]
            return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("answer", answer)])
"""
_PYTRITON_SERVER = """
    import os, sys
    import numpy as np
    import onnxruntime as ort
    from pytriton.decorators import batch
    from pytriton.model_config import ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]

    @batch
    def infer(**inputs):
        return [session.run(None, {given.name: inputs[given.name]})[0].reshape(-1, 1)]

    shape = tuple(length if isinstance(length, int) else -1 for length in given.shape[1:])
    port = int(sys.argv[1])
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "http_address": "127.0.0.1"}
    with Triton(config=TritonConfig(**ports)) as triton:
        triton.bind(model_name="model", infer_func=infer, inputs=[Tensor(name=given.name, dtype=np.float32, shape=shape)],
                    outputs=[Tensor(name="answer", dtype=np.int64, shape=(1,))], config=ModelConfig(max_batch_size=64))
        triton.serve()
"""


@dataclass(frozen=True)
class Server:
    """One way to serve the model: its command, and what else its process needs."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    path: str
    ready_path: str


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hedgerow-bench"


def environment_of(name: str, packages: tuple[str, ...], python: str = sys.executable) -> Path | None:
    """The virtual environment with these packages, made if need be; None, and a sentence, when it cannot be made."""
    place = cache_folder() / name
    stamp = place / "packages"
    wanted = "\n".join(packages)
    if stamp.is_file() and stamp.read_text() == wanted:
        return place
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}") or "uv"
    shutil.rmtree(place, ignore_errors=True)
    print(f"making an environment with {', '.join(packages)} …", flush=True)
    for argv in (
        [uv, "venv", "-q", "--python", python, str(place)],
        [uv, "pip", "install", "-q", "--python", str(place), *packages],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name} is left out: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no reason given'}")
            shutil.rmtree(place, ignore_errors=True)
            return None
    stamp.write_text(wanted)
    return place


def ours(model: Path, port: int, folder: Path, *, script: bool = False, workers: int = 1) -> Server:
    what = (
        ("--script", str(write_script(folder)), "--workers", str(workers))
        if script
        else ("--model", str(model), "--name", "model")
    )
    argv = (sys.executable, "-P", "-m", "runtime", *what, "--port", str(port), "--log-level", "error")
    return Server(
        f"hedgerow {'script w' + str(workers) if script else 'model'}",
        argv,
        {"BENCH_MODEL": str(model)},
        folder,
        "/score",
        "/v2/health/ready",
    )


def azmlinfsrv(model: Path, port: int, folder: Path, *, workers: int) -> Server | None:
    place = environment_of("azmlinfsrv", AZMLINFSRV)
    if place is None:
        return None
    argv = (
        str(place / "bin" / "azmlinfsrv"),
        "--entry_script",
        str(write_script(folder)),
        "--port",
        str(port),
        "--worker_count",
        str(workers),
    )
    return Server(f"azmlinfsrv w{workers}", argv, {"BENCH_MODEL": str(model)}, folder, "/score", "/")


def mlserver(model: Path, port: int, folder: Path) -> Server | None:
    place = environment_of("mlserver", MLSERVER)
    if place is None:
        return None
    here = folder / "mlserver"
    here.mkdir(exist_ok=True)
    (here / "onnx_model.py").write_text(textwrap.dedent(_MLSERVER_MODEL))
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    settings = {"parallel_workers": 0, "host": "127.0.0.1", "debug": False, **ports}
    (here / "settings.json").write_text(json.dumps(settings))
    (here / "model-settings.json").write_text('{"name": "model", "implementation": "onnx_model.Onnx"}')
    argv = (str(place / "bin" / "mlserver"), "start", str(here))
    return Server("mlserver pw0", argv, {"BENCH_MODEL": str(model)}, here, "/v2/models/model/infer", "/v2/health/ready")


def pytriton(model: Path, port: int, folder: Path) -> Server | None:
    # Its prebuilt stub crashes on some patch releases of Python 3.11; Debian's works.
    python = "/usr/bin/python3" if Path("/usr/bin/python3.11").exists() else sys.executable
    place = environment_of("pytriton", PYTRITON, python)
    if place is None:
        return None
    file = folder / "pytriton_server.py"
    file.write_text(textwrap.dedent(_PYTRITON_SERVER))
    argv = (str(place / "bin" / "python"), str(file), str(port))
    return Server("pytriton", argv, {"BENCH_MODEL": str(model)}, folder, "/v2/models/model/infer", "/v2/models/model/ready")


def write_script(folder: Path) -> Path:
    """The same score.py for every server that takes one."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    file = source / "score.py"
    file.write_text(textwrap.dedent(SCORE))
    return file
