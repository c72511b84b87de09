"""HTTP to a server that runs foreign code: nothing that it answers is too slow or too large for us."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from hedgerow.clock import Clock
from packager.errors import VerificationFailed

ANSWER_BYTES_MAX = 64 << 20
_SHOWN = 500


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status == httpx.codes.OK

    @property
    def shown(self) -> str:
        """The beginning of it, for messages."""
        return self.body[:_SHOWN].decode(errors="replace")


class NoReply(Exception):
    """Nothing, or nothing whole, was answered."""


class TimeUp(Exception):
    """The test may take no longer."""


class ScoringClient:
    """Requests until ``deadline_s`` of ``clock``; a context manager.

    At the deadline its connections are cut: an answer that never begins ("100 Continue", again and again) is read by httpx for
    as long as it comes.
    """

    def __init__(self, clock: Clock, deadline_s: float) -> None:
        self._clock, self._deadline_s = clock, deadline_s
        # No proxy and no .netrc; answers are taken as they are, so that none unfolds to gigabytes. A context that trusts nobody:
        # plain HTTP is all there is, and reading the machine's certificates takes longer than the rows of a small model.
        trusts_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.Client(trust_env=False, verify=trusts_nobody, headers={"Accept-Encoding": "identity"})
        self._sockets: list[socket.socket] = []
        self._scissors = threading.Timer(max(0.0, self.left_s), self._cut)
        self._scissors.daemon = True

    def __enter__(self) -> ScoringClient:
        self._scissors.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._scissors.cancel()
        self._http.close()

    @property
    def left_s(self) -> float:
        return self._deadline_s - self._clock.monotonic_s()

    def get(self, url: str) -> Reply:
        """Raises NoReply, TimeUp; VerificationFailed when the answer is too large."""
        return self._ask("GET", url, None, {})

    def post(self, url: str, body: bytes, content_type: str = "application/json") -> Reply:
        """As :meth:`get`."""
        return self._ask("POST", url, body, {"Content-Type": content_type})

    def _ask(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        self._check_time()
        found, wait_s, told = bytearray(), max(0.05, self.left_s), {"trace": self._note}
        try:
            with self._http.stream(method, url, content=body, headers=headers, timeout=wait_s, extensions=told) as answer:
                for chunk in answer.iter_raw():
                    found += chunk
                    # A drop a second keeps every single read alive.
                    self._check_time()
                    if len(found) > ANSWER_BYTES_MAX:
                        raise VerificationFailed(problem=f"an answer is larger than {ANSWER_BYTES_MAX} bytes")
                # An answer that we cut ourselves may look like a whole one.
                self._check_time()
                return Reply(answer.status_code, bytes(found))
        except httpx.TimeoutException:
            raise TimeUp from None
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            self._check_time()
            raise NoReply(str(problem) or type(problem).__name__) from problem

    def _note(self, step: str, facts: Mapping[str, Any]) -> None:
        """httpx tells each step of a request; of a connection that was made, remember its socket."""
        if step == "connection.connect_tcp.complete":
            self._sockets.append(facts["return_value"].get_extra_info("socket"))
            if self.left_s <= 0:
                self._cut()

    def _cut(self) -> None:
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _check_time(self) -> None:
        if self.left_s <= 0:
            raise TimeUp
