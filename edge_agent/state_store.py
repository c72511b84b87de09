"""The agent's state folder: which files there are, written whole, and what happens when one of them is damaged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_agent.errors import StateUnusable
from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.document import decode, encode
from hedgerow.errors import HedgerowError

D = TypeVar("D", bound=msgspec.Struct)
log = logging.getLogger(__name__)


class StateStore:
    """Files of one agent. Damaged files are moved aside (one kept of each) and named in ``damaged``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[str] = []

    def prepare(self) -> None:
        """Make the folder, for its owner only: it holds what modules say. Raises StateUnusable."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as problem:
            raise StateUnusable(folder=self.folder, problem=problem.strerror) from None

    @property
    def lock(self) -> Path:
        return self.folder / "agent.lock"

    @property
    def outbox(self) -> Path:
        return self.folder / "outbox.sqlite"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def modules(self) -> Path:
        return self.folder / "modules"

    @property
    def decisions(self) -> Path:
        return self.folder / "decisions.jsonl"

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    @property
    def desired(self) -> Path:
        return self.folder / "desired.dsse.json"

    def load(self, name: str, kind: type[D]) -> D | None:
        """The document in file ``name``, None when there is none or it was damaged (then it is moved aside)."""
        path = self.folder / name
        try:
            return decode(path.read_bytes(), kind)
        except FileNotFoundError:
            return None
        except HedgerowError as problem:
            self.set_aside(path, str(problem))
            return None

    def save(self, name: str, document: msgspec.Struct) -> None:
        """Write a document, readable by the owner only. Raises OSError with the old file untouched."""
        atomic_write(self.folder / name, encode(document), mode=0o600)

    def set_aside(self, path: Path, problem: str) -> None:
        """Move a damaged file out of the way, so that the agent goes on and the file can be looked at."""
        self.damaged.append(path.name)
        log.error("%s is damaged and moved aside: %s", path.name, problem)
        path.replace(path.with_name(f"{path.name}.damaged"))


class _Starts(msgspec.Struct, frozen=True):
    starts: int


class _MqttPort(msgspec.Struct, frozen=True):
    port: int


class _IntakePort(msgspec.Struct, frozen=True):
    port: int


def count_start(store: StateStore) -> int:
    """The number of this start of the folder's agent, from 1. A start that cannot be counted counts as the same again."""
    before = store.load("starts.json", _Starts)
    starts = (before.starts if before else 0) + 1
    try:
        store.save("starts.json", _Starts(starts))
    except OSError as problem:
        log.warning("cannot count this start: %s", problem)
    return starts


def intake_port(store: StateStore) -> int:
    """The port that modules were told before, 0 when there was none."""
    kept = store.load("intake.json", _IntakePort)
    return kept.port if kept else 0


def keep_intake_port(store: StateStore, port: int) -> None:
    """Remember the port: modules that outlive this agent were told it."""
    store.save("intake.json", _IntakePort(port))


def mqtt_port(store: StateStore) -> int:
    """The local hub's port that modules were told before, 0 when there was none."""
    kept = store.load("mqtt.json", _MqttPort)
    return kept.port if kept else 0


def keep_mqtt_port(store: StateStore, port: int) -> None:
    """Remember the local hub's port."""
    store.save("mqtt.json", _MqttPort(port))
