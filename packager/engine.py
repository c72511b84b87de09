"""What a build asks of a container engine, if one answers: a base image out, the finished image in, one test run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


class Container(Protocol):
    """A running container of a finished image."""

    def address(self) -> tuple[str, int] | None:
        """Loopback host and port that lead to the scoring port, or None when the container is gone."""
        ...

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        ...

    def remove(self) -> None: ...


@dataclass(frozen=True)
class LoadedImage:
    """An image by its id. ``was_there`` before the load: then it is somebody's, and not ours to remove."""

    image_id: str
    was_there: bool


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

    def start(self, image_id: str, port: int, labels: Mapping[str, str]) -> Container:
        """Run the image read-only, without privileges, its ``port`` published on loopback."""
        ...

    def remove_image(self, image_id: str) -> None: ...
