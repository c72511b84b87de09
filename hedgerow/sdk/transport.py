"""HTTP to one workspace: JSON both ways, errors raised as ApiError, files and events streamed. Knows no nouns."""

from __future__ import annotations

import secrets
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import msgspec

from hedgerow import __version__
from hedgerow.backoff import Backoff
from hedgerow.contracts.names import ENV_TOKEN, HEADER_IDEMPOTENCY, HEADER_METHOD_STATUS
from hedgerow.contracts.work import Problem, ProblemAnswer
from hedgerow.errors import InvalidDocument, InvalidSetting
from hedgerow.sdk.errors import AnswerCutOff, ApiError, EmptyFilter, ServerUnreachable

T = TypeVar("T")
CHUNK_BYTES = 1 << 20
OCTETS = "application/octet-stream"
# A server that is started again is back within seconds; one that is full stays so longer than a caller wants to wait.
_RETRY = Backoff(first_s=0.1, cap_s=2.0)
# How much of an address an error shows.
_SHOWN_CHARS = 120
_MOST_LOSSES, _MOST_OVERLOADS = 8, 4
Query = Mapping[str, str | int | bool | Sequence[str] | None]


class Frame(NamedTuple):
    """One server-sent event: its kind, the id to go on after, and its data (one line of JSON)."""

    event: str
    last_id: str
    data: bytes


class _RegistryProblem(msgspec.Struct, frozen=True):
    code: str
    message: str = ""
    detail: str = ""


class _RegistryAnswer(msgspec.Struct, frozen=True):
    errors: list[_RegistryProblem]


