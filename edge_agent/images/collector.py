"""Gives disk space back, in a thread of its own: after a start, after changes, now and then, and at once when the disk fills.

``garbage.py`` decides what goes; here it is found, taken away and told. Nothing waits for it, and what fails (a disk that is
read-only, a Docker engine that does not answer) is tried again with the next round.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from edge_agent.images.garbage import Leftover, Rules, StoredImage, images_to_remove, leftovers_to_remove
from edge_agent.images.image_store import ImageStore, leftover
from hedgerow.clock import Clock
from hedgerow.errors import HedgerowError

# After a start modules come first; after a change its images may be pulled and its old modules stopped.
SETTLE_S = 20.0
ROUND_S = 3600.0
# How often the free space is looked at: one system call.
LOOK_S = 15.0
END_S = 5.0
log = logging.getLogger(__name__)


class Shelf(Protocol):
    """Where images of one kind are."""

    def stored(self) -> list[StoredImage]: ...

    def touch(self, digests: Collection[str], now: datetime) -> None: ...

    def remove(self, digest: str) -> bool: ...


@dataclass(frozen=True)
class Quotas:
    """Bytes for images, how long an unused one stays, and how much of the disk the agent keeps free."""

    image_bytes: int
    unused_for: timedelta
    free_bytes_min: int


class Collector:
    """``in_use`` gives the images that modules need or may need again, None while that is not known: then nothing goes.
    ``modules`` are the names of modules that are wanted; ``on_freed`` hears the bytes that were given back, and words for it.
    """

    def __init__(
        self,
        folder: Path,
        store: ImageStore,
        others: Sequence[Shelf],
        quotas: Quotas,
        clock: Clock,
        *,
        in_use: Callable[[], Collection[str] | None],
        modules: Callable[[], Collection[str]],
        on_freed: Callable[[int, str], None],
    ) -> None:
        self._folder = folder
        self._store = store
        self._shelves: Sequence[Shelf] = [store, *others]
        self._quotas = quotas
        self._clock = clock
        self._in_use = in_use
        self._modules = modules
        self._on_freed = on_freed
        self._changed = threading.Condition()
        self._due_s = clock.monotonic_s() + SETTLE_S
        self._asked = False
        self._stopped = False
        self._in_vain = -1
        self._thread = threading.Thread(target=self._run, name="garbage", daemon=True)

    def start(self) -> None:
        """Begin, a little later."""
        self._thread.start()

    def close(self) -> None:
        """End. An engine that hangs in a removal is not waited for: the next agent sees the same garbage."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(END_S)

    def hurry(self) -> None:
        """What is needed has changed: look when things have settled."""
        with self._changed:
            self._due_s = min(self._due_s, self._clock.monotonic_s() + SETTLE_S)

    def look(self) -> None:
        """The disk may be full: a pull has failed."""
        with self._changed:
            self._asked = True
            self._changed.notify_all()

    def collect(self) -> int:
        """One round; returns the bytes that were given back."""
        now, pressed = self._clock.now(), self._pressed()
        in_use = self._in_use()
        if in_use is None:
            return 0
        freed, words = 0, list[str]()
        for shelf, image in self._unneeded(in_use, pressed=pressed, now=now):
            # Asked again each time: what was unused a moment ago may be wanted by now.
            if not self._needed(image.digest) and self._removed(shelf, image):
                freed += image.size_bytes
                words.append(f"{image.kind} image {image.digest[:19]}")
        for found in leftovers_to_remove(self._leftovers(in_use), pressed=pressed, now=now):
            if _deleted(found.path):
                freed += found.size_bytes
                words.append(found.path.name[:40])
        if words:
            shown = ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
            why = "the disk is nearly full" if pressed else "nobody needs them"
            self._on_freed(freed, f"{freed} bytes given back, {why}: {shown}")
        return freed

    def _needed(self, digest: str) -> bool:
        in_use = self._in_use()
        return in_use is None or digest in in_use

    def _unneeded(self, in_use: Collection[str], *, pressed: bool, now: datetime) -> list[tuple[Shelf, StoredImage]]:
        places: dict[str, Shelf] = {}
        images: list[StoredImage] = []
        for shelf in self._shelves:
            try:
                shelf.touch(in_use, now)
            except OSError as problem:
                log.debug("cannot note what is in use: %s", problem)
            for image in shelf.stored():
                places[image.digest] = shelf
                images.append(image)
        rules = Rules(self._quotas.image_bytes, self._quotas.unused_for, pressed)
        return [(places[image.digest], image) for image in images_to_remove(images, in_use, rules, now)]

    def _removed(self, shelf: Shelf, image: StoredImage) -> bool:
        try:
            return shelf.remove(image.digest)
        except (HedgerowError, OSError) as problem:
            log.warning("image %s stays for now: %s", image.digest, problem)
            return False

    def _leftovers(self, in_use: Collection[str]) -> Iterator[Leftover]:
        yield from self._store.leftovers(in_use)
        modules = self._folder / "modules"
        for pattern in ("*.damaged", ".*.tmp", "modules/*/.*.tmp", "modules/*/process/.*.tmp"):
            for path in self._folder.glob(pattern):
                yield leftover(path, "damaged" if path.name.endswith(".damaged") else "partial")
        wanted = self._modules()
        for path in modules.iterdir() if modules.is_dir() else []:
            # Made for a start that never took place; one that did leaves `process/`, and the planner removes it.
            if path.name not in wanted and not (path / "process").exists():
                yield leftover(path, "partial")

    def _pressed(self) -> bool:
        return shutil.disk_usage(self._folder).free < self._quotas.free_bytes_min

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._asked, timeout=LOOK_S)
                self._asked = False
                if self._stopped:
                    return
                now_s = self._clock.monotonic_s()
                due = now_s >= self._due_s
                if due:
                    self._due_s = now_s + ROUND_S
            try:
                if due or self._may_help():
                    self.collect()
            except Exception:
                log.exception("clearing up failed; the next round follows")

    def _may_help(self) -> bool:
        """A full disk is no reason to look at everything every few seconds when that gave nothing the last time."""
        if not self._pressed():
            self._in_vain = -1
            return False
        free = shutil.disk_usage(self._folder).free >> 20
        if free == self._in_vain:
            return False
        self._in_vain = free
        return True


def _deleted(path: Path) -> bool:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as problem:
        log.warning("%s stays for now: %s", path, problem)
        return False
    return True
