"""Reads a supervised process's log while it grows and rotates: whole lines, each once, in order."""

from __future__ import annotations

import os
from pathlib import Path

_READ_BYTES = 1 << 16
# More in one turn would keep the controller's only thread from everything else.
_TURN_BYTES = 1 << 20
_LONGEST_LINE = 1 << 20


class LogFollower:
    """Made before the first line is written. What was rotated away twice between two looks is missed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._begun = False
        self._rest = b""

    def lines(self, *, ended: bool = False) -> list[str]:
        """What was written since the last call; with ``ended`` all of it, a last line without newline included."""
        data = self._rest
        budget = None if ended else _TURN_BYTES
        while budget is None or budget > 0:
            chunk = self._read()
            if not chunk:
                break
            data += chunk
            budget = None if budget is None else budget - len(chunk)
        whole, newline, self._rest = data.rpartition(b"\n")
        found = whole.split(b"\n") if newline else []
        if self._rest and (ended or len(self._rest) > _LONGEST_LINE):
            found.append(self._rest)
            self._rest = b""
        return [line.decode(errors="replace") for line in found]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bytes:
        """The next bytes; b"" when there are none now."""
        if self._fd < 0 and not self._open():
            return b""
        chunk = os.read(self._fd, _READ_BYTES)
        if chunk or not self._rotated():
            return chunk
        # The shim writes no more to a file that it has moved away, but may have done so since our last read of it.
        if chunk := os.read(self._fd, _READ_BYTES):
            return chunk
        self.close()
        return os.read(self._fd, _READ_BYTES) if self._open() else b""

    def _open(self) -> bool:
        # At the first look the beginning may have been moved away already.
        earlier = self._path.with_name(f"{self._path.name}.1")
        path = self._path if self._begun or not earlier.exists() else earlier
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self._begun = True
        return True

    def _rotated(self) -> bool:
        try:
            return not os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return False
