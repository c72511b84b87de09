"""gunicorn put together: the socket, the master's settings and hooks, and what each worker makes of the plan."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import shutil
import socket
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from hedgerow.atomic_write import atomic_write
from hedgerow.errors import HedgerowError
from runtime.access_log import log_answer
from runtime.arbiter import ScoringArbiter
from runtime.errors import PortTaken
from runtime.front.door import Door, no_witness
from runtime.front.limits import HttpLimits
from runtime.metrics import Board
from runtime.routes import Routes
from runtime.scoring import Limits, Scoring
from runtime.serving_plan import ServingPlan, plan_serving
from runtime.settings import RuntimeSettings, with_absolute_paths
from runtime.telemetry import NoTelemetry, Receiver, Telemetry
from runtime.worker import ScoringWorker

_log = logging.getLogger("hedgerow.runtime")

_HEARTBEAT_S = 30
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - gunicorn makes its files there safely


def listen(host: str, port: int) -> socket.socket:
    """The listening socket, bound before anything is loaded. Raises PortTaken."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise PortTaken(host=host, port=port, problem=reason) from None


def address_of(listener: socket.socket) -> str:
    """The URL under which this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - compared, not bound
    return f"http://{reachable}:{port}"


class GunicornLogs(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Lets gunicorn's messages go to the process's own log; its access log stays off."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn's signature
        self.error_log.setLevel(logging.NOTSET if logging.getLogger().isEnabledFor(logging.DEBUG) else logging.WARNING)
        self.error_log.propagate = True


class ScoringServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """The master's application object; after a fork it is that worker's own."""

    def __init__(self, settings: RuntimeSettings, plan: ServingPlan, listener: socket.socket) -> None:
        # Absolute before the working folder changes.
        self._settings, self._plan = with_absolute_paths(settings), plan
        self._ready_file = self._settings.ready_file
        self._address = address_of(listener)
        # gunicorn takes the descriptor over and closes it itself.
        self._bind = f"fd://{listener.detach()}"
        self._receiver = Receiver.parse(settings.telemetry_url, settings.telemetry_token) if settings.telemetry_url else None
        # A script has its own processes, and one of these in front of them; models are shared by all cores of one process.
        self._fronts = settings.workers if plan.script is None else 1
        models = [(model.name, model.version) for model in plan.models]
        # Twice the workers: during a reload the old and the new ones live side by side.
        self._board = Board(models, rows=2 * self._fronts + 2)
        self._empty_folder: Path | None = None
        self._telemetry: Telemetry | None = None
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        options: dict[str, object] = {
            "bind": [self._bind],
            "workers": self._fronts,
            "worker_class": ScoringWorker,
            "timeout": _HEARTBEAT_S,
            # A request that may run until its scoring timeout is waited for.
            "graceful_timeout": max(30, settings.timeout_ms // 1000 + 5),
            "logger_class": GunicornLogs,
            # Fails on a read-only root file system and is of no use here; older gunicorns do not have it.
            "control_socket_disable": True,
            "pre_fork": self._before_fork,
            "post_fork": self._after_fork,
            "child_exit": self._after_death,
            "on_exit": self._at_master_end,
        }
        if _SHARED_MEMORY.is_dir():
            # Heartbeats by touching a file: on a disk that is busy they come late, on a read-only one never.
            options["worker_tmp_dir"] = str(_SHARED_MEMORY)
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def serve(self) -> None:
        """Run until SIGTERM; leaves the process by SystemExit."""
        _log.info("listening on %s", self._address)
        self._forget_ready_file()
        self._enter_empty_folder()
        if self._plan.models:
            # Once for all workers: a worker that takes another's place has its models within a fraction of a second.
            importlib.import_module("onnxruntime")
        ScoringArbiter(self).run()

    # In the master ----------------------------------------------------------------------------------------------------

    def _before_fork(self, arbiter: Any, worker: ScoringWorker) -> None:  # noqa: ANN401 - gunicorn's arbiter
        worker.row = self._board.free_row(other.row for other in arbiter.WORKERS.values())

    def _after_death(self, arbiter: ScoringArbiter, worker: ScoringWorker) -> None:
        was_ready = self.is_ready(worker)
        self._board.forget_worker(worker.row)
        arbiter.died(was_ready=was_ready)

    def is_ready(self, worker: ScoringWorker) -> bool:
        """Whether a worker answers scoring requests."""
        return self._board.row_value("hedgerow_workers_ready", worker.row) > 0

    def look_again(self) -> bool:
        """Told to by SIGHUP: what is to be served now. False, and a sentence in the log, when that cannot be served."""
        try:
            self._plan = plan_serving(self._settings)
        except HedgerowError as problem:
            _log.error("not reloaded: %s", problem.sentence())
            return False
        return True

    def _at_master_end(self, arbiter: Any) -> None:  # noqa: ANN401 - gunicorn's arbiter
        self._forget_ready_file()
        if self._empty_folder is not None:
            os.chdir("/")
            shutil.rmtree(self._empty_folder, ignore_errors=True)

    def _enter_empty_folder(self) -> None:
        """Nothing that lies about can be imported or opened by accident; relative paths of a script start here."""
        try:
            # No TemporaryDirectory: a worker that ends would tidy it away under the master and all other workers.
            self._empty_folder = Path(tempfile.mkdtemp(prefix="hedgerow-scoring-"))
            os.chdir(self._empty_folder)
        except OSError as problem:
            # A read-only root without /tmp: the container's own working folder has to do.
            _log.info("no empty working folder could be made: %s", problem)

    def _forget_ready_file(self) -> None:
        if self._ready_file is not None:
            with contextlib.suppress(OSError):
                self._ready_file.unlink()

    # In a worker ------------------------------------------------------------------------------------------------------

    def _after_fork(self, arbiter: Any, worker: ScoringWorker) -> None:  # noqa: ANN401 - gunicorn's arbiter
        self._board.take_row(worker.row)
        self._board.add("hedgerow_workers_started_total")

    def make_front(self, worker: ScoringWorker) -> tuple[Scoring, Door]:
        """In the worker's event loop, before anything is loaded."""
        settings = self._settings
        recorder = NoTelemetry() if self._receiver is None else self._start_telemetry(self._receiver)
        scoring = Scoring(
            self._plan,
            Limits.of(settings, fronts=self._fronts),
            self._board,
            recorder,
            threads=settings.threads,
            when_ready=worker.became_ready,
            give_up=worker.give_up,
        )
        version = metadata.version("hedgerow")
        routes = Routes(scoring, self._board, version=version, max_body_bytes=settings.max_body_bytes)
        witness = log_answer if settings.access_log else no_witness
        return scoring, Door(HttpLimits.of(settings), routes.handle, routes.refusal, witness=witness)

    def another_is_ready(self) -> bool:
        """Whether a worker already answers, so that one that still loads need not."""
        return self._board.total("hedgerow_workers_ready") > 0

    def worker_is_ready(self, worker: ScoringWorker) -> None:
        """Say where the server is, once per master."""
        if self._ready_file is not None:
            document = {"address": self._address, "pid": worker.ppid}
            atomic_write(self._ready_file, json.dumps(document).encode() + b"\n")
        _log.info("ready at %s", self._address)

    def _start_telemetry(self, receiver: Receiver) -> Telemetry:
        self._telemetry = Telemetry(receiver, self._board)
        self._telemetry.start()
        return self._telemetry

    def worker_ends(self) -> None:
        """The last thing in a worker that ends in order."""
        if self._telemetry is not None:
            self._telemetry.stop()


def serve(settings: RuntimeSettings, plan: ServingPlan) -> None:
    """Serve ``plan`` until SIGTERM. Raises PortTaken or InvalidSetting before anything is started."""
    ScoringServer(settings, plan, listen(settings.host, settings.port)).serve()
