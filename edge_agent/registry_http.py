"""HTTP to the workspace's registry, as this device: ``/api/v1/devices/NAME/…`` with the device's own token.

A redirect is not followed: it would carry the token to another place. What a body may hold is the caller's to check.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.work import ProblemAnswer
from hedgerow.errors import HedgerowError

# Time without a single byte; there is no limit on the whole while bytes flow.
STALL_TIMEOUT_S = 30.0
REFUSAL_BYTES = 300
_PROBLEM_BYTES = 8192
# The caller's own error for what went wrong.
Failed = Callable[[str], HedgerowError]


class DeviceRegistry:
    """``token`` is asked for with every request, since it may change."""

    def __init__(self, config: DeviceConfig, token: Callable[[], str]) -> None:
        self.url = config.registry_url
        self._url = urlsplit(config.registry_url)
        self._of_device = f"{self._url.path.rstrip('/')}/api/v1/devices/{quote(config.name)}"
        self._token = token

    @contextmanager
    def answer(self, what: str, failed: Failed, document: msgspec.Struct | None = None) -> Iterator[http.client.HTTPResponse]:
        """The answer (2xx) to a GET, or to a POST of ``document``, to be read in here.

        Raises ``failed`` of the problem; that holds for OSError of what is done in here too.
        """
        connection, refused = connection_to(self._url), ""
        try:
            self._send(connection, what, document)
            # Closed by itself: a connection that the server ends no longer knows of it.
            with connection.getresponse() as answer:
                if answer.status // 100 == 2:
                    yield answer
                else:
                    refused = refusal(answer)
        except (OSError, http.client.HTTPException) as problem:
            raise failed(words_of(problem)) from problem
        finally:
            connection.close()
        if refused:
            raise failed(refused)

    def ask(self, what: str, failed: Failed, bytes_max: int, document: msgspec.Struct | None = None) -> bytes:
        """The body of the answer. Raises ``failed``, also when it has more than ``bytes_max``."""
        with self.answer(what, failed, document) as answer:
            body = answer.read(bytes_max + 1)
        if len(body) > bytes_max:
            raise failed(f"its answer is longer than {bytes_max} bytes")
        return body

    def _send(self, connection: http.client.HTTPConnection, what: str, document: msgspec.Struct | None) -> None:
        headers = {"Authorization": f"Bearer {self._token()}"}
        if document is None:
            connection.request("GET", f"{self._of_device}/{what}", headers=headers)
        else:
            headers["Content-Type"] = "application/json"
            connection.request("POST", f"{self._of_device}/{what}", encode(document), headers)


def connection_to(url: SplitResult, ca: Path | None = None, timeout_s: float = STALL_TIMEOUT_S) -> http.client.HTTPConnection:
    """A connection that is not open yet. ``ca``: PEM of the authority to trust, None: those of this machine."""
    host = url.hostname or "localhost"
    if url.scheme == "https":
        trusted = ssl.create_default_context(cafile=ca)
        return http.client.HTTPSConnection(host, url.port, timeout=timeout_s, context=trusted)
    return http.client.HTTPConnection(host, url.port, timeout=timeout_s)


def refusal(answer: http.client.HTTPResponse) -> str:
    """What an answer that is not the one wanted says: the registry's own words, or how somebody else's page begins."""
    body = answer.read(_PROBLEM_BYTES)
    try:
        text = decode(body, ProblemAnswer).error.message
    except HedgerowError:
        text = body.decode(errors="replace")
    text = text.strip()[:REFUSAL_BYTES]
    return f"it answered {answer.status} {text}".rstrip()


def words_of(problem: Exception) -> str:
    """Some exceptions have no text."""
    return str(problem) or type(problem).__name__
