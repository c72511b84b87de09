"""The scoring server's end of one script process: starts it, writes calls, reads frames, notices its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Protocol

import msgspec

from runtime.scripts.frames import LENGTH_BYTES, MOST_BYTES, Call, FromHost, from_host, length_of, packed

_log = logging.getLogger("hedgerow.runtime.scripts")


class Listener(Protocol):
    """Who is told what a host says (scripts/pool.py)."""

    def said(self, link: Link, frame: FromHost) -> None: ...

    def ended(self, link: Link, how: str) -> None: ...


class Link(asyncio.Protocol):
    """One script process. Made by :func:`start_host`."""

    def __init__(self, process: subprocess.Popen[bytes], listener: Listener) -> None:
        self.process = process
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._ended = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def call(self, call: Call) -> None:
        """Send one call. A host that has just died says so by its end."""
        if self._transport is not None:
            self._transport.write(packed(call))

    def pause(self) -> None:
        """Read no more for now: a caller takes its answer slowly."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    def kill(self) -> None:
        """End it whatever it does. ``ended`` follows."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Let it end by itself: it sees the end of its socket, and its own exit handlers run."""
        if self._transport is not None:
            self._transport.close()

    # What the event loop calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream: start_host makes no others

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= LENGTH_BYTES:
            length = length_of(memoryview(buffer)[at : at + LENGTH_BYTES])
            end = at + LENGTH_BYTES + length
            if length > MOST_BYTES:
                self._nonsense("a frame that is too long")
                return
            if len(buffer) < end:
                break
            try:
                frame = from_host(bytes(buffer[at + LENGTH_BYTES : end]))
            except msgspec.DecodeError as problem:
                self._nonsense(str(problem))
                return
            at = end
            self._listener.said(self, frame)
        del buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._ended:
            self._ended = True
            self._listener.ended(self, self._how_it_ended())

    def _nonsense(self, problem: str) -> None:
        _log.error("script process %d wrote what is no frame (%s); it is ended", self.pid, problem)
        self.kill()

    def _how_it_ended(self) -> str:
        try:
            # Its socket closes a moment before the process is gone.
            code = self.process.wait(0.05)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        return f"signal {-code} ({_signal_name(-code)})" if code < 0 else f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


async def start_host(argv: Sequence[str], listener: Listener) -> Link:
    """Start a script process, with our own environment. Its last argument names the descriptor of its end of the socket pair."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        process = subprocess.Popen(
            [*argv, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # A terminal's Ctrl-C is for the server, which lets its calls end.
            start_new_session=True,
        )
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Link(process, listener), sock=ours)
    return link


def host_command(script: str, source: str, calls: int) -> list[str]:
    """The command line of a script process, but for its descriptor."""
    return [sys.executable, "-P", "-m", "runtime.scripts", script, source, str(calls), str(os.getpid())]
