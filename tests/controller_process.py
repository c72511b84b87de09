"""A server and a controller as real processes on a short-lived workspace, and small real models and scripts to give them.

Everything that was started is ended by pid when the test ends: the roles first, then the supervised processes they left.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hedgerow.contracts.service import Deployment, DeploymentSettings, Endpoint
from hedgerow.contracts.work import Activity
from hedgerow.process import Running, Supervised
from hedgerow.sdk.client import Client
from hedgerow.sdk.connect import connect
from tests.fixtures.real_process import RealProcess
from tests.waiting import free_port, wait_for

READY_S = 30.0
ROW = {"data": [[1.0, 2.0, 3.0]]}


class Plane:
    """``folder`` is the workspace. Roles are started one by one, so that a test can do without, kill and restart them."""

    def __init__(self, folder: Path, database: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._environment = ({"HEDGEROW_DATABASE": database} if database else {}) | dict(environment or {})
        self.logs = folder.with_name(f"{folder.name}-logs")
        self.logs.mkdir(parents=True)
        self.balancer_port = free_port()
        self.controller: RealProcess
        self._started: list[RealProcess] = []
        self._options: tuple[str, ...] = ()

    def start_server(self) -> RealProcess:
        return self._start("server", "--port", "0")

    def start_controller(self, *options: str) -> RealProcess:
        """With the options of the last start where none are given."""
        self._options = options or self._options
        self.controller = self._start("controller", "--balancer-port", str(self.balancer_port), *self._options)
        return self.controller

    @functools.cached_property
    def client(self) -> Client:
        return connect(self.folder, start=False)

    def supervised(self, prefix: str = "") -> list[Supervised]:
        """State folders whose names begin with ``prefix`` (replica-, job-, balancer)."""
        return [Supervised(path) for path in sorted((self.folder / "run" / "processes").glob(f"{prefix}*"))]

    def running(self, prefix: str) -> list[int]:
        """Pids of the supervised processes that run."""
        seen = [process.observe() for process in self.supervised(prefix)]
        return [one.pid for one in seen if isinstance(one, Running)]

    def one_running(self, prefix: str) -> int:
        """The pid of the only one that runs, as soon as there is one."""
        (pid,) = wait_for(lambda: self.running(prefix), timeout_s=20, what=f"a {prefix} that runs")
        return pid

    def close(self) -> None:
        if "client" in vars(self):
            self.client.close()
        for process in reversed(self._started):
            process.stop()
        for supervised in self.supervised():
            supervised.stop(0.0)

    def _start(self, role: str, *options: str) -> RealProcess:
        ready = self.logs / f"{role}.ready"
        ready.unlink(missing_ok=True)
        argv = [sys.executable, "-P", "-m", f"registry.{role}", "--workspace", str(self.folder), "--ready-file", str(ready)]
        process = RealProcess([*argv, *options], log=self.logs / f"{role}.log", env=self._environment, cwd=self.logs).start()
        self._started.append(process)
        process.wait_until(ready.exists, timeout_s=READY_S, what=f"the {role} being ready")
        return process


@contextmanager
def plane(
    folder: Path, *options: str, database: str | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Plane]:
    """Server and controller, started; their logs are printed when the test fails."""
    made = Plane(folder / "ws", database, environment)
    try:
        made.start_server()
        made.start_controller(*options)
        yield made
    except BaseException:
        for log in sorted(made.logs.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
        raise
    finally:
        made.close()


def doubling_model(folder: Path, *, factor: float = 2.0) -> Path:
    """``model.onnx``: y = factor · x for FP32 [-1, 3]."""
    folder.mkdir(parents=True, exist_ok=True)
    value = numpy_helper.from_array(np.array([factor], dtype=np.float32), "factor")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "doubling", [x], [y], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def add_model(client: Client, folder: Path, *, factor: float = 2.0, name: str = "doubling") -> str:
    """A registered model; returns its ``name:version``."""
    manifest = client.models.register(name, doubling_model(folder, factor=factor))
    return f"{manifest.name}:{manifest.version}"


def add_image(client: Client, folder: Path, *, factor: float = 2.0, name: str = "doubling", verify: bool = False) -> str:
    """A registered model and an onnx image of it, built by the controller; returns the image's ``name:version``."""
    build = client.images.build(name, [add_model(client, folder, factor=factor, name=name)], verify=verify)
    return client.activities.wait(build.id).result["image"]


def deploy(client: Client, image: str, *, endpoint: str = "twice", deployment: str = "blue", **settings: Any) -> Endpoint:
    """Deploy and wait until it is ready."""
    activity = client.services.deploy(endpoint, image, deployment=deployment, settings=DeploymentSettings(**settings))
    client.activities.wait(activity.id)
    return client.services.get(endpoint)


def deployment_of(client: Client, endpoint: str = "twice", name: str = "blue") -> Deployment:
    return next(one for one in client.services.get(endpoint).deployments if one.name == name)


def delete(made: Plane, endpoint: str = "twice") -> None:
    """Delete an endpoint and wait until nothing of it runs."""
    made.client.services.delete(endpoint)
    wait_for(lambda: not made.supervised("replica-"), timeout_s=20, what="the end of all replicas")


def score(url: str | None) -> float:
    """What the endpoint makes of 1.0: its model's factor."""
    answered = httpx.post(str(url), json=ROW, timeout=10)
    assert answered.status_code == 200, f"{answered.status_code} {answered.text}"
    return float(answered.json()[0][0])


def ended(client: Client, activity_id: str, *, timeout_s: float = 30.0) -> Activity:
    """The activity once it has ended, however."""

    def look() -> Activity | None:
        activity = client.activities.get(activity_id)
        return activity if activity.ended_at else None

    found = wait_for(look, timeout_s=timeout_s, what=f"the end of activity {activity_id}")
    assert found is not None
    return found


def source(folder: Path, script: str, **more: str) -> Path:
    """A folder with ``train.py`` and other files by name (``_`` stands for the dot)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"train_py": script, **more}.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def said(client: Client, activity_id: str) -> str:
    """The log of an activity that has ended."""
    return "\n".join(event.log for event in client.activities.follow(activity_id))
