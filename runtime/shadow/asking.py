"""Asks a shadow what its module was asked, over one connection that is kept; the shadow may come, go and change its port."""

from __future__ import annotations

import http.client
import re
import select
import ssl
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from urllib.parse import quote, urlsplit

import msgspec

from hedgerow.contracts.shadow import TAPPED_BYTES_MAX, TapHead
from runtime.shadow.comparing import HEADER_LENGTH, Answer

TIMEOUT_S = 30.0
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?/infer/?")
# Answers may be larger than the module's; beyond this they are not even read.
_ANSWER_BYTES_MAX = 2 * TAPPED_BYTES_MAX
# Overload is an answer: it has less of the machine than its module has.
_BUSY = (429, 503)


class ShadowAway(Exception):
    """It could not be asked: it does not run, is not ready, or is busy. Nothing is known of its answer."""


class ShadowBroke(Exception):
    """It was asked and did not answer: it died over the request, or took too long."""


class _ReadyFile(msgspec.Struct):
    address: str


class _Model(msgspec.Struct):
    name: str


@dataclass(frozen=True)
class Told:
    """The shadow's answer, and how long it took."""

    answer: Answer
    seconds: float


class Shadow:
    """``ready_file`` is what its server writes once it listens: it names the address."""

    def __init__(self, ready_file: Path) -> None:
        self._ready_file = ready_file
        self._address = ""
        self._connection: http.client.HTTPConnection | None = None
        self._models: frozenset[str] = frozenset()

    def ask(self, head: TapHead, body: bytes) -> Told:
        """Raises ShadowAway, ShadowBroke."""
        connection = self._connected(head.headers.get("authorization"))
        path = quote(self._path(head), safe="/:@!$&'()*+,;=~-._")
        target = f"{path}?{head.query}" if head.query else path
        began = perf_counter()
        try:
            connection.request(head.method, target, body=body or None, headers=head.headers)
            response = connection.getresponse()
            content = response.read(_ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as problem:
            self.close()
            raise ShadowBroke(f"it did not answer: {str(problem) or type(problem).__name__}") from None
        took_s = perf_counter() - began
        if response.status in _BUSY:
            raise ShadowAway("it is busy or not ready")
        if len(content) > _ANSWER_BYTES_MAX:
            self.close()
            raise ShadowBroke(f"its answer has more than {_ANSWER_BYTES_MAX} bytes")
        length = response.getheader(HEADER_LENGTH, "")
        return Told(Answer(response.status, content, int(length) if length.isdecimal() and len(length) < 16 else None), took_s)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _path(self, head: TapHead) -> str:
        """The same path; the only model of a shadow is meant whatever its name and version are."""
        named = _INFER.fullmatch(head.path)
        if named is None:
            return head.path
        name = named[1] if named[1] in self._models or len(self._models) != 1 else next(iter(self._models))
        return f"/v2/models/{name}/infer"

    def _connected(self, authorization: str | None) -> http.client.HTTPConnection:
        try:
            address = msgspec.json.decode(self._ready_file.read_bytes(), type=_ReadyFile).address
        except (OSError, msgspec.MsgspecError):
            self.close()
            raise ShadowAway("it is not ready") from None
        if self._connection is not None and address == self._address and _usable(self._connection):
            return self._connection
        self.close()
        connection = _connection(address)
        try:
            connection.connect()
            self._models = _models(connection, authorization)
        except (OSError, http.client.HTTPException, msgspec.MsgspecError) as problem:
            connection.close()
            raise ShadowAway(f"it cannot be reached: {str(problem) or type(problem).__name__}") from None
        self._address, self._connection = address, connection
        return connection


def _usable(connection: http.client.HTTPConnection) -> bool:
    """False once the server has closed it (it keeps none for ever): that is no failure of the next request."""
    return connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]


def _connection(address: str) -> http.client.HTTPConnection:
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme == "https":
        # Its certificate is for the device's name; it is asked on loopback, where its own ready-file says that it listens.
        unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S, context=unchecked)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)


def _models(connection: http.client.HTTPConnection, authorization: str | None) -> frozenset[str]:
    """Names of the models that it serves; empty where it does not tell."""
    key = {} if authorization is None else {"authorization": authorization}
    connection.request("POST", "/v2/repository/index", body=b"{}", headers={"content-type": "application/json", **key})
    response = connection.getresponse()
    content = response.read(_ANSWER_BYTES_MAX)
    if response.status != 200:
        return frozenset()
    return frozenset(model.name for model in msgspec.json.decode(content, type=list[_Model]))
