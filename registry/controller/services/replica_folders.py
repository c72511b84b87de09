"""Replicas on disk: what was decided (``replica.json``) beside what runs (the state folder of a supervised process).

``run/processes/replica-ID/`` is ours alone; ``run/replicas/ID/`` belongs to the replica's user, who writes its ready file there.
Both survive the controller, which is why a later one simply finds them.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.document import decode, encode
from hedgerow.errors import HedgerowError
from hedgerow.process import Exited, Running, Supervised
from registry.controller.services.situation import Replica, ReplicaRecord
from registry.workspace import Workspace

PREFIX = "replica-"
_RECORD, _READY = "replica.json", "ready.json"
_READY_BYTES_MAX = 4096
_TAIL_LINES = 6
log = logging.getLogger(__name__)


class _ReadyFile(msgspec.Struct, frozen=True):
    """What a scoring server writes once it answers."""

    address: str


class ReplicaFolders:
    """All replicas of a workspace. Nothing is kept in memory."""

    def __init__(self, workspace: Workspace) -> None:
        self._processes = workspace.processes
        self._scratch = workspace.run / "replicas"

    def look(self) -> tuple[Replica, ...]:
        """Every replica that there is, in the order of their ids."""
        found = [self._look_at(folder) for folder in sorted(self._processes.glob(f"{PREFIX}*"))]
        return tuple(replica for replica in found if replica is not None)

    def process(self, replica_id: str) -> Supervised:
        return Supervised(self._processes / f"{PREFIX}{replica_id}")

    def record(self, replica_id: str) -> ReplicaRecord:
        """Raises FileNotFoundError, HedgerowError (damaged)."""
        return decode((self._processes / f"{PREFIX}{replica_id}" / _RECORD).read_bytes(), ReplicaRecord)

    def write(self, record: ReplicaRecord) -> None:
        folder = self._processes / f"{PREFIX}{record.id}"
        folder.mkdir(mode=0o700, exist_ok=True)
        atomic_write(folder / _RECORD, encode(record), mode=0o600)

    def scratch(self, replica_id: str) -> Path:
        """The replica's own folder, made where missing and without a ready file of an earlier life."""
        self._scratch.mkdir(exist_ok=True)
        self._scratch.chmod(0o711)
        folder = self._scratch / replica_id
        folder.mkdir(mode=0o700, exist_ok=True)
        self.ready_file(replica_id).unlink(missing_ok=True)
        return folder

    def ready_file(self, replica_id: str) -> Path:
        return self._scratch / replica_id / _READY

    def forget(self, replica_id: str) -> None:
        """Raises AlreadyRunning."""
        self.process(replica_id).forget()
        shutil.rmtree(self._scratch / replica_id, ignore_errors=True)

    def sweep(self) -> None:
        """Once at the start: end what runs without a readable record, and remove what belongs to nothing."""
        for folder in self._processes.glob(f"{PREFIX}*"):
            try:
                self.record(folder.name.removeprefix(PREFIX))
            except (FileNotFoundError, HedgerowError):
                log.warning("%s has no readable record; what runs in it is ended", folder)
                Supervised(folder).stop(1.0)
                Supervised(folder).forget()
        if self._scratch.is_dir():
            for scratch in self._scratch.iterdir():
                if not (self._processes / f"{PREFIX}{scratch.name}").is_dir():
                    shutil.rmtree(scratch, ignore_errors=True)

    def _look_at(self, folder: Path) -> Replica | None:
        try:
            record = decode((folder / _RECORD).read_bytes(), ReplicaRecord)
        except (FileNotFoundError, HedgerowError):
            return None  # swept away by the next controller
        process = Supervised(folder)
        seen = process.observe()
        if isinstance(seen, Running):
            port = self._port(record.id)
            life = Replica(record, "starting" if port is None else "ready", seen.started_at, seen.pid, port)
        elif isinstance(seen, Exited):
            life = Replica(record, "ended", seen.ended_at or record.phase_since, end_reason=seen.reason)
        else:
            life = Replica(record, "ended", record.phase_since, end_reason="it was never started")
        if life.life == "ready" or not (record.failures or life.life == "ended"):
            return life
        return replace(life, tail=process.tail(_TAIL_LINES).strip())

    def _port(self, replica_id: str) -> int | None:
        """The port that the replica says it listens on. Foreign code wrote the file: anything but a loopback port is ignored."""
        try:
            with self.ready_file(replica_id).open("rb") as file:
                address = decode(file.read(_READY_BYTES_MAX), _ReadyFile).address
            url = urlsplit(address)
            return url.port if url.scheme == "http" and url.hostname == "127.0.0.1" else None
        except (OSError, ValueError, HedgerowError):
            return None
