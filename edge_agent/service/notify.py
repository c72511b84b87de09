"""What systemd is told (sd_notify(3)): one datagram for each message, to the socket that it named. Without one, nothing."""

from __future__ import annotations

import contextlib
import socket


class Notifier:
    """``address`` is the value of NOTIFY_SOCKET: a path, or ``@name`` for an abstract socket; None when nobody listens."""

    def __init__(self, address: str | None) -> None:
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address

    @property
    def heard(self) -> bool:
        """True when there is somebody to tell."""
        return bool(self._address)

    def ready(self) -> None:
        """The agent looks after its modules."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The agent was told to end."""
        self._send("STOPPING=1")

    def alive(self, status: str) -> None:
        """Feed the watchdog; ``status`` is what ``systemctl status`` shows."""
        self._send(f"WATCHDOG=1\nSTATUS={_one_line(status)}")

    def status(self, status: str) -> None:
        """Only the line for ``systemctl status``."""
        self._send(f"STATUS={_one_line(status)}")

    def waiting(self, status: str, for_s: float) -> None:
        """Not ready yet, but at work: the manager is asked not to give up on the start for so long."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(for_s * 1e6)}\nSTATUS={_one_line(status)}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A service manager that restarts itself has no socket for a moment; the next message comes soon.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.setblocking(False)
            sending.sendto(message.encode(), self._address)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def watchdog_s(usec: str | None, pid: str | None, own_pid: int) -> float | None:
    """Seconds of WATCHDOG_USEC when it is meant for this process (WATCHDOG_PID), else None."""
    meant = pid is None or pid == str(own_pid)
    if not (meant and usec and usec.isascii() and usec.isdigit() and int(usec) > 0):
        return None
    return int(usec) / 1e6
