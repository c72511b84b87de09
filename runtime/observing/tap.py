"""The tap: whoever may connect to a Unix socket gets copies of scoring requests and their answers, as they are given.

    sent()      on the loop: with nobody connected one look at a field; else draw, and put references into a bounded queue
    _run()      on a thread: one listener at a time, frames of hedgerow/contracts/shadow.py

Nothing here makes a caller wait: a listener that reads too slowly loses requests, and is told how many. The caller's
Authorization goes along (the shadow of a module that wants a key wants it too), so only this user may connect.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import socket
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import msgspec

from hedgerow.contracts.shadow import TAPPED_BYTES_MAX, TapHead, TapHello
from hedgerow.socket_path import reachable
from runtime.exchange import Exchange, Response

_MOST_WAITING = 1024
_MOST_WAITING_BYTES = 16 * 1024 * 1024
_LOOK_S = 0.05
_HELLO_S = 5.0
_HELLO_BYTES = 1024
# A listener that takes nothing for so long has died without its socket noticing.
_SEND_S = 120.0
_ROUTES = ("score", "infer")
_REQUEST_HEADERS = ("content-type", "content-encoding", "accept", "authorization", "inference-header-content-length")
_ANSWER_HEADERS = ("content-encoding", "inference-header-content-length")
_log = logging.getLogger("hedgerow.runtime.observing")


class Tap:
    """One worker's, in ``folder``: a witness of front/door.py. A folder that cannot be used costs the tap, not the server."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{os.getpid()}.sock"
        self._fraction: float | None = None
        self._waiting: deque[tuple[TapHead, bytes, bytes]] = deque()
        # Two counters with one writer each need no lock.
        self._bytes_in = self._bytes_out = 0
        self._dropped = self._dropped_before = 0
        self._listening: socket.socket | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        try:
            self._listening = _listen(self._path)
        except OSError as problem:
            _log.warning("no tap at %s: %s", self._path, problem)
            return
        threading.Thread(target=self._run, args=(self._listening,), name="tap", daemon=True).start()

    def stop(self) -> None:
        """Nobody gets anything from now on."""
        self._stopping.set()
        self._fraction = None
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._path.unlink(missing_ok=True)

    def sent(self, exchange: Exchange, response: Response) -> None:
        """On the loop, for every answer. What this side itself could not answer tells nothing of another model."""
        fraction = self._fraction
        if fraction is None or exchange.work is None or exchange.route not in _ROUTES or response.status >= 500:
            return
        if exchange.streamed_bytes or random.random() >= fraction:  # noqa: S311 - chance, not a secret
            return
        size_bytes = exchange.body_bytes + len(response.body)
        full = len(self._waiting) >= _MOST_WAITING or self._bytes_in - self._bytes_out + size_bytes > _MOST_WAITING_BYTES
        if size_bytes > TAPPED_BYTES_MAX or full:
            self._dropped += 1
            return
        self._bytes_in += size_bytes
        self._waiting.append((_head(exchange, response), exchange.request.body, response.body))

    def _run(self, listening: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                listener, _ = listening.accept()
            except OSError:
                return
            with listener:
                try:
                    self._serve(listener)
                except (OSError, msgspec.MsgspecError) as problem:
                    _log.debug("a listener of the tap has gone: %s", problem)
                except Exception:  # noqa: BLE001 - the next listener must find the tap open
                    _log.exception("a listener of the tap was cut off; please report it")
                finally:
                    self._fraction = None
                    self._forget()

    def _serve(self, listener: socket.socket) -> None:
        listener.settimeout(_HELLO_S)
        hello = msgspec.json.decode(_line(listener), type=TapHello)
        listener.settimeout(_SEND_S)
        self._forget()
        self._dropped_before = self._dropped
        self._fraction = hello.fraction
        while not self._stopping.is_set():
            while self._waiting:
                head, body, answer = self._waiting.popleft()
                self._bytes_out += len(body) + len(answer)
                listener.sendall(self._frame(head, body, answer))
            gone, _, _ = select.select([listener], [], [], _LOOK_S)
            # After its hello a listener has nothing to say but good-bye.
            if gone:
                return

    def _frame(self, head: TapHead, body: bytes, answer: bytes) -> bytes:
        text = msgspec.json.encode(msgspec.structs.replace(head, dropped=self._dropped - self._dropped_before))
        return b"".join((len(text).to_bytes(4, "big"), text, body, answer))

    def _forget(self) -> None:
        """What waited for a listener that has gone."""
        while self._waiting:
            _, body, answer = self._waiting.popleft()
            self._bytes_out += len(body) + len(answer)


def _head(exchange: Exchange, response: Response) -> TapHead:
    request = exchange.request
    return TapHead(
        method=request.method,
        path=request.path,
        query=request.query,
        route=exchange.route,
        headers=_chosen(request.headers, _REQUEST_HEADERS),
        status=response.status,
        answer_headers={"content-type": response.content_type, **_chosen(response.headers, _ANSWER_HEADERS)},
        seconds=perf_counter() - exchange.started_at,
        body_bytes=len(request.body),
        answer_bytes=len(response.body),
    )


def _chosen(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


def _listen(path: Path) -> socket.socket:
    """Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in path.parent.glob("*.sock"):
        # Of a worker that was killed; this one's own pid may have been another's before.
        if left == path or not Path(f"/proc/{left.stem}").exists():
            left.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with reachable(path) as address:
            made.bind(address)
        # Nobody can connect before listen(), so there is no moment with other rights.
        path.chmod(0o600)
        made.listen(4)
    except OSError:
        made.close()
        raise
    return made


def _line(listener: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < _HELLO_BYTES:
        part = listener.recv(_HELLO_BYTES)
        if not part:
            break
        data += part
    return data
