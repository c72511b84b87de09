"""Wake-ups over Unix datagram sockets ``run/ROLE.wake``: one machine, no broker, nothing to poll."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path


class _Folder:
    """Reaches sockets through an open descriptor: a Unix socket's path has at most 107 bytes, folders can be deeper."""

    def __init__(self, run_folder: Path) -> None:
        self._fd = os.open(run_folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def address(self, role: str) -> str:
        return f"/proc/self/fd/{self._fd}/{role}.wake"

    def close(self) -> None:
        os.close(self._fd)


# The hubs that share one folder have sockets of their own: ``hub``, ``hub-2`` …
MOST_SHARING = 8


def numbered(role: str, number: int) -> str:
    """The name of the ``number``-th process of a role; the first has the role's own."""
    return role if number == 1 else f"{role}-{number}"


class SocketWakeups:
    """Sends to whoever listens; nobody there is fine."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = _Folder(run_folder)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def wake(self, role: str) -> None:
        for number in range(1, MOST_SHARING + 1):
            # Nobody there, or a full queue: then the receiver has a wake-up pending already.
            with contextlib.suppress(OSError):
                self._socket.sendto(b"!", self._folder.address(numbered(role, number)))

    def close(self) -> None:
        self._socket.close()
        self._folder.close()


class SocketReceiver:
    """Owns ``run/ROLE.wake``; the role lock makes sure that there is only one."""

    def __init__(self, run_folder: Path, role: str) -> None:
        self._folder = _Folder(run_folder)
        self._path = run_folder / f"{role}.wake"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._folder.address(role))
        self._socket.setblocking(False)

    def wait(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._socket], [], [], timeout_s)
        woken = False
        with contextlib.suppress(BlockingIOError):
            while ready:
                self._socket.recv(16)
                woken = True
        return woken

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)
        self._folder.close()
