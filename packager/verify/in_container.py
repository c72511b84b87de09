"""An image in a container of the engine: loaded, started, tested, and removed again with its image.

What a killed packager left behind has its owner in a label; the next test removes what belongs to nobody that lives.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from hedgerow.clock import boot_id
from hedgerow.contracts.proof import ProofReport
from hedgerow.process.identity import is_alive, start_time_ticks
from packager.engine.port import Bench, LeftContainer, TriedContainer, TryOut
from packager.settings import IMAGE_ROOT, SCORING_PORT
from packager.verify.entry_point import READABLE_LOG
from packager.verify.prover import read_reports

log = logging.getLogger(__name__)
LABEL = "hedgerow.verify"
_LABEL_IMAGE = "hedgerow.verify.image"
_LABEL_OWNER = "hedgerow.verify.owner"
# Of a packager on another machine nobody here can say whether it lives; no test takes this long.
_FOREIGN_AGE = timedelta(hours=2)
_SHARE_OF_MEMORY = 0.8
_PROVE = ("python3", "-P", "-m", "runtime.prove", "--image", f"/{IMAGE_ROOT}")


@dataclass(frozen=True)
class ContainerImage:
    """See :class:`packager.verify.started.StartedImage`. ``proves``: it serves ONNX models itself."""

    container: TriedContainer
    proves: bool

    def address(self) -> tuple[str, int] | None:
        return self.container.address()

    def ended(self) -> str | None:
        return self.container.ended()

    def log_tail(self) -> str:
        return self.container.log_tail()

    def peak_memory_bytes(self) -> int | None:
        return self.container.peak_memory_bytes()

    def prove(self) -> list[ProofReport]:
        if not self.proves:
            return []
        code, said = self.container.run(_PROVE)
        return read_reports(said, f"exit code {code}")

    def stop(self) -> None:
        self.container.remove()


@contextlib.contextmanager
def in_container(bench: Bench, archive: Iterable[bytes], *, proves: bool, now: datetime) -> Iterator[ContainerImage]:
    """The image of a docker-archive tar, started. Raises EngineFailed."""
    sweep(bench, Owner.here(), now)
    loaded = bench.load(archive)
    ours = "" if loaded.was_there else loaded.image_id
    labels = {LABEL: "1", _LABEL_IMAGE: ours, _LABEL_OWNER: Owner.here().text}
    try:
        wanted = TryOut(SCORING_PORT, labels, READABLE_LOG, int(bench.memory_bytes() * _SHARE_OF_MEMORY))
        container = bench.start(loaded.image_id, wanted)
        try:
            yield ContainerImage(container, proves)
        finally:
            container.remove()
    finally:
        if ours:
            bench.remove_image(ours)


@dataclass(frozen=True)
class Owner:
    """A packager process, for whoever finds its container. ``view`` is the boot and the pid namespace that ``pid`` counts in."""

    view: str
    pid: int
    ticks: int

    @classmethod
    def here(cls) -> Owner:
        pid = os.getpid()
        return cls(f"{boot_id()} {Path('/proc/self/ns/pid').readlink()}", pid, start_time_ticks(pid) or 0)

    @property
    def text(self) -> str:
        return f"{self.view} {self.pid} {self.ticks}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        match text.split():
            case [boot, namespace, pid, ticks] if pid.isdecimal() and ticks.isdecimal():
                return cls(f"{boot} {namespace}", int(pid), int(ticks))
            case _:
                return None


def sweep(bench: Bench, here: Owner, now: datetime) -> None:
    """Remove containers of tests whose packager is gone, and the images that those had loaded."""
    for left in bench.left_behind(LABEL):
        if is_abandoned(left, here, now):
            log.warning("removing a container that a test left behind: %s", left.container_id[:12])
            bench.remove_container(left.container_id)
            if image := left.labels.get(_LABEL_IMAGE):
                bench.remove_image(image)


def is_abandoned(left: LeftContainer, here: Owner, now: datetime) -> bool:
    """Whether nobody will remove it any more."""
    owner = Owner.parse(_text(left.labels))
    if owner is not None and owner.view == here.view:
        return not is_alive(owner.pid, owner.ticks)
    return now - left.created_at > _FOREIGN_AGE


def _text(labels: Mapping[str, str]) -> str:
    return labels.get(_LABEL_OWNER, "")
