"""Heads of requests that were parsed before, or whose every line was. Pure.

What llhttp and our limits make of a head depends on nothing but its bytes, and callers on kept-alive connections send the same
lines again and again: whoever has the bytes already has the request. An id of a request is another one each time; where it is
letters, digits and dashes there is nothing to parse in it.

Only heads of whole, small, ordinary requests are kept. The connections of one door share them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from runtime.exchange import Request
from runtime.front.limits import HEADER_COUNT, SMALL_BODY_BYTES

_END = b"\r\n\r\n"
_MOST = 1024
_MOST_BYTES = 2048
# What makes a request more than a head and a body; and what is another with each request.
_NOT_KEPT = frozenset({"connection", "expect", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"})
_IDS = frozenset({"x-request-id", "x-ms-request-id", "x-ms-client-request-id", "traceid", "traceparent"})


class Head(msgspec.Struct, frozen=True, gc=False):
    """What a head says. The connection goes on after its request."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body_bytes: int


class KnownHeads:
    """At most a thousand heads and lines of heads; when they are too many, all are forgotten and learned anew."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._heads: dict[bytes, Head] = {}
        # First lines, as heads without headers; header lines; and names of ids with their colon.
        self._targets: dict[bytes, Head] = {}
        self._lines: dict[bytes, tuple[str, str]] = {}
        self._ids: dict[bytes, str] = {}

    @property
    def count(self) -> int:
        return len(self._heads) + len(self._targets) + len(self._lines) + len(self._ids)

    def request(self, data: bytes, caller: str) -> Request | None:
        """``data`` as one whole request; None when it is something else, or of a head that is not known."""
        end = data.find(_END) + 4
        head = self._heads.get(data[:end])
        if head is None:
            head = self._put_together(data[: end - 4]) if 4 < end <= _MOST_BYTES else None
        if head is None or len(data) != end + head.body_bytes:
            return None
        return Request(head.method, head.path, head.query, head.headers, data[end:], caller)

    def learn(self, data: bytes, request: Request) -> None:
        """``data`` was parsed as ``request``, with nothing before it and nothing behind, over a connection that goes on."""
        end = data.find(_END) + 4
        size, headers = len(request.body), request.headers
        if end > _MOST_BYTES or size > SMALL_BODY_BYTES or len(data) != end + size or data[end:] != request.body:
            return
        if not _NOT_KEPT.isdisjoint(headers) or headers.get("content-length", "0") != str(size):
            return
        first, *lines = data[: end - 4].split(b"\r\n")
        if len(lines) != len(headers):
            # A name that stands twice, or an empty line in front.
            return
        if self.count > _MOST:
            self._forget()
        self._targets[first] = Head(request.method, request.path, request.query, {}, 0)
        for line, (name, value) in zip(lines, headers.items(), strict=True):
            if name in _IDS:
                self._ids[line[: line.index(b":")]] = name
            else:
                self._lines[line] = (name, value)
        if _IDS.isdisjoint(headers):
            self._heads[data[:end]] = Head(request.method, request.path, request.query, headers, size)

    def _put_together(self, head: bytes) -> Head | None:
        first, *lines = head.split(b"\r\n")
        target = self._targets.get(first)
        if target is None or len(lines) > HEADER_COUNT:
            return None
        headers: dict[str, str] = {}
        for line in lines:
            found = self._lines.get(line) or self._id(line)
            if found is None:
                return None
            headers[found[0]] = found[1]
        size = int(headers.get("content-length", "0"))
        if len(headers) != len(lines) or size > SMALL_BODY_BYTES:
            # A name that stands twice.
            return None
        return Head(target.method, target.path, target.query, headers, size)

    def _id(self, line: bytes) -> tuple[str, str] | None:
        name, _, value = line.partition(b":")
        known, value = self._ids.get(name), value.lstrip(b" ")
        return (known, value.decode()) if known is not None and value.replace(b"-", b"").isalnum() else None
