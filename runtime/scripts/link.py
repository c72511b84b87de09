"""The scoring server's end of one script process: starts it, writes calls, reads frames, notices its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from runtime.scripts.frames import GO, LENGTH_BYTES, MOST_BYTES, Call, FromHost, begins_frame, from_host, length_of, pieces
from runtime.scripts.place import ScriptPlace

_log = logging.getLogger("hedgerow.runtime.scripts")


# A process that has ended, or closed its connection, gets so long until the other of the two shows as well.
_LAST_WORDS_S = 0.05


class Listener(Protocol):
    """Who is told what a host says (pool.py)."""

    def said(self, link: Link, frame: FromHost) -> None: ...

    def leaving(self, link: Link) -> None:
        """It takes no more calls; ``ended`` follows shortly."""

    def ended(self, link: Link, how: str) -> None: ...


class Link(asyncio.Protocol):
    """One script process. Made by :func:`start_host`.

    Its end is seen by the process itself, not by its connection alone: children that a script forked keep that open.
    """

    def __init__(self, process: subprocess.Popen[bytes], listener: Listener) -> None:
        self.process = process
        self.ended = False
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._last_words: asyncio.TimerHandle | None = None
        self._patient = False
        self._let_go = False
        # Not the same as having no transport: a process may end before it is listened to.
        self._hung_up = False
        self._watched: int | None = None
        with contextlib.suppress(OSError, AttributeError):
            self._watched = os.pidfd_open(process.pid)
            self._loop.add_reader(self._watched, self._process_ended)

    @property
    def pid(self) -> int:
        return self.process.pid

    def call(self, call: Call) -> None:
        """Send one call. A host that has just died says so by its end."""
        if self._transport is not None:
            for part in pieces(call):
                self._transport.write(part)

    def go(self) -> None:
        """Let a host that waits call init(); heard once, however often it is said."""
        if self._transport is not None and not self._let_go:
            self._let_go = True
            self._transport.write(GO)

    def pause(self) -> None:
        """Read no more for now: a caller takes its answer slowly."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    def kill(self) -> None:
        """End it whatever it does, and what it started. ``ended`` follows."""
        if not self.ended:
            self._kill_group()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Let it end by itself: it sees the end of its socket, and its own exit handlers run."""
        self._patient = True
        if self._transport is not None:
            self._transport.close()

    def nonsense(self, problem: str) -> None:
        """It said what no host of ours says: end it."""
        _log.error("script process %d wrote what is no frame (%s); it is ended", self.pid, problem)
        self.kill()

    # What the event loop calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream: start_host makes no others

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            used = self._take_frames(data)
            if used < len(data):
                self._buffer += memoryview(data)[used:]
            return
        self._buffer += data
        used = self._take_frames(self._buffer)
        del self._buffer[:used]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._hung_up = None, True
        self._going()

    def _process_ended(self) -> None:
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
        # What it started is of no use any more, and may hold the connection open. Its own number is not free before it is reaped.
        self._kill_group()
        self._going()

    # Inside -----------------------------------------------------------------------------------------------------------

    def _take_frames(self, data: bytes | bytearray) -> int:
        """How many bytes were whole frames."""
        at = 0
        with memoryview(data) as view:
            while len(view) - at >= LENGTH_BYTES:
                start = at + LENGTH_BYTES
                end = start + length_of(view[at:start])
                if end - start > MOST_BYTES or (len(view) > start and not begins_frame(view[start])):
                    self.nonsense("it begins like none")
                    return len(view)
                if len(view) < end:
                    break
                try:
                    frame = from_host(view[start:end])
                except msgspec.DecodeError as problem:
                    self.nonsense(str(problem))
                    return len(view)
                at = end
                self._listener.said(self, frame)
        return at

    def _going(self) -> None:
        if self.ended:
            return
        if self._last_words is None and not self._patient:
            self._last_words = self._loop.call_later(_LAST_WORDS_S, self._end)
            self._listener.leaving(self)
        if self._hung_up and self._is_gone():
            self._end()

    def _is_gone(self) -> bool:
        """Whether the process has ended; it is not reaped by this, so that its group can still be named."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        if self._last_words is not None:
            self._last_words.cancel()
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None
        # Asked before it is killed: that it ends by our own signal says nothing.
        ended_itself = self._is_gone()
        self._kill_group()
        code = self.process.poll()
        if code is None:
            # Killed just now, or beyond any signal; whichever, it is reaped when it can be.
            self._loop.call_later(1.0, self.process.poll)
        if self._transport is not None:
            self._transport.abort()
        self._listener.ended(self, _how_it_ended(code if ended_itself else None))

    def _kill_group(self) -> None:
        """start_host made it the leader of its own group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "it closed its connection"
    return f"signal {-code} ({_signal_name(-code)})" if code < 0 else f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


async def start_host(argv: Sequence[str], listener: Listener, begun: Callable[[Link], None], *, memory_bytes: int = 0) -> Link:
    """Start a script process, with our own environment. Its last argument names the descriptor of its end of the socket pair.

    ``begun`` gets the link before ``listener`` hears of it: on a busy loop a process has spoken, and ended, before this returns.
    ``memory_bytes`` is the most that it may take of its own (0: no limit); beyond that its allocations fail. Raises OSError where
    there is no room for another process.
    """
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as unless_started:
        unless_started.callback(ours.close)
        ours.setblocking(False)
        process = subprocess.Popen(
            [*argv, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # A terminal's Ctrl-C is for the server, which lets its calls end.
            start_new_session=True,
        )
        unless_started.pop_all()
    if memory_bytes and sys.platform == "linux":
        # What it writes to itself; address space is no measure, since libraries reserve far more than they use.
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory_bytes, memory_bytes))

    def linked() -> Link:
        link = Link(process, listener)
        begun(link)
        return link

    try:
        _, link = await asyncio.get_running_loop().create_connection(linked, sock=ours)
    except BaseException:
        # Nobody else knows of it.
        ours.close()
        process.kill()
        process.wait()
        raise
    return link


def host_command(place: ScriptPlace, calls: int) -> list[str]:
    """The command line of a script process, but for when it calls init() and its descriptor."""
    # A server without site-packages (the test of an image without its base) has scripts without them.
    flags = ["-P", "-S"] if sys.flags.no_site else ["-P"]
    return [sys.executable, *flags, "-m", "runtime.scripts", place.text(), str(calls), str(os.getpid())]
