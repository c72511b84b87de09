"""What a build asks of a container engine, if one answers: a base image out, the finished image in, one test run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class LoadedImage:
    """An image by its id. ``was_there`` before the load: then it is somebody's, and not ours to remove."""

    image_id: str
    was_there: bool


class TriedContainer(Protocol):
    """A container in which a finished image is tested."""

    def address(self) -> tuple[str, int] | None:
        """Where its scoring port can be reached from here, or None as long as it is not published."""
        ...

    def ended(self) -> str | None:
        """How it ended, or None while it runs."""
        ...

    def log_tail(self) -> str:
        """The last 200 lines that it wrote."""
        ...

    def peak_memory_bytes(self) -> int | None:
        """The most that it used as far as the engine tells (with cgroup v2: what it uses now), None where it does not."""
        ...

    def run(self, argv: Sequence[str]) -> tuple[int, str]:
        """One more process inside: its exit code, and the last megabytes of what it wrote."""
        ...

    def remove(self) -> None:
        """Ended at once, and gone with all that was started in it."""
        ...


@dataclass(frozen=True)
class LeftContainer:
    """A container that some test made."""

    container_id: str
    labels: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True)
class TryOut:
    """How an image is tried: always read-only, without privileges, with few processes, its ``port`` published."""

    port: int
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    memory_bytes: int


class Bench(Protocol):
    """What the test of a finished image asks of a container engine. Errors are EngineFailed."""

    def memory_bytes(self) -> int:
        """How much memory the engine's machine has."""
        ...

    def load(self, archive: Iterable[bytes]) -> LoadedImage:
        """Take in a docker-archive tar."""
        ...

    def start(self, image_id: str, wanted: TryOut) -> TriedContainer: ...

    def remove_image(self, image_id: str) -> None:
        """Unless something uses it by now."""
        ...

    def left_behind(self, label: str) -> list[LeftContainer]:
        """All containers with that label, running or not."""
        ...

    def remove_container(self, container_id: str) -> None: ...


@dataclass(frozen=True)
class EngineWork:
    """What a Dockerfile shall do: ``context`` is a tar with it inside, its argument BASE becomes the image id ``base``.

    ``what`` is for error messages, ``take`` the folder that is wanted of the result, ``label`` (`KEY=VALUE`) what the
    Dockerfile labels all its steps with, ``arguments`` further ones such as proxies.
    """

    what: str
    context: Path
    base: str
    take: str
    label: str
    network: bool
    arguments: Mapping[str, str]


class ContainerEngine(Protocol):
    """Errors are EngineFailed; an image that is not there is BaseUnreadable."""

    def platform(self) -> str:
        """`linux/amd64` and the like: what the engine runs without emulation."""
        ...

    def image_id(self, tag: str) -> str:
        """The id (`sha256:…`) that ``tag`` stands for now."""
        ...

    def save(self, image_id: str) -> Iterator[bytes]:
        """The image as a docker-archive tar."""
        ...

    def load(self, archive: Iterable[bytes]) -> LoadedImage:
        """Take in a docker-archive tar."""
        ...

    def remove_image(self, image_id: str) -> None: ...

    def build(self, work: EngineWork, told: Callable[[str], None]) -> Iterator[bytes]:
        """The wanted folder as a tar; ``told`` gets the log by lines. Nothing stays in the engine.

        Raises SourceBuildFailed when a step of the Dockerfile fails.
        """
        ...

    def bench(self) -> Bench | None:
        """To test an image on, or None where ports of a container cannot be reached from here."""
        ...
