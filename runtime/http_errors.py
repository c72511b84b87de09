"""The only place that knows which HTTP status an error has, in both dialects: AML ``{"message"}`` and OIP ``{"error"}``."""

from __future__ import annotations

import json
import logging
from typing import Literal

from hedgerow.errors import (
    AccessError,
    Bug,
    ConflictError,
    HedgerowError,
    NotFoundError,
    ScriptError,
    UnavailableError,
    UserError,
)
from runtime.errors import (
    AmlContractText,
    BodyTooLarge,
    IdTooLong,
    NotJsonType,
    ScoringTimeout,
    ScriptProcessDied,
    UnknownEncoding,
)
from runtime.exchange import Response
from runtime.observing.metrics import Failure

_log = logging.getLogger("hedgerow.runtime")

Dialect = Literal["message", "error"]

# First match wins: single errors before their families.
_STATUSES: tuple[tuple[type[HedgerowError], int], ...] = (
    (BodyTooLarge, 413),
    (UnknownEncoding, 415),
    (NotJsonType, 415),
    (IdTooLong, 431),
    (NotFoundError, 404),
    (UserError, 400),
    (AccessError, 401),
    (ConflictError, 409),
    (UnavailableError, 503),
    # The router's code for a script that crashed (AKS).
    (ScriptProcessDied, 502),
    (ScriptError, 500),
    (Bug, 500),
)
_EXTRA_HEADERS: dict[int, dict[str, str]] = {401: {"www-authenticate": 'Bearer realm="hedgerow"'}, 503: {"retry-after": "1"}}
INTERNAL = "An unexpected internal error occurred. Check the logs for more info."


def status_of(problem: Exception, dialect: Dialect) -> int:
    """The AML contract fixes 500 for a scoring timeout; OIP fixes nothing, so there it is the gateway's 504."""
    if isinstance(problem, ScoringTimeout) and dialect == "error":
        return 504
    return next((status for kind, status in _STATUSES if isinstance(problem, kind)), 500)


def answer_error(problem: Exception, dialect: Dialect) -> Response:
    """The answer to a request that failed; what we did not foresee is logged with its traceback and told to nobody."""
    if not isinstance(problem, HedgerowError) or isinstance(problem, Bug):
        _log.error("a request failed inside Hedgerow", exc_info=problem)
        text = INTERNAL
    else:
        text = str(problem) if isinstance(problem, AmlContractText) else problem.sentence()
    status = status_of(problem, dialect)
    headers = dict(_EXTRA_HEADERS.get(status, ()))
    return answer_text(status, text, dialect, headers)


def failure_of(problem: Exception) -> Failure:
    """Why a request got no answer from its model, in Triton's words."""
    if isinstance(problem, UnavailableError):
        return "REJECTED"
    return "CANCELED" if isinstance(problem, ScoringTimeout) else "BACKEND"


def answer_text(status: int, text: str, dialect: Dialect, headers: dict[str, str] | None = None) -> Response:
    """An error that HTTP itself names (404, 405), in the dialect of its path."""
    return Response(status, json.dumps({dialect: text}).encode(), headers=headers or {})
