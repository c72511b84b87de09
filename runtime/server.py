"""gunicorn put together: the socket, the master's settings and hooks, and what each worker makes of the plan."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from hedgerow.atomic_write import atomic_write
from hedgerow.clock import SystemClock, unix_ms
from hedgerow.errors import HedgerowError, InvalidSetting
from runtime.aml.swagger import ServiceText
from runtime.arbiter import ScoringArbiter
from runtime.errors import PortTaken
from runtime.front.auth import Guard
from runtime.front.compression import Packing
from runtime.front.cors import Cors
from runtime.front.door import Door
from runtime.front.gate import Gate
from runtime.front.limits import Buffered, HttpLimits
from runtime.front.tls import tls_context
from runtime.front.traffic import Traffic
from runtime.grpc.port import check_installed, hold_port
from runtime.memory import give_back
from runtime.models.ledger import Ledger
from runtime.models.warm_up import Wishes
from runtime.observing.metrics import Board
from runtime.observing.observers import Observers, check_observers
from runtime.observing.telemetry import NoTelemetry, Receiver, Telemetry
from runtime.observing.vitals import Vitals
from runtime.oip.facts import OipFacts
from runtime.routes import Routes
from runtime.scoring import Limits, Scoring
from runtime.serving_plan import ServingPlan, plan_serving
from runtime.settings import RuntimeSettings, with_absolute_paths
from runtime.worker import ScoringWorker

if TYPE_CHECKING:
    from runtime.grpc.door import GrpcDoor

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


def address_of(listener: socket.socket, scheme: str = "http") -> str:
    """The URL under which this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - compared, not bound
    return f"{scheme}://{reachable}:{port}"


