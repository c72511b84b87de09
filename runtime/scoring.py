"""The story: what is served becomes ready, scores one request after another, and says how it is. Knows no HTTP.

    load()                    models into memory and tried out, on a thread; the script's processes started
    score_model(name, job)    one request for an ONNX model, through its lane (model_lane.py)
    score_script(call)        one request for the user's script, through its processes (scripts/pool.py)

The two contract faces (aml.py, oip.py) translate to and from this and share everything below them. Nothing here waits: the
answer to a request comes as a call. Everything but load() belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from hedgerow.contracts.model import TensorSpec
from runtime.admission import Admission
from runtime.batching import BatchLimits
from runtime.errors import AmbiguousScore, NotReady, Overloaded, UnknownModel, UnknownModelVersion
from runtime.exchange import Exchange
from runtime.metrics import Board, ModelKey
from runtime.model_lane import LaneLimits, ModelLane
from runtime.onnx_model import OnnxModel
from runtime.scripts.link import host_command
from runtime.scripts.pool import PoolLimits, ScriptCall, ScriptPool
from runtime.serving_plan import ServingPlan
from runtime.settings import RuntimeSettings
from runtime.telemetry import Recorder
from runtime.warm_up import Tried, try_out

_log = logging.getLogger("hedgerow.runtime")

State = Literal["loading", "ready", "stuck", "draining"]
_NO_BATCHES = BatchLimits(requests=1)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may happen at once in one worker, and for how long. ``max_concurrent`` None: as much as there are threads for."""

    max_concurrent: int | None
    max_queue: int
    queue_wait_s: float
    timeout_s: float
    processes: int
    standbys: int

    @classmethod
    def of(cls, settings: RuntimeSettings, *, fronts: int) -> Limits:
        """The container's limits, shared out between its ``fronts``."""
        return cls(
            max_concurrent=-(-settings.max_concurrent // fronts) if settings.max_concurrent else None,
            max_queue=-(-settings.max_queue // fronts),
            queue_wait_s=settings.queue_wait_ms / 1000,
            timeout_s=settings.timeout_ms / 1000,
            processes=settings.workers,
            standbys=settings.standbys,
        )


@dataclass(frozen=True)
class Loaded:
    """A model in memory and what trying it out showed."""

    model: OnnxModel
    tried: Tried


class Scoring:
    """Everything that one worker serves."""

    def __init__(
        self,
        plan: ServingPlan,
        limits: Limits,
        board: Board,
        recorder: Recorder,
        *,
        threads: int,
        when_ready: Callable[[], None],
        give_up: Callable[[str], None],
    ) -> None:
        self._plan, self._limits, self._board, self.recorder = plan, limits, board, recorder
        self._threads = threads
        self._when_ready, self._give_up = when_ready, give_up
        self._loaded = self._draining = False
        self._lanes: dict[ModelKey, ModelLane] = {}
        self._pool: ScriptPool | None = None
        self._early: deque[tuple[float, Exchange, Callable[[Exchange], None], Callable[[Exchange, Exception], None]]] = deque()
        self._admission = Admission(limits.max_concurrent, limits.max_queue, self._turn)
        self._in_flight = board.slot("hedgerow_in_flight")
        self._ready_gauge = board.slot("hedgerow_workers_ready")
        self._ticking = False
        self._loop = asyncio.get_running_loop()

    # How it is --------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        if any(lane.stuck for lane in self._lanes.values()):
            return "stuck"
        if self._draining:
            return "draining"
        if not self._loaded:
            return "loading"
        # Between the end of one script process and the next one's start nothing scores.
        return "ready" if self._pool is None or self._pool.ready_workers else "loading"

    @property
    def loaded(self) -> bool:
        return self._loaded

    @property
    def has_script(self) -> bool:
        """Whether a script answers /score; known before it is loaded."""
        return self._plan.script is not None

    @property
    def busy(self) -> bool:
        return bool(self._early) or self._admission.running > 0 or self._admission.waiting > 0

    def drain(self) -> None:
        """No longer ready for new requests; those that come all the same are still answered."""
        self._draining = True

    # Becoming ready ---------------------------------------------------------------------------------------------------

    def load(self) -> list[Loaded]:
        """Load the plan's models; on a thread, since it may take long. Raises the start errors of runtime.errors."""
        found = []
        for planned in self._plan.models:
            model = OnnxModel(planned.name, planned.file, version=planned.version, threads=self._threads)
            found.append(Loaded(model, try_out(model, planned.batchable)))
        return found

    def install(self, loaded: Sequence[Loaded]) -> None:
        """Take what :meth:`load` gave and start the script's processes; ready follows, or ``give_up`` with a sentence."""
        for one in loaded:
            self._lanes[one.model.name, one.model.version] = self._lane(one)
        if self._plan.script is None:
            self._became_ready()
            return
        script = self._plan.script
        limits = PoolLimits(
            workers=self._limits.processes,
            standbys=self._limits.standbys,
            queue_wait_s=self._limits.queue_wait_s,
            timeout_s=self._limits.timeout_s,
        )
        self._pool = ScriptPool(
            host_command(str(script.file), str(script.source), self._limits.max_concurrent or 8),
            limits,
            self._admission,
            boot_failed=self._give_up,
            changed=self._processes_changed,
        )
        self._pool.start()

    async def close(self) -> None:
        """End the script's processes."""
        if self._pool is not None:
            await self._pool.close()

    def _lane(self, loaded: Loaded) -> ModelLane:
        limits = self._limits
        batch = BatchLimits() if loaded.tried.merges else _NO_BATCHES
        threads = loaded.tried.threads
        if limits.max_concurrent is not None and not loaded.tried.merges:
            # Whoever says how many requests a replica takes at once means it, whatever would be quicker.
            threads = limits.max_concurrent
        lane_limits = LaneLimits(limits.queue_wait_s, limits.timeout_s, batch=batch)
        counters = self._board.model((loaded.model.name, loaded.model.version))
        return ModelLane(
            self._loop,
            loaded.model,
            lane_limits,
            self._admission,
            counters,
            threads=threads,
            inline_rows=loaded.tried.inline_rows,
        )

    def _processes_changed(self) -> None:
        if self._pool is None:
            return
        if not self._loaded and self._pool.ready_workers:
            self._became_ready()
        self._ready_gauge.set(self._pool.ready_workers)

    def _became_ready(self) -> None:
        self._loaded = True
        self._ready_gauge.set(1)
        self._when_ready()
        early, self._early = self._early, deque()
        for _, exchange, again, _ in early:
            again(exchange)

    # What is served ---------------------------------------------------------------------------------------------------

    def model(self, name: str, version: str | None = None) -> OnnxModel:
        """A served model; its newest version when none is named. Raises UnknownModel, UnknownModelVersion or NotReady."""
        return self.lane(name, version).model

    def lane(self, name: str, version: str | None = None) -> ModelLane:
        """The lane of a served model. Raises UnknownModel, UnknownModelVersion or NotReady."""
        lane = self._lanes.get((name, version)) if version is not None else None
        if lane is not None:
            return lane
        self.check_known(name, version)
        if not self._loaded:
            raise NotReady(state="loading")
        return self._lanes[name, version or max(self.versions(name), key=int)]

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are served, loaded yet or not."""
        return [planned.version for planned in self._plan.models if planned.name == name]

    def check_known(self, name: str, version: str | None) -> None:
        """Raises UnknownModel or UnknownModelVersion."""
        known = self.versions(name)
        if not known:
            raise UnknownModel(model=name, known=", ".join(planned.name for planned in self._plan.models) or "none")
        if version is not None and version not in known:
            raise UnknownModelVersion(version=version, model=name, known=", ".join(known))

    def only_model(self) -> ModelLane:
        """The one model that /score means when there is no script. Raises AmbiguousScore or NotReady."""
        names = sorted({planned.name for planned in self._plan.models})
        if len(names) != 1:
            raise AmbiguousScore(known=", ".join(names))
        return self.lane(names[0])

    @property
    def title(self) -> str:
        """What this server is called in its own documents."""
        names = sorted({planned.name for planned in self._plan.models})
        return names[0] if len(names) == 1 else "ML service"

    def score_inputs(self) -> Sequence[TensorSpec]:
        """The inputs that /score takes; none where a script decides or several models are served."""
        if self.has_script or len({planned.name for planned in self._plan.models}) != 1:
            return ()
        return self.only_model().model.inputs

    def script_schemas(self) -> Mapping[str, object]:
        """What the script declares about its input and output; empty without declarations."""
        facts = self._pool.facts if self._pool is not None else None
        return facts.swagger if facts is not None else {}

    @property
    def script_mode(self) -> str:
        """string, schema or raw; string before it is known."""
        facts = self._pool.facts if self._pool is not None else None
        return facts.mode if facts is not None else "string"

    # Scoring ----------------------------------------------------------------------------------------------------------

    def wait_until_loaded(
        self, exchange: Exchange, again: Callable[[Exchange], None], refuse: Callable[[Exchange, Exception], None]
    ) -> None:
        """A worker that replaces another accepts at once; its first requests wait for the model instead of failing."""
        if len(self._early) >= self._limits.max_queue:
            refuse(exchange, Overloaded(waited_ms=0))
            return
        self._early.append((perf_counter(), exchange, again, refuse))
        self._keep_ticking()

    def begun(self) -> None:
        """A request is being scored from now on."""
        self._in_flight.add()
        self._keep_ticking()

    def ended(self) -> None:
        self._in_flight.add(-1)

    def score_script(self, call: ScriptCall) -> None:
        """Raises Overloaded."""
        if self._pool is None:
            raise NotReady(state="loading")
        self._pool.submit(call)

    # Time -------------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        for lane in self._lanes.values():
            if lane.pending:
                lane.dispatch()
        if self._pool is not None and self._pool.pending:
            self._pool.dispatch()

    def _keep_ticking(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(self._tick_s, self._tick)

    @property
    def _tick_s(self) -> float:
        return min(max(min(self._limits.queue_wait_s, self._limits.timeout_s) / 10, 0.001), 0.02)

    def _tick(self) -> None:
        """Looks at every deadline; only while something is under way."""
        self._ticking = False
        now = perf_counter()
        while self._early and now - self._early[0][0] >= self._limits.queue_wait_s:
            _, exchange, _, refuse = self._early.popleft()
            refuse(exchange, NotReady(state="loading"))
        for lane in self._lanes.values():
            if lane.busy:
                lane.tick(now)
        if self._pool is not None and self._pool.busy:
            self._pool.tick(now)
        if self.busy:
            self._keep_ticking()
