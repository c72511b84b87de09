"""Images unpacked on this machine: ``run/images/sha256-…`` is there whole or not at all. Unpacking is a process of its own."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.clock import Clock
from hedgerow.contracts.build import ProgressLine
from hedgerow.contracts.document import encode
from hedgerow.contracts.names import is_digest
from hedgerow.process import Exited, Running, Supervised
from registry.controller.event_loop import EventLoop
from registry.controller.file_work.tasks import Unpack
from registry.controller.own_python import OwnPython
from registry.controller.services.situation import UnpackedImage
from registry.workspace import Workspace

PREFIX = "unpack-"
log = logging.getLogger(__name__)


class ImageFolders:
    """``on_news`` is called when an image has been unpacked, or cannot be."""

    def __init__(
        self, workspace: Workspace, python: OwnPython, loop: EventLoop, clock: Clock, on_news: Callable[[], None]
    ) -> None:
        self._workspace, self._python, self._loop, self._clock, self._on_news = workspace, python, loop, clock, on_news
        self._folder = workspace.run / "images"
        self._problems: dict[str, tuple[str, datetime]] = {}

    def path(self, digest: str) -> Path:
        return self._folder / digest.replace(":", "-")

    def look(self) -> dict[str, UnpackedImage]:
        """Every image that is here, on its way, or could not be unpacked."""
        found = {digest: UnpackedImage("missing", problem, since) for digest, (problem, since) in self._problems.items()}
        for folder in self._workspace.processes.glob(f"{PREFIX}*"):
            found[f"sha256:{folder.name.removeprefix(PREFIX)}"] = UnpackedImage("unpacking")
        for folder in self._folder.glob("sha256-*") if self._folder.is_dir() else ():
            digest = folder.name.replace("-", ":", 1)
            if is_digest(digest):
                found[digest] = UnpackedImage("here")
        return found

    def unpack(self, digest: str) -> None:
        """Begin. Raises what starting a process raises."""
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(0o711)
        self._problems.pop(digest, None)
        process = self._process(digest)
        process.forget()
        order = self._process_folder(digest) / "task.json"
        order.parent.mkdir(mode=0o700)
        try:
            task = Unpack(blobs=str(self._workspace.blobs), digest=digest, target=str(self.path(digest)))
            atomic_write(order, encode(task))
            process.start(self._python.spec("registry.controller.file_work", [str(order)], order.parent))
        except BaseException:
            process.forget()
            raise
        exit_fd = process.exit_fd()
        if exit_fd is None:
            self._loop.after(0.0, lambda: self._ended(digest))
        else:
            self._loop.watch_end(exit_fd, lambda: self._ended(digest))

    def drop(self, digest: str) -> None:
        """Remove an image. Renamed first: a name promises a whole image."""
        doomed = self.path(digest).with_name(f"{self.path(digest).name}.part")
        shutil.rmtree(doomed, ignore_errors=True)
        self.path(digest).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self) -> None:
        """Once at the start: what an earlier controller was unpacking has ended with it."""
        for folder in self._workspace.processes.glob(f"{PREFIX}*"):
            Supervised(folder).stop(0.0)
            Supervised(folder).forget()
        for part in self._folder.glob("*.part") if self._folder.is_dir() else ():
            shutil.rmtree(part, ignore_errors=True)

    def _ended(self, digest: str) -> None:
        process = self._process(digest)
        seen = process.observe()
        if isinstance(seen, Running):
            seen = process.stop(0.0)
        if not self.path(digest).is_dir():
            reason = seen.reason if isinstance(seen, Exited) else "nobody saw its end"
            problem = _problem_in(process.tail(3)) or f"unpacking the image ended with {reason}"
            log.warning("Image %s: %s", digest, problem)
            self._problems[digest] = (problem, self._clock.now())
        process.forget()
        self._on_news()

    def _process(self, digest: str) -> Supervised:
        return Supervised(self._process_folder(digest))

    def _process_folder(self, digest: str) -> Path:
        return self._workspace.processes / f"{PREFIX}{digest.removeprefix('sha256:')}"


def _problem_in(tail: str) -> str:
    for line in reversed(tail.splitlines()):
        try:
            problem = msgspec.json.decode(line, type=ProgressLine).problem
        except msgspec.MsgspecError:
            continue
        if problem is not None:
            return f"{problem.message}. {problem.remedy}"
    return ""
