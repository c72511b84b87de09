"""Other scoring servers for the benchmark, each in a virtual environment of its own, made once and kept in the user's cache.

A peer that cannot be installed or started here is named with the reason and left out; nothing stands in for it. Each is told
three ports (HTTP, gRPC, metrics): the peers here end, or hang, when one of theirs is taken.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    import os, signal, sys
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
    http, grpc, metrics = (int(port) for port in sys.argv[1:4])
    near = {"http_address": "127.0.0.1", "grpc_address": "127.0.0.1", "metrics_address": "127.0.0.1"}
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics, **near}
    # By itself it dies of SIGTERM at once, and leaves its server behind, which takes seconds to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Triton(config=TritonConfig(**ports)) as triton:
        triton.bind(model_name="model", infer_func=infer, inputs=[Tensor(name=given.name, dtype=np.float32, shape=shape)],
                    outputs=[Tensor(name="answer", dtype=np.int64, shape=(1,))], config=ModelConfig(max_batch_size=64))
        triton.serve()
"""


class LeftOut(RuntimeError):
    """Why a server cannot be had here."""


@dataclass(frozen=True)
class Server:
    """One way to serve the model: its command, and what else its process needs. ``stdout``: a file for it, nowhere otherwise."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    port: int
    path: str = "/score"
    stdout: Path | None = None


@dataclass(frozen=True)
class Site:
    """What every server serves, and where it may put files."""

    model: Path
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"BENCH_MODEL": str(self.model)}


INFER = "/v2/models/model/infer"
Ports = Sequence[int]


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hedgerow-bench"


def environment_of(name: str, packages: tuple[str, ...], python: str = sys.executable) -> Path:
    """The virtual environment with these packages, made if need be. Raises LeftOut when it cannot be made."""
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
            shutil.rmtree(place, ignore_errors=True)
            raise LeftOut(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given")
    stamp.write_text(wanted)
    return place


def ours(site: Site, ports: Ports, *, path: str = "/score", flags: Sequence[str] = (), stdout: Path | None = None) -> Server:
    """The model without a script."""
    return _hedgerow(site, ports, ("--model", str(site.model), "--name", "model", *flags), path, stdout)


def ours_with_script(site: Site, ports: Ports, *, workers: int = 1) -> Server:
    return _hedgerow(site, ports, ("--script", str(write_script(site.folder)), "--workers", str(workers)), "/score", None)


def _hedgerow(site: Site, ports: Ports, what: tuple[str, ...], path: str, stdout: Path | None) -> Server:
    argv = (sys.executable, "-P", "-m", "runtime", *what, "--port", str(ports[0]), "--log-level", "error")
    return Server(argv, site.variables, site.folder, ports[0], path, stdout)


def azmlinfsrv(site: Site, ports: Ports, *, workers: int) -> Server:
    place = environment_of("azmlinfsrv", AZMLINFSRV)
    script = str(write_script(site.folder))
    flags = ("--entry_script", script, "--port", str(ports[0]), "--worker_count", str(workers))
    return Server((str(place / "bin" / "azmlinfsrv"), *flags), site.variables, site.folder, ports[0])


def mlserver(site: Site, ports: Ports) -> Server:
    place = environment_of("mlserver", MLSERVER)
    here = site.folder / "mlserver"
    here.mkdir(exist_ok=True)
    (here / "onnx_model.py").write_text(textwrap.dedent(_MLSERVER_MODEL))
    settings: dict[str, Any] = {"parallel_workers": 0, "host": "127.0.0.1", "debug": False}
    settings |= zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True)
    (here / "settings.json").write_text(json.dumps(settings))
    (here / "model-settings.json").write_text('{"name": "model", "implementation": "onnx_model.Onnx"}')
    argv = (str(place / "bin" / "mlserver"), "start", str(here))
    return Server(argv, site.variables, here, ports[0], INFER)


def pytriton(site: Site, ports: Ports) -> Server:
    # Its prebuilt stub crashes on some patch releases of Python 3.11; Debian's works.
    python = "/usr/bin/python3" if Path("/usr/bin/python3.11").exists() else sys.executable
    place = environment_of("pytriton", PYTRITON, python)
    here = site.folder / "pytriton"
    here.mkdir(exist_ok=True)
    file = here / "server.py"
    file.write_text(textwrap.dedent(_PYTRITON_SERVER))
    argv = (str(place / "bin" / "python"), str(file), *(str(port) for port in ports))
    # It copies Triton into a folder of its own for each start, in the user's cache unless told where.
    own = {"PYTRITON_HOME": str(here), "TMPDIR": str(here)}
    # Triton says on stdout why it does not start; under load it says nothing there.
    return Server(argv, {**site.variables, **own}, here, ports[0], INFER, stdout=here / "triton.log")


def write_script(folder: Path) -> Path:
    """The same score.py for every server that takes one."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    file = source / "score.py"
    file.write_text(textwrap.dedent(SCORE))
    return file
