"""Responses as bytes on the wire. Pure."""

from __future__ import annotations

from http import HTTPStatus

from runtime.exchange import Response

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def whole(response: Response, *, close: bool, with_body: bool = True) -> bytes:
    """Head and body. A HEAD request gets the length of the body that it does not get."""
    length = "" if response.status == 204 else f"content-length: {len(response.body)}\r\n"
    head = _head(response, length, close=close)
    return head + response.body if with_body else head


def chunked_head(response: Response, *, close: bool) -> bytes:
    """The head of an answer that comes in chunks."""
    return _head(response, "transfer-encoding: chunked\r\n", close=close)


def unbounded_head(response: Response) -> bytes:
    """The head of an answer that ends with its connection, for callers of HTTP/1.0."""
    return _head(response, "", close=True)


def chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def _head(response: Response, framing: str, *, close: bool) -> bytes:
    line = _STATUS_LINES.get(response.status) or f"HTTP/1.1 {response.status} Unknown\r\n"
    kind = f"content-type: {response.content_type}\r\n" if response.content_type else ""
    lines = "".join([f"{name}: {value}\r\n" for name, value in response.headers.items()])
    if response.repeated:
        lines += "".join([f"{name}: {value}\r\n" for name, value in response.repeated])
    ending = "connection: close\r\n\r\n" if close else "\r\n"
    return f"{line}{kind}{framing}{lines}{ending}".encode("latin-1", "replace")
