"""The words of ``Idempotency-Key``: a request that carries one is done once, and answered the same way each time.

:func:`registry.server.http.write_once` uses this inside its transaction; ``registry/store/idempotency.py`` keeps the answers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from flask import Request, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import TokenInfo
from hedgerow.contracts.api_fleet import EnrolledDevice
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.enrollment import EnrolledByKey, EnrollmentKey
from hedgerow.contracts.events import Webhook
from hedgerow.contracts.names import HEADER_IDEMPOTENCY, HEADER_REPLAYED
from hedgerow.contracts.signing import PrivateSigningKey
from registry.server.context import Caller, ServerContext
from registry.server.errors import AlreadyDone, IdempotencyKeyRefused, IdempotencyKeyReused, InvalidArgument
from registry.store import idempotency
from registry.store.idempotency import KeptAnswer

# Visible ASCII only.
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_REPEATED_HEADERS = ("ETag", "Location")
_HINT = "Send 1 to 255 visible ASCII characters, for example a random UUID."


def key_of(request: Request) -> str | None:
    """The request's key. Raises InvalidArgument."""
    key = request.headers.get(HEADER_IDEMPOTENCY)
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidArgument(name="Idempotency-Key", value=key[:80], hint=_HINT)
    return key


def check_taken(request: Request, handler: Callable[..., Any]) -> None:
    """Raises IdempotencyKeyRefused where a key would mean nothing: a promise that is not kept is worse than none."""
    if key_of(request) is not None and not takes_key(handler):
        raise IdempotencyKeyRefused(method=request.method, path=request.path[:200])


def takes_key(handler: Callable[..., Any]) -> bool:
    """Whether ``handler`` makes its change through ``write_once``, by which alone keys are honoured."""
    # Read from the code, before it runs: a handler cannot forget to say so, nor say so wrongly.
    code = getattr(inspect.unwrap(handler), "__code__", None)
    return code is not None and "write_once" in code.co_names


def holds_secret(document: object) -> bool:
    """Whether an answer with this document is given once and never kept."""
    if isinstance(document, EnrolledDevice | EnrolledByKey | PrivateSigningKey):
        return True
    return isinstance(document, TokenInfo | Webhook | EnrollmentKey) and document.secret is not None


def request_digest(request: Request, body_digest: str) -> str:
    """What makes two requests the same: method, address and body."""
    parts = (request.method, request.path, request.query_string.decode("latin-1"), body_digest)
    return digest_of("\n".join(parts).encode())


def run(
    here: ServerContext,
    connection: Connection,
    who: Caller,
    key: str,
    asked: str,
    action: Callable[[Connection], Response],
    secret_of: Callable[[], str | None],
) -> Response:
    """Do ``action`` and keep its answer, or answer what was kept. ``asked`` is the :func:`request_digest`; ``secret_of``
    names, after the action, the record whose secret the answer holds.

    Raises IdempotencyKeyReused, AlreadyDone, and what ``action`` raises.
    """
    found = idempotency.claim(connection, who.token_id, key, asked, here.clock.now())
    if found is None:
        response = action(connection)
        idempotency.keep(connection, who.token_id, key, _kept(response, secret_of()))
        return response
    if found.request_digest != asked:
        raise IdempotencyKeyReused(key=key)
    if found.answer.made is not None:
        raise AlreadyDone(made=found.answer.made)
    again = Response(found.answer.body, found.answer.status, found.answer.headers, mimetype="application/json")
    again.headers[HEADER_REPLAYED] = "true"
    return again


def _kept(response: Response, made: str | None) -> KeptAnswer:
    if made is not None:
        return KeptAnswer(status=response.status_code, made=made)
    headers = {name: response.headers[name] for name in _REPEATED_HEADERS if name in response.headers}
    return KeptAnswer(status=response.status_code, body=response.get_data(as_text=True), headers=headers)