class GunicornLogs(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Lets gunicorn's messages go to the process's own log; its access log stays off."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn's signature
        self.error_log.setLevel(logging.NOTSET if logging.getLogger().isEnabledFor(logging.DEBUG) else logging.WARNING)
        self.error_log.propagate = True


class ScoringServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """The master's application object; after a fork it is that worker's own."""

    def __init__(
        self, settings: RuntimeSettings, plan: ServingPlan, listener: socket.socket, health: socket.socket | None = None
    ) -> None:
        # Absolute before the working folder changes.
        self._settings, self._plan = with_absolute_paths(settings), plan
        self._ready_file = self._settings.ready_file
        self._tls = tls_context(self._settings)
        self._address = address_of(listener, "http" if self._tls is None else "https")
        # gunicorn takes the descriptor over and closes it itself.
        self._bind = [f"fd://{listener.detach()}"]
        self._health_name = health.getsockname() if health is not None else None
        self._health_address = address_of(health, "http" if self._tls is None else "https") if health is not None else None
        if health is not None:
            self._bind.append(f"fd://{health.detach()}")
        self._receiver = Receiver.parse(settings.telemetry_url, settings.telemetry_token) if settings.telemetry_url else None
        # A script has its own processes, and one of these in front of them; models are shared by all cores of one process.
        # One process also where models come and go: whoever loads one is answered once it answers everywhere.
        self._fronts = settings.workers if plan.script is None and plan.repository is None else 1
        self._ledger = Ledger()
        self._grpc_port: socket.socket | None = None
        self._grpc: GrpcDoor | None = None
        models = [(model.name, model.version) for model in plan.models]
        # Twice the workers: during a reload the old and the new ones live side by side.
        self._board = Board(models, rows=2 * self._fronts + 2)
        self._guard = Guard.of(self._settings, lambda: self._board.add("hedgerow_unauthorized_total"))
        check_observers(self._settings, metadata.version("hedgerow"))
        self._empty_folder: Path | None = None
        self._telemetry: Telemetry | None = None
        self._observers: Observers | None = None
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        options: dict[str, object] = {
            "bind": self._bind,
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

    def hold_grpc(self, port: socket.socket) -> None:
        """Answer the Open Inference Protocol over gRPC on this port, too (grpc/port.py)."""
        self._grpc_port = port

    def serve(self) -> None:
        """Run until SIGTERM; leaves the process by SystemExit."""
        _log.info("listening on %s", self._address)
        self._forget_ready_file()
        self._enter_empty_folder()
        # Workers share these pages with the master as long as nobody writes to them, which a collection does to every object.
        gc.collect()
        give_back()
        gc.freeze()
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
            self._plan, self._tls = plan_serving(self._settings), tls_context(self._settings)
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
        """Nothing that lies about can be imported or opened by accident. A script works elsewhere: in its app's root."""
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
            wishes=Wishes.of(settings),
            when_ready=worker.became_ready,
            give_up=worker.give_up,
            ledger=self._ledger,
            uploads=self._empty_folder,
        )
        version = metadata.version("hedgerow")
        service = service_text(settings, version)
        clock = SystemClock()
        facts = OipFacts(scoring, self._board, version, lambda: unix_ms(clock.now()))
        title = settings.service_name or scoring.title
        observers = self._observers = Observers(settings, self._board, clock, service=title, version=version)
        observers.start()
        loop = asyncio.get_running_loop()
        vitals = Vitals(loop, self._board, scoring, lambda: door.connections)
        routes = Routes(scoring, self._board, facts=facts, max_body_bytes=settings.max_body_bytes, service=service)
        routes.tracer, routes.look_first = observers.tracer, vitals.refresh
        packing = Packing(routes.handle, routes.refuse, settings.max_body_bytes, passes=scoring.reads_raw)
        gate = None if self._guard is None else Gate(self._guard, packing.handle, routes.refuse, routes.refusal)
        if self._guard is not None:
            self._guard.watch(loop)
        handle = gate.handle if gate is not None else packing.handle
        door = Door(
            HttpLimits.of(settings, fronts=self._fronts),
            Cors(settings.cors_origins, handle).handle if settings.cors_origins else handle,
            routes.refusal if gate is None else gate.refusal,
            witness=observers.witness,
            traffic=traffic_of(self._board),
            tls=self._tls,
            lets_in=None if gate is None else gate.lets_in,
        )
        vitals.start()
        self._grpc = self._make_grpc(scoring, facts, observers, door.buffered)
        self._health_only = routes.health_only
        if self._guard is not None:
            self._health_only = Gate(self._guard, routes.health_only, routes.refuse, routes.refusal).handle
        return scoring, door

    def _make_grpc(self, scoring: Scoring, facts: OipFacts, observers: Observers, buffered: Buffered) -> GrpcDoor | None:
        if self._grpc_port is None:
            return None
        # Only after the fork, and only where it was asked for: it is large, and starts threads of its own.
        from runtime.grpc.calls import ROUTE, Calls
        from runtime.grpc.documents import MessageReader
        from runtime.grpc.door import GrpcDoor
        from runtime.grpc.face import GrpcFace
        from runtime.grpc.messages import message_classes

        settings = self._settings
        classes = message_classes()
        observers.read_bodies(ROUTE, MessageReader(classes))
        calls = Calls(observers.witness, observers.tracer, buffered)
        face = GrpcFace(scoring, self._board, facts, classes, self._guard, calls)
        pair = (settings.tls_cert, settings.tls_key) if settings.tls_cert is not None and settings.tls_key is not None else None
        return GrpcDoor(self._grpc_address, face, largest_bytes=settings.max_body_bytes, tls=pair)

    @property
    def _grpc_address(self) -> str:
        host, port = self._grpc_port.getsockname()[:2] if self._grpc_port is not None else ("", 0)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def drain_grpc(self, patience_s: float) -> None:
        """Answer the calls that are under way over gRPC, and close its port."""
        if self._grpc is not None:
            await self._grpc.drain(patience_s)

    def open_door(self, door: Door, listeners: Sequence[socket.socket], give_up: Callable[[str], None]) -> None:
        """Accept on the port for everything, and on the one for health where there is one."""
        door.open([listener for listener in listeners if listener.getsockname() != self._health_name])
        for listener in listeners:
            if listener.getsockname() == self._health_name:
                door.open_side(listener, self._health_only)
        if self._grpc is not None:
            self._grpc.open(give_up)

    def another_is_ready(self) -> bool:
        """Whether a worker already answers, so that one that still loads need not."""
        return self._board.total("hedgerow_workers_ready") > 0

    def worker_is_ready(self, worker: ScoringWorker) -> None:
        """Say where the server is, once per master."""
        if self._ready_file is not None:
            document = {"address": self._address, "pid": worker.ppid}
            if self._grpc_port is not None:
                document["grpc_address"] = self._grpc_address
            if self._health_address is not None:
                document["health_address"] = self._health_address
            try:
                atomic_write(self._ready_file, json.dumps(document).encode() + b"\n")
            except OSError as problem:
                # Requests are answered all the same: a disk that is full at a reload must not end that.
                _log.error("the ready-file %s cannot be written: %s", self._ready_file, problem)
        _log.info("ready at %s", self._address)

    def _start_telemetry(self, receiver: Receiver) -> Telemetry:
        self._telemetry = Telemetry(receiver, self._board)
        self._telemetry.start()
        return self._telemetry

    def worker_ends(self) -> None:
        """The last thing in a worker that ends in order."""
        if self._telemetry is not None:
            self._telemetry.stop()
        if self._observers is not None:
            self._observers.stop()


def traffic_of(board: Board) -> Traffic:
    """Where a worker's door counts."""
    names = ("hedgerow_received_bytes_total", "hedgerow_sent_bytes_total", "hedgerow_connections_total")
    return Traffic(*(board.slot(name) for name in names))


def serve(settings: RuntimeSettings, plan: ServingPlan) -> None:
    """Serve ``plan`` until SIGTERM. Raises PortTaken or InvalidSetting before anything is started."""
    _check_ready_file(settings.ready_file)
    health = listen(settings.host, settings.health_port) if settings.health_port is not None else None
    server = ScoringServer(settings, plan, listen(settings.host, settings.port), health)
    if settings.grpc_port is not None:
        check_installed()
        server.hold_grpc(hold_port(settings.host, settings.grpc_port))
    server.serve()


def _check_ready_file(file: Path | None) -> None:
    """Whoever waits for it would wait for ever. Raises InvalidSetting."""
    if file is not None and not os.access(file.parent, os.W_OK | os.X_OK):
        problem = "its folder is not there or cannot be written"
        raise InvalidSetting(name="ready_file", value=str(file), problem=problem, source="--ready-file")


def service_text(settings: RuntimeSettings, version: str) -> ServiceText:
    """What the service calls itself. ``version`` is ours."""
    says = (settings.server_version or f"hedgerow/{version}") if settings.show_server_version else None
    return ServiceText(settings.service_name, settings.service_version, settings.service_path_prefix, says)
