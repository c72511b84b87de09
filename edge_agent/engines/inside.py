"""Runs a probe's command inside a module, whatever kind it is of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edge_agent.engines.asking import RunInside
from edge_agent.engines.exec_process import run_in_folder
from edge_agent.reconcile.situation import Wanted
from hedgerow.contracts.device import DeviceConfig


class Inside:
    """``environment`` is all that a process module is started with; ``work_folder`` where it works."""

    def __init__(
        self,
        config: DeviceConfig,
        docker_host: str | None,
        environment: Callable[[Wanted], Mapping[str, str]],
        work_folder: Callable[[str], Path],
    ) -> None:
        self._config = config
        self._docker_host = docker_host
        self._environment = environment
        self._work_folder = work_folder
        self._lock = threading.Lock()
        self._in_container: RunInside | None = None

    def run(self, wanted: Wanted, command: Sequence[str], timeout_s: float) -> str:
        """Run a command; "" when it ended with 0 in time, else what is wrong in a few words."""
        if wanted.spec.kind == "docker":
            return self._docker()(wanted, command, timeout_s)
        folder = self._work_folder(wanted.name)
        return run_in_folder(command, folder, self._environment(wanted), wanted.spec.limits, timeout_s)

    def _docker(self) -> RunInside:
        # Its SDK is in memory already: a container of this module runs.
        from edge_agent.engines.exec_docker import DockerCommands

        with self._lock:
            if self._in_container is None:
                self._in_container = DockerCommands(self._config, self._docker_host).run
            return self._in_container