class Transport:
    """Talks to ``base_url`` (over the Unix socket ``socket`` when given) with a bearer token.

    Raises InvalidSetting for a URL or a token that no request can carry.
    """

    def __init__(self, base_url: str, token: str | None, *, socket: Path | None = None, timeout_s: float = 60.0) -> None:
        _check(base_url, token)
        self.base_url = base_url.rstrip("/")
        self.token = token
        self._pause = threading.Event()
        self._where = str(socket) if socket else self.base_url
        self._http = httpx.Client(
            base_url=self.base_url,
            transport=httpx.HTTPTransport(uds=str(socket) if socket else None, retries=1, verify=_trust(self.base_url, socket)),
            headers={"user-agent": f"hedgerow/{__version__}"} | ({"authorization": f"Bearer {token}"} if token else {}),
            timeout=httpx.Timeout(timeout_s, connect=5.0),
        )

    def call(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        body: msgspec.Struct | None = None,
        query: Query | None = None,
        if_match: str | None = None,
        timeout_s: float | None = None,
    ) -> T:
        """One request, one answer decoded as ``kind``. Raises ApiError, ServerUnreachable; InvalidDocument for a bad ``body``.

        ``if_match`` is the ETag (without quotes) that the record must still have; otherwise ``precondition_failed``.

        A POST carries an Idempotency-Key: when the connection is lost or the server is overloaded it is sent again for some
        seconds, and done once. ``timeout_s`` is for answers that take long.
        """
        content = None if body is None else _encoded(body)
        headers = {"content-type": "application/json"} if body is not None else {}
        if if_match is not None:
            headers["if-match"] = f'"{if_match}"'
        how: dict[str, Any] = {"content": content, "headers": headers, "params": _given(query)}
        if timeout_s is not None:
            how["timeout"] = httpx.Timeout(self._http.timeout.connect, read=timeout_s)
        response = self._send_once(path, **how) if method == "POST" else self._send(method, path, **how)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.MsgspecError:
            raise _foreign(response) from None

    def delete(self, path: str, *, query: Query | None = None) -> None:
        """Raises ApiError (for example ``in_use``)."""
        self._send("DELETE", path, params=_given(query))

    def exists(self, path: str) -> bool:
        """Whether HEAD answers 200."""
        return self._request("HEAD", path).status_code == 200

    def send(
        self, method: str, path: str, content: Iterable[bytes], size_bytes: int, kind: type[T], *, media_type: str = OCTETS
    ) -> T:
        """Send ``size_bytes`` of content as it comes, without holding it in memory. What ``content`` raises passes through."""
        headers = {"content-length": str(size_bytes), "content-type": media_type}
        response = self._send(method, path, content=iter(content), headers=headers)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.MsgspecError:
            raise _foreign(response) from None

    def download_range(self, path: str, start: int, end: int, etag: str) -> Iterator[bytes]:
        """GET bytes ``start`` to ``end`` (exclusive) of a file that is ``etag`` (without quotes).

        Raises ApiError (``foreign_answer`` when the server sends another part), ServerUnreachable.
        """
        headers = {"range": f"bytes={start}-{end - 1}", "if-range": f'"{etag}"', "accept-encoding": "identity"}
        try:
            with self._http.stream("GET", path, headers=headers) as response:
                if response.is_error:
                    response.read()
                    raise _problem(response)
                if not (response.headers.get("content-range", "").startswith(f"bytes {start}-{end - 1}/")):
                    raise _foreign(response)
                yield from response.iter_raw(CHUNK_BYTES)
        except httpx.TransportError as problem:
            raise ServerUnreachable(where=self._where, problem=str(problem) or type(problem).__name__) from problem

    def download(self, path: str, *, read_timeout_s: float | None = None) -> Iterator[bytes]:
        """GET a file in chunks; ``read_timeout_s`` is for answers that take long to begin."""
        timeout = self._http.timeout if read_timeout_s is None else httpx.Timeout(self._http.timeout.connect, read=read_timeout_s)
        try:
            with self._http.stream("GET", path, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    raise _problem(response)
                yield from response.iter_bytes(CHUNK_BYTES)
        except httpx.TransportError as problem:
            raise ServerUnreachable(where=self._where, problem=problem) from problem

    def stream_post(
        self, path: str, body: msgspec.Struct, *, query: Query | None = None, timeout_s: float
    ) -> tuple[str | None, Iterator[bytes]]:
        """POST, and the answer as it comes, with the method's status from its header. ``timeout_s`` is the longest silence.

        Raises ApiError, ServerUnreachable; AnswerCutOff while reading.
        """
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        timeout = httpx.Timeout(self._http.timeout.connect, read=timeout_s)
        request = self._http.build_request(
            "POST", path, content=_encoded(body), headers=headers, params=_given(query), timeout=timeout
        )
        try:
            response = self._http.send(request, stream=True)
        except httpx.TransportError as problem:
            raise ServerUnreachable(where=self._where, problem=str(problem) or type(problem).__name__) from problem
        if response.is_error:
            response.read()
            response.close()
            raise _problem(response)
        return response.headers.get(HEADER_METHOD_STATUS), self._chunks(response)

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_raw()
        except httpx.TransportError as problem:
            raise AnswerCutOff(where=self._where, problem=str(problem) or type(problem).__name__) from problem
        finally:
            response.close()

    def events(self, path: str, after: int, timeout_s: float | None) -> Iterator[tuple[int, bytes]]:
        """Server-sent events after number ``after``: (number, data). Ends when the server closes the stream."""
        for frame in self.frames(path, str(after), timeout_s):
            if frame.data:
                yield int(frame.last_id), frame.data

    def frames(self, path: str, last_id: str, timeout_s: float | None, query: Query | None = None) -> Iterator[Frame]:
        """Server-sent events after the one with the id ``last_id`` (``""`` for none). Ends when the server closes the stream.

        A frame without data only says where the stream is. ``timeout_s`` is the longest silence.
        """
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
        timeout = httpx.Timeout(30.0, read=timeout_s)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout, params=_given(query)) as response:
                if response.is_error:
                    response.read()
                    raise _problem(response)
                yield from _frames(response.iter_raw(), last_id)
        except httpx.TransportError as problem:
            raise ServerUnreachable(where=self._where, problem=str(problem) or type(problem).__name__) from problem

    def hurry(self, timeout_s: float) -> None:
        """From now on no answer may take longer than ``timeout_s`` to begin: for what is worthless when it is late."""
        self._http.timeout = httpx.Timeout(timeout_s)

    def close(self) -> None:
        self._http.close()

    def _send(self, method: str, path: str, **how: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own keyword arguments
        return _checked(self._request(method, path, **how))

    def _send_once(self, path: str, **how: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own keyword arguments
        how["headers"] = how["headers"] | {HEADER_IDEMPOTENCY: secrets.token_urlsafe(24)}
        failures, overloads = 0, 0
        while True:
            try:
                response = self._http.request("POST", path, **how)
            except httpx.TimeoutException as problem:
                raise ServerUnreachable(where=self._where, problem=str(problem) or "no answer in time") from problem
            except httpx.TransportError as problem:
                # Where nothing has listened from the start, the caller hears it at once.
                if failures == _MOST_LOSSES or (failures == 0 and isinstance(problem, httpx.ConnectError)):
                    raise ServerUnreachable(where=self._where, problem=str(problem) or type(problem).__name__) from problem
            else:
                overloads += response.status_code == 503
                if response.status_code != 503 or overloads > _MOST_OVERLOADS:
                    return _checked(response)
            failures += 1
            self._pause.wait(_RETRY.delay_s(failures, secrets.SystemRandom().random))

    def _request(self, method: str, path: str, **how: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own keyword arguments
        try:
            return self._http.request(method, path, **how)
        except httpx.TransportError as problem:
            raise ServerUnreachable(where=self._where, problem=str(problem) or type(problem).__name__) from problem


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise _problem(response)
    return response


def _frames(chunks: Iterable[bytes], last_id: str) -> Iterator[Frame]:
    """By the rules of server-sent events; only LF ends a line here, for text may hold every other kind of line end."""
    name, data, rest, news = "", b"", b"", False
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"id":
                last_id, news = value.decode(), True
            elif field == b"event":
                name = value.decode()
            elif field == b"data":
                data, news = value, True
            elif not line and news:
                yield Frame(name, last_id, data)
                name, data, news = "", b"", False


def _given(query: Query | None) -> dict[str, str | int | bool | Sequence[str]]:
    """What is asked for, without what is not said. Raises EmptyFilter."""
    given = {name: value for name, value in (query or {}).items() if value is not None}
    for name, value in given.items():
        # A variable that was not set, in a script: the answer to it must not be the whole list.
        if value == "" or (isinstance(value, Sequence) and "" in value and not isinstance(value, str)):
            raise EmptyFilter(name=name)
    return given


def _trust(base_url: str, socket: Path | None) -> ssl.SSLContext | bool:
    """Whose certificates are believed: the usual authorities', whose list takes longer to read than most calls take.

    Where nothing is encrypted it is not read, and nobody is believed.
    """
    if socket is None and not base_url.lower().startswith("http://"):
        return True
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


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


def _problem(response: httpx.Response) -> ApiError:
    try:
        problem = msgspec.json.decode(response.content, type=ProblemAnswer).error
    except msgspec.MsgspecError:
        return _registry_problem(response)
    return ApiError(problem, response.status_code)


def _registry_problem(response: httpx.Response) -> ApiError:
    """Below ``/v2/`` the OCI specification prescribes how errors look."""
    try:
        found = msgspec.json.decode(response.content, type=_RegistryAnswer).errors[0]
    except (msgspec.MsgspecError, IndexError):
        return _foreign(response)
    return ApiError(Problem(code=found.code.lower(), message=found.message, remedy=found.detail), response.status_code)


def _foreign(response: httpx.Response) -> ApiError:
    path = response.request.url.path
    shown = path if len(path) <= _SHOWN_CHARS else f"{path[: _SHOWN_CHARS - 3]}..."
    if response.status_code == httpx.codes.REQUEST_URI_TOO_LONG:
        text, remedy = f"The name or filter in {shown} is longer than any that there is", "Shorten it."
        return ApiError(Problem(code="address_too_long", message=text, remedy=remedy), response.status_code)
    text = f"{shown} gave an answer ({response.status_code}) that no Hedgerow of this version would"
    problem = Problem(code="foreign_answer", message=text, remedy="Check the address: another program listens there.")
    return ApiError(problem, response.status_code)
