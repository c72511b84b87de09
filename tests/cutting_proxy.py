"""A line to a server that breaks: passes connections on, and cuts each of the next ones after so many bytes upwards."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class _Line:
    """``cuts``: a connection that sent more than the first of them is cut there, and that cut is used up."""

    def __init__(self, upstream: str, cuts: list[int]) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream, self._cuts, self._lock = (host, int(port)), cuts, threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for one in self._sockets:
            _shut(one)
        # The first one may still add to the list.
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            _shut(one)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                self._sockets += [client, server]
                self._pass_on(client, server, upwards=True)
                self._pass_on(server, client, upwards=False)

    def _pass_on(self, source: socket.socket, target: socket.socket, *, upwards: bool) -> None:
        thread = threading.Thread(target=self._work, args=(source, target, upwards))
        self._threads.append(thread)
        thread.start()

    def _work(self, source: socket.socket, target: socket.socket, upwards: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                cut = self._cut(passed + len(data)) if upwards else None
                target.sendall(data if cut is None else data[: cut - passed])
                passed += len(data)
                if cut is not None:
                    break
        _shut(source)
        _shut(target)

    def _cut(self, passed: int) -> int | None:
        with self._lock:
            return self._cuts.pop(0) if self._cuts and passed > self._cuts[0] else None


@contextlib.contextmanager
def cutting_proxy(upstream: str, cuts: list[int]) -> Iterator[str]:
    """The `127.0.0.1:PORT` by which ``upstream`` is reached, until the end of the block."""
    line = _Line(upstream, cuts)
    try:
        yield line.address
    finally:
        line.close()


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
