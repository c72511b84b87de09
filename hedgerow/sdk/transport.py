"""HTTP to one workspace: JSON both ways, errors raised as ApiError, files and events streamed. Knows no nouns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx
import msgspec

from hedgerow.contracts.names import ENV_TOKEN
from hedgerow.contracts.work import Problem, ProblemAnswer
from hedgerow.errors import InvalidDocument, InvalidSetting
from hedgerow.sdk.errors import ApiError, ServerUnreachable

T = TypeVar("T")
CHUNK_BYTES = 1 << 20
Query = Mapping[str, str | int | bool | None]


class Transport:
    """Talks to ``base_url`` (over the Unix socket ``socket`` when given) with a bearer token.

    Raises InvalidSetting for a URL or a token that no request can carry.
    """

    def __init__(self, base_url: str, token: str | None, *, socket: Path | None = None, timeout_s: float = 60.0) -> None:
        _check(base_url, token)
        self.base_url = base_url.rstrip("/")
        self.token = token
        self._where = str(socket) if socket else self.base_url
        self._http = httpx.Client(
            base_url=self.base_url,
            transport=httpx.HTTPTransport(uds=str(socket) if socket else None, retries=1),
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(timeout_s, connect=5.0),
        )

    def call(self, method: str, path: str, kind: type[T], *, body: msgspec.Struct | None = None, query: Query | None = None) -> T:
        """One request, one answer decoded as ``kind``. Raises ApiError, ServerUnreachable; InvalidDocument for a bad ``body``."""
        content = None if body is None else _encoded(body)
        headers = {"content-type": "application/json"} if body is not None else {}
        response = self._send(method, path, content=content, headers=headers, params=_given(query))
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.MsgspecError:
            raise _foreign(response) from None

    def delete(self, path: str) -> None:
        """Raises ApiError (for example ``in_use``)."""
        self._send("DELETE", path)

    def exists(self, path: str) -> bool:
        """Whether HEAD answers 200."""
        return self._request("HEAD", path).status_code == 200

    def upload(self, path: str, file: BinaryIO, size_bytes: int) -> None:
        """PUT the first ``size_bytes`` of a file without holding it in memory; a file that shrank meanwhile raises ApiError."""
        headers = {"content-length": str(size_bytes), "content-type": "application/octet-stream"}
        self._send("PUT", path, content=_chunks(file, size_bytes), headers=headers)

    def download(self, path: str) -> Iterator[bytes]:
        """GET a file in chunks."""
        try:
            with self._http.stream("GET", path) as response:
                if response.is_error:
                    response.read()
                    raise _problem(response)
                yield from response.iter_bytes(CHUNK_BYTES)
        except httpx.TransportError as problem:
            raise ServerUnreachable(where=self._where, problem=problem) from problem

    def events(self, path: str, after: int, timeout_s: float | None) -> Iterator[tuple[int, bytes]]:
        """Server-sent events after number ``after``: (number, data). Ends when the server closes the stream."""
        headers = {"last-event-id": str(after), "accept": "text/event-stream"}
        try:
            with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(30.0, read=timeout_s)) as response:
                if response.is_error:
                    response.read()
                    raise _problem(response)
                number, data = after, b""
                for line in response.iter_lines():
                    if line.startswith("id:"):
                        number = int(line[3:])
                    elif line.startswith("data:"):
                        data = line[5:].strip().encode()
                    elif not line and data:
                        yield number, data
                        data = b""
        except httpx.TransportError as problem:
            raise ServerUnreachable(where=self._where, problem=problem) from problem

    def close(self) -> None:
        self._http.close()

    def _send(self, method: str, path: str, **how: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own keyword arguments
        response = self._request(method, path, **how)
        if response.is_error:
            raise _problem(response)
        return response

    def _request(self, method: str, path: str, **how: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own keyword arguments
        try:
            return self._http.request(method, path, **how)
        except httpx.TransportError as problem:
            raise ServerUnreachable(where=self._where, problem=str(problem) or type(problem).__name__) from problem


def _given(query: Query | None) -> dict[str, str | int | bool]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def _check(base_url: str, token: str | None) -> None:
    try:
        usable = bool(httpx.URL(base_url).host)
    except (httpx.InvalidURL, UnicodeError):
        usable = False
    if not usable:
        raise InvalidSetting(
            name="workspace", value=base_url[:200], problem="it is no address", source="the URL of the workspace"
        )
    if token is not None and not (token.isascii() and token.isprintable()):
        problem = "it has characters that a header cannot carry"
        raise InvalidSetting(name="token", value="***", problem=problem, source=f"the token ({ENV_TOKEN})")


def _encoded(body: msgspec.Struct) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as problem:
        text = f"{problem.object[problem.start : problem.end]!r} is no text"
        raise InvalidDocument(document=type(body).__name__, problem=text) from None


def _chunks(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    """Exactly as many bytes as were announced: what a growing log appends later is not part of what was hashed."""
    left = size_bytes
    while left:
        chunk = file.read(min(CHUNK_BYTES, left))
        if not chunk:
            text = f"{getattr(file, 'name', 'A file')} became shorter while it was sent"
            problem = Problem(code="file_shrank", message=text, remedy="Send it again when nothing writes to it.")
            raise ApiError(problem, 0)
        left -= len(chunk)
        yield chunk


def _problem(response: httpx.Response) -> ApiError:
    try:
        problem = msgspec.json.decode(response.content, type=ProblemAnswer).error
    except msgspec.MsgspecError:
        return _foreign(response)
    return ApiError(problem, response.status_code)


def _foreign(response: httpx.Response) -> ApiError:
    text = f"{response.request.url.path} gave an answer ({response.status_code}) that no Hedgerow of this version would"
    problem = Problem(code="foreign_answer", message=text, remedy="Check the address: another program listens there.")
    return ApiError(problem, response.status_code)
