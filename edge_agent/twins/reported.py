"""What modules report of themselves, on the disk before anybody is told that it is.

    module ──report──▶ merged in memory ──▶ one thread writes MODULE.json ──▶ answered, told to the link and to ``on_reported``

INVARIANTS. A report is answered when the file that holds it is on the disk, or refused whole. Reports of a module that come
while its file is written go into the next one together, so a module that reports all the time costs one write at a time. A
version counts the files with other properties: a report that changes nothing is answered and written nowhere. When a write
fails, all that was merged upon it fails with it. Nothing is kept of a module that the desired state does not have.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import TwinRefused, TwinUnwritable
from edge_agent.observing.metrics import Metrics
from edge_agent.twins.held import Held, following, held, read_properties
from hedgerow.atomic_write import atomic_write
from hedgerow.clock import Clock
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.merge_patch import json_text, patch_between
from hedgerow.errors import HedgerowError

# Of all modules together.
TOTAL_BYTES_MAX = 4 * 1024 * 1024
_ENDING = ".json"
log = logging.getLogger(__name__)

# Module, the JSON text of a merge patch from what was there before, version.
OnReported = Callable[[str, str, int], None]


class _File(msgspec.Struct, frozen=True):
    """``twins/MODULE.json``. ``epoch`` is random, made with the file: a file that was lost begins another."""

    epoch: str
    version: int
    reported: dict[str, Any]


@dataclass
class _Pending:
    """The properties as they will be, and who waits for that. ``again``: write them under a new epoch."""

    after: dict[str, Any]
    waiting: list[Future[Held]] = field(default_factory=list)
    again: bool = False


class ReportedTwins:
    """Thread-safe. ``on_change`` hears that something is new on the disk, ``on_reported`` what; both in the writer's thread."""

    def __init__(self, folder: Path, clock: Clock, metrics: Metrics, *, total_bytes_max: int = TOTAL_BYTES_MAX) -> None:
        self._folder = folder
        self._total_bytes_max = total_bytes_max
        self._clock = clock
        self._metrics = metrics
        self.on_change: Callable[[], None] = _nobody_listens
        self.on_reported: OnReported = _nobody_is_told
        self.damaged: list[str] = []
        self._changed = threading.Condition()
        self._held: dict[str, Held] = {}
        self._only: frozenset[str] = frozenset()
        self._pending: dict[str, _Pending] = {}
        self._writing: dict[str, _Pending] = {}
        self._closed = False
        self._thread: threading.Thread | None = None

    def load(self) -> None:
        """Read what is on the disk; a damaged file is moved aside, and its module's next report begins another epoch."""
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.iterdir()):
            if path.name.endswith(".tmp"):
                path.unlink(missing_ok=True)  # of a write that was cut off
            elif path.name.endswith(_ENDING):
                self._load(path)

    def held(self) -> Mapping[str, Held]:
        """What is on the disk, by module."""
        with self._changed:
            return dict(self._held)

    def report(self, module: str, payload: bytes, *, whole: bool) -> Future[Held]:
        """A module reports: a merge patch, or all of its properties. Done when it is on the disk, or TwinUnwritable.

        Raises TwinRefused for what can never be taken.
        """
        said = read_properties(module, payload)
        done: Future[Held] = Future()
        with self._changed:
            if self._closed:
                done.set_exception(TwinUnwritable(module=module, problem="the agent ends"))
                return done
            if module not in self._only:
                raise TwinRefused(module=module, problem="the device's desired state has no such module")
            newest = self._pending.get(module) or self._writing.get(module)
            before = newest.after if newest is not None else self._properties(module)
            after = following(module, before, said, whole=whole)
            self._check_total(module, after)
            self._pending.setdefault(module, _Pending(after)).after = after
            self._pending[module].waiting.append(done)
            self._begin_writing()
        return done

    def begin_epoch(self, module: str, epoch: str) -> None:
        """The hub has other properties under this module's versions of ``epoch``: from now on they count in another."""
        with self._changed:
            found = self._held.get(module)
            if found is None or found.epoch != epoch or self._closed:
                return
            newest = self._pending.get(module) or self._writing.get(module)
            after = newest.after if newest is not None else found.properties
            self._pending.setdefault(module, _Pending(after)).again = True
            self._begin_writing()

    def keep_only(self, modules: Collection[str]) -> None:
        """These are the modules of the desired state; what others reported goes."""
        with self._changed:
            self._only = frozenset(modules)
            gone = [module for module in self._held if module not in self._only]
            for module in gone:
                del self._held[module]
        for module in gone:
            self._remove(module)
        if gone:
            self.on_change()

    def close(self) -> None:
        """Write what waits, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _properties(self, module: str) -> dict[str, Any]:
        found = self._held.get(module)
        return {} if found is None else found.properties

    def _check_total(self, module: str, after: Mapping[str, object]) -> None:
        others = sum(len(one.text) for name, one in self._held.items() if name != module)
        total = others + len(json_text(after))
        if total > self._total_bytes_max:
            problem = f"all modules together would report {total} bytes, the limit is {self._total_bytes_max}"
            raise TwinRefused(module=module, problem=problem)

    def _begin_writing(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="twins", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if not self._pending:
                    return
                module = next(iter(self._pending))
                pending = self._writing[module] = self._pending.pop(module)
                before = self._held.get(module)
            try:
                self._settle(module, before, pending)
            except Exception:
                # Whoever listens must not end the writing for all modules.
                log.exception("a twin of module %s was not told on", module)

    def _settle(self, module: str, before: Held | None, pending: _Pending) -> None:
        try:
            after, patch = self._write(module, before, pending)
        except OSError as problem:
            self._fail(module, pending, problem)
            return
        with self._changed:
            del self._writing[module]
            if module in self._only:
                self._held[module] = after
            else:
                self._remove(module)
        for done in pending.waiting:
            self._metrics.count("edgehub_reported_properties_total", id=module)
            done.set_result(after)
        if after is not before:
            self.on_change()
        if patch:
            self.on_reported(module, json_text(patch).decode(), after.version)

    def _write(self, module: str, before: Held | None, pending: _Pending) -> tuple[Held, dict[str, object]]:
        """What is on the disk then, and the patch that was made to what was there. Raises OSError."""
        epoch = secrets.token_hex(8) if before is None or pending.again else before.epoch
        patch = patch_between({} if before is None else before.properties, pending.after)
        if before is not None and not patch and not pending.again:
            return before, {}
        count = 1 if patch or before is None else 0
        after = held(epoch, (0 if before is None else before.version) + count, pending.after)
        began_s = self._clock.monotonic_s()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        atomic_write(self._path(module), encode(_File(epoch, after.version, pending.after)), mode=0o600)
        took_s = self._clock.monotonic_s() - began_s
        self._metrics.observe("edgehub_reported_properties_update_duration_seconds", took_s, id=module)
        return after, patch

    def _fail(self, module: str, pending: _Pending, problem: OSError) -> None:
        with self._changed:
            del self._writing[module]
            upon_it = self._pending.pop(module, None)
        refused = TwinUnwritable(module=module, problem=problem.strerror or str(problem))
        for done in [*pending.waiting, *(upon_it.waiting if upon_it else [])]:
            done.set_exception(refused)

    def _load(self, path: Path) -> None:
        try:
            found = decode(path.read_bytes(), _File)
        except (HedgerowError, OSError) as problem:
            self.damaged.append(path.name)
            log.error("%s is damaged and moved aside: %s", path, problem)
            with contextlib.suppress(OSError):
                path.replace(path.with_name(f"{path.name}.damaged"))
            return
        self._held[path.name.removesuffix(_ENDING)] = held(found.epoch, found.version, found.reported)

    def _remove(self, module: str) -> None:
        try:
            self._path(module).unlink(missing_ok=True)
        except OSError as problem:
            log.warning("the reported properties of module %s cannot be removed: %s", module, problem)

    def _path(self, module: str) -> Path:
        # A module's name is one of the desired state: letters, digits, and single signs between them.
        return self._folder / f"{module}{_ENDING}"


def _nobody_listens() -> None:
    """Until somebody wants to know."""


def _nobody_is_told(_module: str, _patch: str, _version: int) -> None:
    """Until somebody wants to know."""
