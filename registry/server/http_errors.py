"""The one mapper from errors to HTTP answers: ``{"error": {code, message, remedy, details}}``, for every path and status.

The OCI API below ``/v2/`` has a shape of its own, prescribed by the distribution specification; people at a browser get
the same words as a page.
"""

from __future__ import annotations

import logging

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from hedgerow.contracts.document import encode
from hedgerow.contracts.work import Problem, ProblemAnswer
from hedgerow.errors import (
    AccessError,
    Bug,
    ConflictError,
    ForbiddenError,
    HedgerowError,
    NotFoundError,
    ScriptError,
    UnavailableError,
    UserError,
)
from registry.blobs.errors import DigestMismatch
from registry.device_errors import MethodUnanswered
from registry.errors import InvalidPage, PreconditionFailed
from registry.identity.errors import TooManyWrongKeys
from registry.server import oci_errors, oci_grants
from registry.server.access import OCI_PREFIX
from registry.server.errors import (
    AddressTooLong,
    ConnectionStalled,
    ContentTypeRefused,
    DocumentTooLarge,
    HeadTooLarge,
    MalformedRequest,
    MethodRefused,
    NoSuchPath,
    RangeRefused,
    UploadOutOfOrder,
)
from registry.server.http import MAX_BODY_BYTES
from registry.server.studio import error_page

_LOG = logging.getLogger(__name__)
# The first family that fits decides, so the narrow ones come first.
_STATUS: tuple[tuple[type[HedgerowError], int], ...] = (
    (NoSuchPath, 404),
    (MethodRefused, 405),
    (ConnectionStalled, 408),
    (DocumentTooLarge, 413),
    (AddressTooLong, 414),
    (HeadTooLarge, 431),
    (ContentTypeRefused, 415),
    (RangeRefused, 416),
    (UploadOutOfOrder, 416),
    (PreconditionFailed, 412),
    (MethodUnanswered, 504),
    (TooManyWrongKeys, 429),
    (DigestMismatch, 400),
    (InvalidPage, 400),
    (ForbiddenError, 403),
    (AccessError, 401),
    (NotFoundError, 404),
    (UserError, 400),
    (ConflictError, 409),
    (ScriptError, 422),
    (UnavailableError, 503),
    (HedgerowError, 500),
)
_API_PREFIXES = ("/api/", OCI_PREFIX, "/metrics", "/healthz")
_LONGEST_DETAIL = 500


def install(app: Flask) -> None:
    """Make ``app`` answer every error in the one shape."""
    app.register_error_handler(HedgerowError, answer_error)
    app.register_error_handler(HTTPException, _answer_werkzeug)
    app.register_error_handler(Exception, _answer_unexpected)


def status_of(error: HedgerowError) -> int:
    """The HTTP status of an error."""
    return status_of_kind(type(error))


def status_of_kind(kind: type[HedgerowError]) -> int:
    """The HTTP status of every error of this class."""
    return next(status for family, status in _STATUS if issubclass(kind, family))


def answer_error(error: HedgerowError) -> Response:
    """The answer to the current request that failed with ``error``."""
    status = status_of(error)
    if isinstance(error, AccessError):
        g.refused_as = error.key
    if status >= 500:
        _LOG.log(logging.ERROR if isinstance(error, Bug) else logging.WARNING, "%s %s: %s", request.method, request.path, error)
    problem = Problem(
        code=error.key,
        message=str(error),
        remedy=error.advice,
        details={name: str(value)[:_LONGEST_DETAIL] for name, value in error.fields.items()},
    )
    response = _in_the_callers_shape(problem, status)
    for name, value in _headers(error, status).items():
        response.headers[name] = value
    return response


def _in_the_callers_shape(problem: Problem, status: int) -> Response:
    if request.path.startswith(OCI_PREFIX):
        return oci_errors.response(problem, status)
    accepts = request.accept_mimetypes
    wants_page = accepts["text/html"] > accepts["application/json"] and not request.path.startswith(_API_PREFIXES)
    if wants_page:
        return error_page.response(problem, status)
    return Response(encode(ProblemAnswer(error=problem)), status, mimetype="application/json")


def _headers(error: HedgerowError, status: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": oci_grants.challenge(error) if request.path.startswith(OCI_PREFIX) else "Bearer"}
    if status in (429, 503):
        return {"Retry-After": "60" if status == 429 else "1"}
    if isinstance(error, MethodRefused):
        return {"Allow": str(error.fields["allowed"])}
    if isinstance(error, UploadOutOfOrder):
        return {"Range": str(error.fields["range"]), "Location": str(error.fields["location"])}
    if isinstance(error, RangeRefused):
        return {"Content-Range": f"bytes */{error.fields['size']}"}
    return {}


def _answer_werkzeug(error: HTTPException) -> Response:
    """What the framework finds wrong by itself, in our words."""
    if error.code == 404:
        return answer_error(NoSuchPath(path=request.path[:200]))
    if error.code == 405:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        return answer_error(MethodRefused(method=request.method[:20], path=request.path[:200], allowed=allowed))
    if error.code == 413:
        return answer_error(DocumentTooLarge(limit_bytes=request.max_content_length or MAX_BODY_BYTES))
    if error.code is not None and error.code < 400:
        return Response(error.get_response().data, error.code, dict(error.get_headers()))
    return answer_error(MalformedRequest(problem=error.description or error.name))


def _answer_unexpected(error: Exception) -> Response:
    # Details stay in the log: an exception's text may hold anything.
    _LOG.error("%s %s failed", request.method, request.path, exc_info=error)
    return answer_error(Bug(what=f"{type(error).__name__} while answering {request.method} {request.path[:200]}"))
