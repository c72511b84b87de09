"""What the kernel still has to deliver for a socket. Linux; elsewhere nothing is known."""

from __future__ import annotations

import contextlib
import fcntl
import struct
import termios
from typing import Protocol


class HasDescriptor(Protocol):
    """A socket, or what uvloop shows in its place."""

    def fileno(self) -> int: ...


def bytes_in_kernel(connection: HasDescriptor | None) -> int:
    """Bytes that were written and that the other side has not acknowledged; 0 where that cannot be asked."""
    if connection is not None:
        with contextlib.suppress(OSError):
            (count,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
            return int(count)
    return 0
