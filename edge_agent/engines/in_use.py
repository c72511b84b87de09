"""The engines in use. Docker's is made only when a docker module is, or was, on this device: its SDK costs memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from edge_agent.engines.engine import Engine
from edge_agent.errors import EngineBlind
from edge_agent.reconcile.situation import EngineKind, Seen
from hedgerow.errors import HedgerowError


class Engines:
    """``make_docker`` raises HedgerowError where Docker cannot be used at all; ``marker`` is a file that remembers its use."""

    def __init__(self, process: Engine, make_docker: Callable[[], Engine], marker: Path, wake: Callable[[], None]) -> None:
        self._made: dict[EngineKind, Engine] = {"process": process}
        self._make_docker = make_docker
        self._marker = marker
        self._wake = wake

    def watch(self) -> None:
        """Begin to hear of ends."""
        for engine in self._made.values():
            engine.watch(self._wake)

    def in_use(self, kinds: Collection[EngineKind]) -> list[Engine]:
        """The engines that have to be looked at when modules of these kinds are wanted."""
        if "docker" not in self._made and ("docker" in kinds or self._marker.exists()):
            self._made["docker"] = self._docker()
        return list(self._made.values())

    def of(self, kind: EngineKind) -> Engine:
        """The engine of one kind; it was in use before."""
        return self._made[kind]

    def _docker(self) -> Engine:
        try:
            engine = self._make_docker()
        except HedgerowError as problem:
            return MissingEngine("docker", problem)
        self._marker.touch()
        engine.watch(self._wake)
        return engine


class MissingEngine:
    """Stands for an engine that cannot be used on this device: always blind, with the reason."""

    def __init__(self, kind: EngineKind, problem: HedgerowError) -> None:
        self.kind: EngineKind = kind
        self._problem = problem

    def look(self) -> list[Seen]:
        inner = self._problem.fields["problem"] if isinstance(self._problem, EngineBlind) else self._problem.sentence()
        raise EngineBlind(engine=self.kind, problem=inner)

    def watch(self, wake: Callable[[], None]) -> None:
        """Nothing will ever happen here."""

    def address(self, name: str) -> str | None:
        return None

    def start(self, launch: object) -> None:
        raise self._problem

    def stop(self, name: str, grace_s: float) -> None:
        raise self._problem

    def remove(self, name: str, *, purge: bool) -> None:
        raise self._problem
