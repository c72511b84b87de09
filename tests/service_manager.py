"""The service manager's end of sd_notify, for tests of programs that systemd would start."""

from __future__ import annotations

import socket
import threading

FED = "WATCHDOG=1"


class Manager:
    """What systemd has at its end: a datagram socket; every message is kept, in order."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.messages.append(message.decode())

    def feeds(self) -> int:
        return sum(FED in message.split("\n") for message in list(self.messages))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()
