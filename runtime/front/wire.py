"""Targets, and responses as bytes on the wire. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

from runtime.exchange import JSON_TYPE, Response

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_TYPE_LINES = {kind: f"content-type: {kind}\r\n" for kind in (JSON_TYPE, "application/octet-stream")}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
# How a head ends: what becomes of the connection. Callers of HTTP/1.0 that keep it want to hear so.
KEEP: Final = "\r\n"
KEEP_OLD: Final = "connection: keep-alive\r\n\r\n"
CLOSE: Final = "connection: close\r\n\r\n"
WITHOUT_BODY = (204, 304)


def path_and_query(target: bytes) -> tuple[str, str]:
    """``/a%20b?q=%20`` -> ``/a b`` and ``q=%20``; of an absolute target the part behind its host."""
    path, _, query = target.decode("latin-1").partition("?")
    if not path.startswith("/") and (start := path.find("://")) > 0:
        slash = path.find("/", start + 3)
        path = path[slash:] if slash > 0 else "/"
    return (unquote(path) if "%" in path else path), query


def whole_head(response: Response, ending: str) -> bytes:
    """The head of an answer whose body follows at once."""
    status = response.status
    if status == 200 and not response.headers and not response.repeated and (kind := _TYPE_LINES.get(response.content_type)):
        # What scored requests are answered with; "lines" hold no line end but their own.
        text = f"HTTP/1.1 200 OK\r\ncontent-length: {len(response.body)}\r\n{response.lines}{kind}{ending}"
        return text.encode("latin-1", "replace")
    return _head(response, "" if status in WITHOUT_BODY else f"content-length: {len(response.body)}\r\n", ending)


def chunked_head(response: Response, *, ending: str) -> bytes:
    """The head of an answer that comes in chunks."""
    return _head(response, "transfer-encoding: chunked\r\n", ending)


def unbounded_head(response: Response) -> bytes:
    """The head of an answer that ends with its connection, for callers of HTTP/1.0."""
    return _head(response, "", CLOSE)


def chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def _head(response: Response, framing: str, ending: str) -> bytes:
    line = _STATUS_LINES.get(response.status) or f"HTTP/1.1 {response.status} Unknown\r\n"
    return f"{line}{framing}{_lines(response)}{response.lines}{ending}".encode("latin-1", "replace")


def _lines(response: Response) -> str:
    fields = [f"{name}: {value}\r\n" for name, value in response.headers.items()]
    if response.content_type:
        fields.append(f"content-type: {response.content_type}\r\n")
    if response.repeated:
        fields += [f"{name}: {value}\r\n" for name, value in response.repeated]
    lines = "".join(fields)
    if lines.count("\n") != len(fields) or lines.count("\r") != len(fields):
        # A line end inside a value would begin a header, or an answer, of its own.
        return "".join([field for field in fields if field.count("\n") == 1 and field.count("\r") == 1])
    return lines
