"""HTTP to one or more hosts over kept connections, each opened through the egress policy. Knows nothing of registries.

``http.client`` and not a larger library, because a connection has to go to the very address that the policy looked at.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from hedgerow.egress import Target, check_url, connect
from packager.distribution.access import RemoteAccess

# Addresses that stores of objects sign are long.
LONGEST_URL = 8000
_REST_BYTES = 64 << 10
_PART_BYTES = 1 << 18
_IDLE_PER_HOST = 4
_HEADS_AT_MOST = 10


class WireBroken(Exception):
    """The connection failed; the text is the reason, without its end. ``fatal``: trying again changes nothing.

    No error of its own: whoever asked says what it means.
    """

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal


class Answer:
    """Status, headers, and a body that is read in pieces."""

    def __init__(self, response: http.client.HTTPResponse, url: str) -> None:
        self._response = response
        self.url = url
        self.status = response.status
        self.headers = response.headers

    def read(self, most: int) -> bytes:
        """Up to ``most`` bytes, fewer only at the end. Raises WireBroken."""
        with _told():
            return self._response.read(most)

    @property
    def whole(self) -> bool:
        return self._response.isclosed()

    def finish(self) -> None:
        """Read a small rest, so that the connection can be used again."""
        with contextlib.suppress(WireBroken):
            self.read(_REST_BYTES)


class Wire:
    """Safe for threads: each request has a connection of its own while it lasts."""

    def __init__(self, access: RemoteAccess) -> None:
        self._access = access
        self._idle: dict[str, list[_Connection]] = {}
        self._busy: set[_Connection] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def stop(self) -> None:
        """End every request that is under way, and refuse new ones: somebody else has failed, or we are asked to end."""
        with self._lock:
            self._stopped = True
            for connection in self._busy:
                connection.break_off()

    @contextlib.contextmanager
    def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: IO[bytes] | bytes | None = None, size: int = 0
    ) -> Iterator[Answer]:
        """One request; ``size`` is the body's, in bytes. Raises EgressRefused, WireBroken."""
        target = check_url(url, self._access.policy, longest=LONGEST_URL)
        connection, used = self._take(target)
        done = False
        try:
            try:
                answer = connection.exchange(method, target, headers, body, size)
            except WireBroken:
                # The other end may have closed a connection that was idle; a body of a stream is gone, though.
                if not used or not isinstance(body, bytes | None):
                    raise
                self._give_back(target, connection, reusable=False)
                connection = self._fresh(target)
                answer = connection.exchange(method, target, headers, body, size)
            yield answer
            answer.finish()
            done = answer.whole
        finally:
            self._give_back(target, connection, reusable=done)

    def _take(self, target: Target) -> tuple[_Connection, bool]:
        with self._lock:
            idle = self._idle.get(_key(target))
            if idle and not self._stopped:
                self._busy.add(idle[-1])
                return idle.pop(), True
        return self._fresh(target), False

    def _fresh(self, target: Target) -> _Connection:
        connection = _Connection(target, self._access)
        with self._lock:
            if self._stopped:
                raise WireBroken("it is not wanted any more", fatal=True)
            self._busy.add(connection)
        return connection

    def _give_back(self, target: Target, connection: _Connection, *, reusable: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            idle = self._idle.setdefault(_key(target), [])
            if reusable and connection.open and len(idle) < _IDLE_PER_HOST:
                idle.append(connection)
                return
        connection.close()


class _Response(http.client.HTTPResponse):
    """An answer that begins: http.client reads "100 Continue" for as long as it comes, and every one resets the timeout."""

    _heads = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._heads += 1
        if self._heads > _HEADS_AT_MOST:
            raise http.client.HTTPException("it does not begin to answer")
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # http.client's own step, not in typeshed
        return found


class _Connection(http.client.HTTPConnection):
    """To the addresses that the policy allows, and encrypted for https."""

    response_class = _Response

    def __init__(self, target: Target, access: RemoteAccess) -> None:
        super().__init__(target.host, target.port, timeout=access.answer_timeout_s, blocksize=_PART_BYTES)
        self._target, self._access = target, access

    @property
    def open(self) -> bool:
        return self.sock is not None

    def connect(self) -> None:
        access = self._access
        self.sock = connect(
            self._target, access.policy, timeout_s=access.connect_timeout_s, tls=access.tls, look_up=access.look_up
        )
        self.sock.settimeout(access.answer_timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def break_off(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def exchange(
        self, method: str, target: Target, headers: Mapping[str, str], body: IO[bytes] | bytes | None, size: int
    ) -> Answer:
        sent = {"Host": target.authority, "Accept-Encoding": "identity", **headers}
        if body is not None or method in ("POST", "PUT", "PATCH"):
            sent["Content-Length"] = str(size)
        with _told():
            try:
                self.request(method, target.path, body=body, headers=sent)
            except (BrokenPipeError, ConnectionResetError):
                # Who refuses a request may answer, and close, before it has read all of it.
                if self.sock is None:
                    raise
            return Answer(self.getresponse(), target.url)


def _key(target: Target) -> str:
    return f"{target.scheme}://{target.authority}"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What went wrong with a connection, as WireBroken."""
    try:
        yield
    except TimeoutError:
        raise WireBroken("it did not answer in time") from None
    except socket.gaierror as problem:
        raise WireBroken(f"its name cannot be looked up ({problem.strerror})") from problem
    except (http.client.RemoteDisconnected, http.client.IncompleteRead):
        raise WireBroken("it closed the connection") from None
    except http.client.HTTPException as problem:
        # Not its words: they may quote what was sent.
        raise WireBroken(f"what answers there does not speak HTTP ({type(problem).__name__})") from None
    except OSError as problem:
        said = getattr(problem, "verify_message", None) or problem.strerror or type(problem).__name__
        # ssl is loaded if it is its error; otherwise it need not be.
        of_tls = type(problem).__module__ == "ssl"
        fatal = type(problem).__name__ == "SSLCertVerificationError"
        raise WireBroken(f"no encrypted connection ({said})" if of_tls else str(said), fatal=fatal) from problem


class FilePart:
    """Bytes ``start`` to ``end`` of a file, as the body of one request; the file is open while it is read."""

    def __init__(self, path: Path, start: int, end: int) -> None:
        self._path, self._at, self._end = path, start, end

    def read(self, most: int = -1) -> bytes:
        left = self._end - self._at
        wanted = min(_PART_BYTES, left if most < 0 else min(most, left))
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read(wanted)
        self._at += len(data)
        return data
