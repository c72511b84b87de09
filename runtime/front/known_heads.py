"""Heads of requests that were parsed before, byte by byte the same. Pure.

What llhttp and our limits make of a head depends on nothing but its bytes, and callers on kept-alive connections send the same
one again and again: whoever has the bytes already has the request. Only heads of whole, small, ordinary requests are kept; the
connections of one door share them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from runtime.exchange import Request
from runtime.front.limits import SMALL_BODY_BYTES

_END = b"\r\n\r\n"
_MOST = 1024
_MOST_BYTES = 2048
# What makes a request more than a head and a body, or each head another.
_NOT_KEPT = frozenset(
    {
        "connection",
        "expect",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
        "x-ms-request-id",
        "x-ms-client-request-id",
        "traceid",
        "traceparent",
        "tracestate",
    }
)


class Head(msgspec.Struct, frozen=True, gc=False):
    """What a head says. The connection goes on after its request."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body_bytes: int


class KnownHeads:
    """At most some thousand heads; when they are too many, all are forgotten and learned anew."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    @property
    def count(self) -> int:
        return len(self._heads)

    def request(self, data: bytes, caller: str) -> Request | None:
        """``data`` as one whole request; None when it is something else, or of a head that is not known."""
        end = data.find(_END) + 4
        head = self._heads.get(data[:end])
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
        if len(self._heads) >= _MOST:
            self._heads.clear()
        self._heads[data[:end]] = Head(request.method, request.path, request.query, headers, size)
