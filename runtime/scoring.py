"""The story: what is served becomes ready, scores one request after another, and says how it is. Knows no HTTP.

    load()                    models into memory and tried out, on a thread; the script's processes started
    lane(name).submit(job)    one request for an ONNX model, through its lane (models/model_lane.py)
    score_script(call)        one request for the user's script, through its processes (scripts/pool.py)

The two contract faces (aml/, oip/) translate to and from this and share everything below them. Nothing here waits: the answer to
a request comes as a call. Everything but load() belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

from runtime.admission import Admission
from runtime.cores import core_count
from runtime.errors import AmbiguousScore, NotReady, Overloaded
from runtime.exchange import Exchange
from runtime.models.batching import BatchLimits
from runtime.models.errors import ModelControlOff
from runtime.models.ledger import Ledger
from runtime.models.loaded_model import LoadedModel
from runtime.models.model_control import Done, LoadRequest, ModelControl
from runtime.models.model_lane import LaneLimits, ModelLane
from runtime.models.served_models import ServedModels
from runtime.models.warm_up import Tried, Wishes, load_and_try
from runtime.observing.metrics import Board, ModelCounters, ModelKey
from runtime.observing.telemetry import Recorder
from runtime.observing.vitals import Processes
from runtime.scripts.link import host_command
from runtime.scripts.pool import PoolLimits, ScriptCall, ScriptPool
from runtime.serving_plan import PlannedModel, ServingPlan
from runtime.settings import RuntimeSettings

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
    batch: BatchLimits = BatchLimits()  # noqa: RUF009 - it is frozen itself
    script_memory_mb: int = 0

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
            batch=BatchLimits(rows=settings.max_batch_rows, size_bytes=settings.max_batch_bytes),
            script_memory_mb=settings.script_memory_mb,
        )


@dataclass(frozen=True)
class Loaded:
    """A model in memory and what trying it out showed."""

    model: LoadedModel
    tried: Tried
    planned: PlannedModel


class Scoring:
    """Everything that one worker serves."""

    def __init__(
        self,
        plan: ServingPlan,
        limits: Limits,
        board: Board,
        recorder: Recorder,
        *,
        wishes: Wishes,
        when_ready: Callable[[], None],
        give_up: Callable[[str], None],
        ledger: Ledger | None = None,
        uploads: Path | None = None,
    ) -> None:
        self._plan, self._limits, self._board, self.recorder = plan, limits, board, recorder
        self._wishes = wishes
        self._when_ready, self._give_up = when_ready, give_up
        self._loaded = self._draining = False
        self.control: ModelControl[Loaded] | None = None
        if plan.repository is not None:
            at_start, ledger = plan.models, ledger or Ledger()
            self.control = ModelControl(plan.repository, at_start, ledger, uploads, self._open, self._lane)
        self.models = self.control.models if self.control is not None else ServedModels(_keys(plan.models))
        self._pool: ScriptPool | None = None
        self._early: deque[tuple[float, Exchange, Callable[[Exchange], None], Callable[[Exchange, Exception], None]]] = deque()
        self._ticking = False
        self._admission = Admission(limits.max_concurrent, limits.max_queue, self._turn, self._keep_ticking)
        self._ready_gauge = board.slot("hedgerow_workers_ready")
        # Dashboards that are made for models show a script as one.
        self.script_key: ModelKey | None = (plan.script.file.stem, "1") if plan.script is not None else None
        self.script_counters = board.model(self.script_key) if self.script_key is not None else None
        self._loop = asyncio.get_running_loop()

    # How it is --------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        if any(lane.stuck for lane in self.models.all_lanes()):
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

    @property
    def queue_depth(self) -> int:
        """Requests that wait: for their turn, or for the models to be loaded."""
        return self._admission.waiting + len(self._early)

    @property
    def in_flight(self) -> int:
        """Requests that wait or are being scored."""
        return self._admission.running + self.queue_depth

    @property
    def processes(self) -> Processes:
        """The script's processes; none without a script."""
        return self._pool.processes if self._pool is not None else Processes()

    def pending(self) -> Iterable[tuple[ModelCounters, int]]:
        """How many requests wait for each model."""
        return [(lane.counters, lane.pending) for lane in self.models.ready()]

    def drain(self) -> None:
        """No longer ready for new requests; those that come all the same are still answered."""
        self._draining = True

    # Becoming ready ---------------------------------------------------------------------------------------------------

    def load(self) -> list[Loaded]:
        """Load the plan's models; on a thread, since it may take long. Raises the start errors of runtime.errors."""
        if self.control is not None:
            return self.control.load_all()
        return [self._open(planned) for planned in self._plan.models]

    def _open(self, planned: PlannedModel) -> Loaded:
        model, tried = load_and_try(planned, self._wishes)
        return Loaded(model, tried, planned)

    def install(self, loaded: Sequence[Loaded]) -> None:
        """Take what :meth:`load` gave and start the script's processes; ready follows, or ``give_up`` with a sentence."""
        self.models.put([self._lane(one) for one in loaded])
        if self.control is not None:
            self.control.came_up()
        if self._plan.script is None:
            self._became_ready()
            return
        script = self._plan.script
        limits = PoolLimits(
            workers=self._limits.processes,
            standbys=self._limits.standbys,
            queue_wait_s=self._limits.queue_wait_s,
            timeout_s=self._limits.timeout_s,
            memory_bytes=self._limits.script_memory_mb * 2**20,
            spare_cores=core_count() - self._limits.processes,
        )
        self._pool = ScriptPool(
            host_command(script.place, self._limits.max_concurrent or 8),
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
        planned = loaded.planned
        merges = loaded.tried.merges and planned.most_rows != 0
        most_rows = min(planned.most_rows or limits.batch.rows, limits.batch.rows)
        batch = replace(limits.batch, rows=most_rows) if merges else _NO_BATCHES
        threads = planned.instances or loaded.tried.threads
        if limits.max_concurrent is not None and not merges:
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
        for since, exchange, again, refuse in early:
            if exchange.gone:
                refuse(exchange, Overloaded(waited_ms=round((perf_counter() - since) * 1000)))
            else:
                again(exchange)

    # What is served ---------------------------------------------------------------------------------------------------

    def model(self, name: str, version: str | None = None) -> LoadedModel:
        """A served model; its newest version when none is named. Raises UnknownModel, UnknownModelVersion or NotReady."""
        return self.lane(name, version).model

    def lane(self, name: str, version: str | None = None) -> ModelLane:
        """The lane of a served model. Raises UnknownModel, UnknownModelVersion or NotReady."""
        lane = self.models.find(name, version)
        if lane is not None:
            return lane
        self.models.check_known(name, version)
        raise NotReady(state="loading")

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are served, loaded yet or not."""
        return self.models.versions(name)

    def check_known(self, name: str, version: str | None) -> None:
        """Raises UnknownModel or UnknownModelVersion."""
        self.models.check_known(name, version)

    def only_model(self) -> ModelLane:
        """The one model that /score means when there is no script. Raises AmbiguousScore or NotReady."""
        lane = self.models.only()
        if lane is not None:
            return lane
        names = sorted(self.models.names())
        if len(names) != 1:
            raise AmbiguousScore(known=", ".join(names) or "(none is loaded)")
        return self.lane(names[0])

    @property
    def title(self) -> str:
        """What this server is called in its own documents."""
        names = self.models.names()
        return names[0] if len(names) == 1 else "ML service"

    def score_model(self) -> LoadedModel | None:
        """The model behind /score; None where a script decides or several models are served. Raises NotReady."""
        if self.has_script or len(self.models.names()) != 1:
            return None
        return self.only_model().model

    def script_declares(self) -> str:
        """What the script says of itself for swagger, as JSON text. Raises NotReady while it is not known."""
        if not self.has_script:
            return "{}"
        if self._pool is None or self._pool.facts is None:
            raise NotReady(state="loading")
        return self._pool.facts.swagger

    @property
    def script_mode(self) -> str:
        """string, schema or raw; string before it is known."""
        facts = self._pool.facts if self._pool is not None else None
        return facts.mode if facts is not None else "string"

    def loads(self, asked: LoadRequest, done: Done) -> None:
        """Load a model of the repository; ``done`` hears of the failure, if any."""
        if self.control is None:
            done(ModelControlOff(what="Loading models", mode="explicit"))
        else:
            self.control.load(asked, done)

    def unloads(self, name: str, done: Done) -> None:
        """Unload one."""
        if self.control is None:
            done(ModelControlOff(what="Unloading models", mode="explicit"))
        else:
            self.control.unload(name, done)

    def reads_raw(self, exchange: Exchange) -> bool:
        """Whether a script gets this request as it came, headers and all."""
        return exchange.request.path == "/score" and self.has_script and self.script_mode == "raw"

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

    def score_script(self, call: ScriptCall) -> None:
        """Raises Overloaded."""
        if self._pool is None:
            raise NotReady(state="loading")
        self._pool.submit(call)

    # Time -------------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        waiting = [lane for lane in self.models.all_lanes() if lane.pending]
        if len(waiting) > 1:
            # Who waited longest: a model with an endless queue must not take every turn.
            waiting.sort(key=_oldest)
        for lane in waiting:
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
        for lane in self.models.all_lanes():
            if lane.busy:
                lane.tick(now)
        self.models.close_retired()
        if self._pool is not None and self._pool.busy:
            self._pool.tick(now)
        if self.busy:
            self._keep_ticking()


def _oldest(lane: ModelLane) -> float:
    return lane.oldest


def _keys(models: Iterable[PlannedModel]) -> list[ModelKey]:
    return [(one.name, one.version) for one in models]
