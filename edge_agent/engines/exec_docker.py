"""Runs a probe's command inside a module's container. Imported only where docker modules are, for its SDK costs memory.

Docker cannot end what it began in a container. So a command that is not over in time is left alone and counts as a bad answer
until it has ended: there is never more than one of them in a container.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import docker
import docker.errors

from edge_agent.reconcile.situation import Wanted
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.names import LABEL_MODULE, LABEL_OWNER

# Talking to the engine takes its time, too, on a device that is busy.
ENGINE_TIMEOUT_S = 10
LEFT_MAX = 256
_LOOK_AGAIN_S = 0.05
_LOOK_AGAIN_LATER = 1.5


class DockerCommands:
    """Thread-safe."""

    def __init__(self, config: DeviceConfig, base_url: str | None = None) -> None:
        self._config = config
        self._base_url = base_url
        self._lock = threading.Lock()
        self._never = threading.Event()
        # The command that did not end in time, by container.
        self._left: dict[str, str] = {}

    def run(self, wanted: Wanted, command: Sequence[str], timeout_s: float) -> str:
        """Run a command; "" when it ended with 0 in time, else what is wrong in a few words."""
        try:
            with self._client() as client:
                container = self._container(client, wanted.name)
                if container is None:
                    return "its container does not run"
                if self._still_runs(client, container):
                    return f"{command[0]} of an earlier probe has not ended yet"
                return self._run(client, container, command, timeout_s)
        except (docker.errors.DockerException, OSError) as problem:
            return f"{command[0]} could not be run: {problem}"

    def _run(self, client: Any, container: str, command: Sequence[str], timeout_s: float) -> str:  # noqa: ANN401 - the SDK is untyped
        exec_id = str(client.exec_create(container, list(command), stdout=False, stderr=False)["Id"])
        client.exec_start(exec_id, detach=True)
        ends_s, pause_s = time.monotonic() + timeout_s, _LOOK_AGAIN_S
        while True:
            found = client.exec_inspect(exec_id)
            if not found["Running"] and found["ExitCode"] is not None:
                return "" if found["ExitCode"] == 0 else f"{command[0]} ended with exit code {found['ExitCode']}"
            if time.monotonic() >= ends_s:
                self._leave(container, exec_id)
                return f"{command[0]} did not end within {timeout_s:g} s"
            self._never.wait(min(pause_s, max(0.0, ends_s - time.monotonic())))
            pause_s *= _LOOK_AGAIN_LATER

    def _leave(self, container: str, exec_id: str) -> None:
        with self._lock:
            self._left[container] = exec_id
            if len(self._left) > LEFT_MAX:
                # The oldest: most likely its container has long gone.
                del self._left[next(iter(self._left))]

    def _still_runs(self, client: Any, container: str) -> bool:  # noqa: ANN401 - the SDK is untyped
        with self._lock:
            exec_id = self._left.get(container)
        if exec_id is None:
            return False
        with contextlib.suppress(docker.errors.NotFound):
            if client.exec_inspect(exec_id)["Running"]:
                return True
        with self._lock:
            self._left.pop(container, None)
        return False

    def _container(self, client: Any, name: str) -> str | None:  # noqa: ANN401 - the SDK is untyped
        labels = [f"{LABEL_OWNER}={self._config.device_uuid}", f"{LABEL_MODULE}={name}"]
        found = client.containers(filters={"label": labels})
        return str(found[0]["Id"]) if found else None

    @contextmanager
    def _client(self) -> Iterator[Any]:
        client = docker.APIClient(base_url=self._base_url, version="auto", timeout=ENGINE_TIMEOUT_S)
        with contextlib.closing(client):
            yield client
