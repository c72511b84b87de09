"""The bytes of a request as different callers write them; wrk and the soak's callers send them as they are."""

from __future__ import annotations

from typing import Literal

from loadtests.scoring.models import Sent

HeadKind = Literal["same", "ids", "proxy", "requests", "go"]
# Where wrk writes a number that no other request has, twelve hexadecimal digits; see wrk.py.
NUMBER = "@@NUMBER@@!!"

WORDS: dict[HeadKind, str] = {
    "same": "the same heads",
    "ids": "own ids",  # x-ms-request-id and traceparent, different in every request
    "proxy": "behind HAProxy",  # lower-case names, x-forwarded-for
    "requests": "python-requests",
    "go": "Go net/http",
}


def request(kind: HeadKind, path: str, port: int, sent: Sent, number: int) -> bytes:
    """A whole POST request; ``number`` tells callers behind a proxy apart."""
    host, length = ("Host", f"127.0.0.1:{port}"), ("Content-Length", str(len(sent.body)))
    headers = _HEADS[kind](host, length, list(sent.headers), number)
    return _head("POST", path, headers) + sent.body


def get(path: str, port: int) -> bytes:
    """A whole GET request."""
    return _head("GET", path, [("Host", f"127.0.0.1:{port}")])


Header = tuple[str, str]


def _head(method: str, path: str, headers: list[Header]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("ascii")


def _same(host: Header, length: Header, own: list[Header], number: int) -> list[Header]:
    return [*own, host, length]


def _ids(host: Header, length: Header, own: list[Header], number: int) -> list[Header]:
    ids = [
        ("x-ms-request-id", f"5f0c1b9e-8c1d-4b7e-9d34-{NUMBER}"),
        ("traceparent", f"00-4bf92f3577b34da6a3ce{NUMBER}-00f0{NUMBER}-01"),
    ]
    return [*own, *ids, host, length]


def _requests(host: Header, length: Header, own: list[Header], number: int) -> list[Header]:
    agent = [("User-Agent", "python-requests/2.32.5"), ("Accept-Encoding", "gzip, deflate"), ("Accept", "*/*")]
    return [host, *agent, ("Connection", "keep-alive"), length, *_capitals(own)]


def _go(host: Header, length: Header, own: list[Header], number: int) -> list[Header]:
    return [host, ("User-Agent", "Go-http-client/1.1"), length, *_capitals(own), ("Accept-Encoding", "gzip")]


def _proxy(host: Header, length: Header, own: list[Header], number: int) -> list[Header]:
    """HAProxy with ``option forwardfor`` before python-requests: it writes all names small and keeps Connection to itself."""
    far = [("x-forwarded-proto", "https"), ("x-forwarded-for", f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")]
    passed = [header for header in _requests(host, length, own, number) if header[0] != "Connection"]
    return [*((name.lower(), value) for name, value in passed), *far]


def _capitals(headers: list[Header]) -> list[Header]:
    return [("-".join(part.capitalize() for part in name.split("-")), value) for name, value in headers]


_HEADS = {"same": _same, "ids": _ids, "proxy": _proxy, "requests": _requests, "go": _go}
