"""Loading and unloading models of a repository while requests go on: one change after another, each whole or not at all.

    load     plan (model_repository.py) and open the files on a thread; on the loop the new lanes take the old ones' place
    unload   on the loop; requests under way are answered

What is wanted is written to the ledger, so that a worker that replaces this one serves the same.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from hedgerow.errors import HedgerowError
from runtime.models.errors import ModelControlOff, NotInRepository
from runtime.models.ledger import Ledger
from runtime.models.model_lane import ModelLane
from runtime.models.model_repository import Wanted, model_names, plan_wanted, store_upload
from runtime.models.served_models import ServedModels, Standing
from runtime.serving_plan import PlannedModel, Repository

_log = logging.getLogger("hedgerow.runtime.models")

L = TypeVar("L")
T = TypeVar("T")
Done = Callable[[Exception | None], None]


@dataclass(frozen=True)
class LoadRequest:
    """``config`` is JSON; ``files`` are ``file:<version>/<name>`` to base64 text, or bytes."""

    name: str
    config: str | None = None
    files: Mapping[str, str | bytes] = field(default_factory=dict)


class ModelControl(Generic[L]):
    """Belongs to the loop's thread, but for :meth:`load_all`.

    ``open_model`` makes of a plan what ``lane_of`` makes a lane of; the first is called on a thread, the second on the loop's.
    """

    def __init__(
        self,
        repository: Repository,
        at_start: Sequence[PlannedModel],
        ledger: Ledger,
        uploads: Path | None,
        open_model: Callable[[PlannedModel], L],
        lane_of: Callable[[L], ModelLane],
    ) -> None:
        self._repository, self._ledger, self._uploads = repository, ledger, uploads
        self._open_model, self._lane_of = open_model, lane_of
        self._asked = ledger.read()
        wanted = [Wanted(planned.name) for planned in at_start] if self._asked is None else self._asked
        self._wanted = {one.name: one for one in wanted}
        self._planned = list(at_start) if self._asked is None else self._planned_again(self._asked)
        self.models = ServedModels((one.name, one.version) for one in self._planned)
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "model-control")
        self._changes: set[asyncio.Task[None]] = set()

    @property
    def offered(self) -> bool:
        """Whether callers may load and unload."""
        return self._repository.control != "none"

    # Coming up --------------------------------------------------------------------------------------------------------

    def load_all(self) -> list[L]:
        """Open everything that is wanted. Raises what the first failure is, unless callers asked for it: then it is only told."""
        if self._asked is None:
            return [self._open_model(planned) for planned in self._planned]
        found = []
        for planned in self._planned:
            try:
                found.append(self._open_model(planned))
            except HedgerowError as problem:
                _log.error("a model that was asked for cannot be loaded again: %s", problem.sentence())
        return found

    def came_up(self) -> None:
        """Everything is served that could be. What was asked of another worker meanwhile is done now."""
        for one in self.models.standings():
            if one.state == "LOADING":
                self.models.failed(one.name, one.version, "it cannot be loaded again")
        asked = self._ledger.read()
        now = self._wanted if asked is None else {one.name: one for one in asked}
        for name in self._wanted.keys() - now.keys():
            self._begin(self._unload(name), _told_to_the_log)
        for name, wanted in now.items():
            if self._wanted.get(name) != wanted:
                self._begin(self._load(wanted), _told_to_the_log)

    def _planned_again(self, asked: Iterable[Wanted]) -> list[PlannedModel]:
        planned: list[PlannedModel] = []
        for one in asked:
            try:
                planned += plan_wanted(self._repository, one)
            except HedgerowError as problem:
                _log.error("a model that was asked for is not there any more: %s", problem.sentence())
        return planned

    # What callers ask -------------------------------------------------------------------------------------------------

    def index(self, done: Callable[[list[Standing] | Exception], None]) -> None:
        """Every model of the repository, loaded or not."""

        async def look() -> None:
            try:
                names = await self._on_thread(lambda: model_names(self._repository))
            except HedgerowError as problem:
                done(problem)
                return
            known = self.models.standings()
            never = set(names) - {one.name for one in known}
            done(sorted([*known, *(Standing(name, "", "UNAVAILABLE", "not loaded") for name in never)], key=lambda one: one.name))

        self._keep(look())

    def load(self, asked: LoadRequest, done: Done) -> None:
        """Load it, or load it again as its files are now. ``done`` hears of the failure, if any."""
        if not self.offered:
            done(ModelControlOff(what="Loading models", mode="explicit"))
        elif asked.files and (self._repository.control != "uploads" or self._uploads is None):
            done(ModelControlOff(what="Sending a model's files", mode="uploads"))
        else:
            self._begin(self._load_asked(asked), done)

    def unload(self, name: str, done: Done) -> None:
        """Unload it. A model that is there and not loaded is no failure."""
        if not self.offered:
            done(ModelControlOff(what="Unloading models", mode="explicit"))
        else:
            self._begin(self._unload(name), done)

    # Changes ----------------------------------------------------------------------------------------------------------

    async def _load_asked(self, asked: LoadRequest) -> None:
        folder = None
        if asked.files and self._uploads is not None:
            uploads = self._uploads
            folder = str(await self._on_thread(lambda: store_upload(uploads, asked.name, asked.files)))
        try:
            await self._load(Wanted(asked.name, asked.config, folder))
        except BaseException:
            await self._forget_folder(folder)
            raise

    async def _load(self, wanted: Wanted) -> None:
        before = self._wanted.get(wanted.name)
        planned = await self._on_thread(lambda: plan_wanted(self._repository, wanted))
        for one in planned:
            self.models.loading(one.name, one.version)
        # Not as the thread's result: a finished future of Python's holds on to that until the garbage collector comes by.
        opened: list[L] = []
        try:
            await self._on_thread(lambda: opened.extend([self._open_model(one) for one in planned]))
            self._write({**self._wanted, wanted.name: wanted})
        except Exception as problem:
            # What nobody foresaw must not leave it loading for ever either.
            reason = problem.sentence() if isinstance(problem, HedgerowError) else "it failed inside Hedgerow; the log says how"
            for one in planned:
                self.models.failed(one.name, one.version, reason)
            raise
        self.models.put([self._lane_of(one) for one in opened])
        opened.clear()
        self.models.close_retired()
        _log.info("model %s is loaded: version %s", wanted.name, ", ".join(one.version for one in planned))
        await self._forget_folder(before.folder if before is not None else None)

    async def _unload(self, name: str) -> None:
        if not self.models.take_away(name) and name not in await self._on_thread(lambda: model_names(self._repository)):
            raise NotInRepository(model=name)
        self.models.close_retired()
        before = self._wanted.get(name)
        self._write({other: wanted for other, wanted in self._wanted.items() if other != name})
        _log.info("model %s is unloaded", name)
        await self._forget_folder(before.folder if before is not None else None)

    def _write(self, wanted: dict[str, Wanted]) -> None:
        self._ledger.write(list(wanted.values()))
        self._wanted = wanted

    async def _forget_folder(self, folder: str | None) -> None:
        if folder is not None:
            await self._on_thread(lambda: shutil.rmtree(folder, ignore_errors=True))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _begin(self, change: Coroutine[None, None, None], done: Done) -> None:
        async def one() -> None:
            async with self._turn:
                try:
                    await change
                except Exception as problem:  # noqa: BLE001 - told to whoever asked, mapped like every other
                    done(problem)
                else:
                    done(None)

        self._keep(one())

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)


def _told_to_the_log(problem: Exception | None) -> None:
    if problem is not None:
        _log.error("a model that was asked for cannot be loaded: %s", problem)
