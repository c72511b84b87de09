"""Listens at the taps of a module: one socket for each of its workers, which come and go."""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hedgerow.contracts.shadow import TapHead, TapHello
from hedgerow.socket_path import reachable

_HEAD_BYTES_MAX = 256 * 1024
_WORKERS_MAX = 64
_CONNECT_S = 2.0
# A worker writes a frame at once; what comes slower is not one.
_FRAME_S = 30.0
_log = logging.getLogger("hedgerow.runtime.shadow")


@dataclass(frozen=True)
class Tapped:
    """A request with its answer, as the module gave it."""

    head: TapHead
    body: bytes
    answer: bytes


class Taps:
    """``folder`` may not be there yet. ``dropped`` counts what the module's workers could not tell."""

    def __init__(self, folder: Path, fraction: float) -> None:
        self._folder, self._hello = folder, msgspec.json.encode(TapHello(fraction)) + b"\n"
        self._open: dict[Path, tuple[socket.socket, int]] = {}
        self.dropped = 0

    @property
    def listening(self) -> bool:
        """Whether at least one worker tells us anything."""
        return bool(self._open)

    def look(self) -> None:
        """Connect to workers that are new."""
        found = sorted(self._folder.glob("*.sock"))[:_WORKERS_MAX] if self._folder.is_dir() else []
        for path in found:
            if path not in self._open:
                self._connect(path)

    def read(self, timeout_s: float) -> Iterator[Tapped]:
        """What comes within ``timeout_s``: at most one request of each worker."""
        sockets = {connection: path for path, (connection, _) in self._open.items()}
        ready, _, _ = select.select(list(sockets), [], [], timeout_s)
        for connection in ready:
            tapped = self._read(sockets[connection], connection)
            if tapped is not None:
                yield tapped

    def close(self) -> None:
        for path in list(self._open):
            self._close(path)

    def _connect(self, path: Path) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(_CONNECT_S)
        try:
            with reachable(path) as address:
                made.connect(address)
            made.sendall(self._hello)
            made.settimeout(_FRAME_S)
        except OSError as problem:
            # A worker that has just gone, or one that is not there yet.
            _log.debug("no tap at %s: %s", path.name, problem)
            made.close()
            return
        self._open[path] = (made, 0)

    def _read(self, path: Path, connection: socket.socket) -> Tapped | None:
        try:
            length = int.from_bytes(_exactly(connection, 4), "big")
            if length > _HEAD_BYTES_MAX:
                raise ValueError(f"a head of {length} bytes")
            head = msgspec.json.decode(_exactly(connection, length), type=TapHead)
            body = _exactly(connection, head.body_bytes)
            answer = _exactly(connection, head.answer_bytes)
        except (OSError, EOFError, ValueError, msgspec.MsgspecError) as problem:
            _log.debug("the tap at %s has ended: %s", path.name, problem)
            self._close(path)
            return None
        before = self._open[path][1]
        self.dropped += max(0, head.dropped - before)
        self._open[path] = (connection, head.dropped)
        return Tapped(head, body, answer)

    def _close(self, path: Path) -> None:
        self._open.pop(path)[0].close()


def _exactly(connection: socket.socket, size_bytes: int) -> bytes:
    """Raises EOFError, OSError."""
    parts: list[bytes] = []
    while size_bytes:
        part = connection.recv(min(size_bytes, 1 << 20))
        if not part:
            raise EOFError("it was closed")
        parts.append(part)
        size_bytes -= len(part)
    return b"".join(parts)
