"""Whoever listens at a scoring server's tap, for tests: reads frames as fast, or as slowly, as the test wants."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path
from types import TracebackType

import msgspec

from hedgerow.contracts.shadow import TapHead, TapHello
from tests.waiting import wait_for

TIMEOUT_S = 30.0


def taps(folder: Path) -> list[Path]:
    """The sockets of a server's workers."""
    return sorted(folder.glob("*.sock"))


class TapListener:
    """One listener at the only socket of ``folder``; a context manager."""

    def __init__(self, folder: Path, fraction: float = 1.0, *, receive_bytes: int | None = None) -> None:
        path = wait_for(lambda: taps(folder), what="a tap")[0]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT_S)
        if receive_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        # Folders of tests are deeper than a socket's path may be.
        here = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        address = f"/proc/self/fd/{here}/{path.name}"

        def listened() -> bool:
            """The socket has its name a moment before anybody listens at it."""
            try:
                self._socket.connect(address)
            except ConnectionRefusedError:
                return False
            return True

        try:
            wait_for(listened, what="somebody at the tap")
        finally:
            os.close(here)
        self._socket.sendall(msgspec.json.encode(TapHello(fraction)) + b"\n")

    def __enter__(self) -> TapListener:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    @property
    def anything(self) -> bool:
        """Whether something has come."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def read(self) -> tuple[TapHead, bytes, bytes]:
        """The next request with its answer."""
        head = msgspec.json.decode(self._exactly(int.from_bytes(self._exactly(4), "big")), type=TapHead)
        return head, self._exactly(head.body_bytes), self._exactly(head.answer_bytes)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            assert part, "the tap was closed"
            data += part
        return data
