"""The port to whatever runs modules, as the agent needs it. Adapters: ``engine_process.py``, ``engine_docker.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_agent.reconcile.situation import EngineKind, Seen, Wanted
from hedgerow.contracts.service import ImagePin


@dataclass(frozen=True)
class Launch:
    """A module to be started: ``environment`` is what the agent adds to ``spec.variables``."""

    wanted: Wanted
    environment: Mapping[str, str]


class Engine(Protocol):
    """Runs modules of one kind. ``look``, ``watch`` and ``address`` never wait for anything slow; the other three may block,
    are called from any thread, and never twice at a time for one module.
    """

    @property
    def kind(self) -> EngineKind: ...

    def look(self) -> list[Seen]:
        """Every module that runs or has left something behind. Raises EngineBlind."""
        ...

    def watch(self, wake: Callable[[], None]) -> None:
        """From now on call ``wake`` (from any thread) when a module may have ended."""
        ...

    def address(self, name: str) -> str | None:
        """URL of the module that runs under this name, None while it is not known. Called from any thread."""
        ...

    def start(self, launch: Launch) -> None:
        """Start a module of which nothing is there. Raises HedgerowError; ImageNotPulled when its image has gone."""
        ...

    def stop(self, name: str, grace_s: float) -> None:
        """End a module and wait for its end. One that has ended already is fine."""
        ...

    def remove(self, name: str, *, purge: bool) -> None:
        """Clean away what an ended module left; with ``purge`` its own files as well. One that is not there is fine."""
        ...


class ImageSource(Protocol):
    """Gets images of one kind onto the device."""

    def present(self, image: ImagePin) -> bool:
        """True when the image is here, whole; makes no network attempt."""
        ...

    def pull(self, image: ImagePin, progress: Callable[[str], None]) -> None:
        """Fetch the image; ``progress`` gets short texts. Raises HedgerowError. What was fetched in part is continued."""
        ...
