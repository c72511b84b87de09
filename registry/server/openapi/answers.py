"""The answers of an operation: what it gives when it goes well, and every error it may give, in the one shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hedgerow.contracts.api import TokenInfo
from hedgerow.contracts.api_fleet import EnrolledDevice
from hedgerow.contracts.enrollment import EnrolledByKey, EnrollmentKey
from hedgerow.contracts.events import Webhook
from hedgerow.contracts.names import HEADER_REPLAYED
from hedgerow.contracts.signing import PrivateSigningKey
from hedgerow.contracts.work import ProblemAnswer
from hedgerow.errors import HedgerowError, InvalidDocument, InvalidName
from registry.blobs.errors import StorageUnavailable
from registry.errors import (
    DatabaseUnavailable,
    InvalidPage,
    OriginRefused,
    PreconditionFailed,
    RecordNotFound,
    RoleForbids,
    ScopeForbids,
    TokenMissing,
    TokenRefused,
)
from registry.server.errors import (
    AlreadyDone,
    ConnectionStalled,
    ContentTypeRefused,
    DocumentTooLarge,
    IdempotencyKeyRefused,
    IdempotencyKeyReused,
    InvalidArgument,
    MalformedRequest,
    RangeRefused,
    RepeatedArgument,
    UnknownArgument,
)
from registry.server.http_errors import status_of_kind
from registry.server.openapi.promises import Promises
from registry.server.openapi.schemas import prose, structs_of
from registry.server.operation import Operation

_WORDS = {
    200: "Done",
    201: "Made",
    202: "Taken on: it goes on after this answer",
    204: "Done, nothing to say",
    206: "The part that was asked for",
    304: "Nothing changed since the ETag that was sent",
}
_ETAG = {"ETag": {"description": "the record's ETag, for If-Match and If-None-Match", "schema": {"type": "string"}}}
_REPLAYED = {
    HEADER_REPLAYED.title(): {
        "description": "`true`: the answer that was given before to this Idempotency-Key",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
_AGAIN = {"Retry-After": {"description": "seconds to wait before trying again", "schema": {"type": "integer"}}}
_INVITE = {"WWW-Authenticate": {"description": "how to send a token", "schema": {"type": "string"}}}
_PART = {"Content-Range": {"description": "`bytes FIRST-LAST/SIZE`", "schema": {"type": "string"}}}
_SHARED = {401: "Unauthorized", 403: "Forbidden", 503: "Unavailable"}
_ALWAYS: tuple[type[HedgerowError], ...] = (
    MalformedRequest,
    UnknownArgument,
    TokenMissing,
    TokenRefused,
    RoleForbids,
    ScopeForbids,
    OriginRefused,
    DatabaseUnavailable,
)
# Their answers hold what is shown once.
_SECRETS = {EnrolledByKey, EnrolledDevice, EnrollmentKey, PrivateSigningKey, TokenInfo, Webhook}


def answers(
    operation: Operation, method: str, *, named: bool, promises: Promises, schemas: Mapping[Any, dict[str, Any]]
) -> dict[str, Any]:
    """By status. ``named``: the path names a record. ``schemas``: where each Struct's schema is."""
    found = dict(_good(operation, method, promises, schemas))
    for status, kinds in sorted(_by_status(errors_of(operation, method, named=named, promises=promises)).items()):
        found[str(status)] = _bad_or_shared(status, kinds, schemas)
    return dict(sorted(found.items()))


def errors_of(operation: Operation, method: str, *, named: bool, promises: Promises) -> list[type[HedgerowError]]:
    """Every error that the operation may answer with, once each, by key."""
    found = {*_ALWAYS, *operation.errors}
    if operation.query:
        found |= {InvalidArgument, RepeatedArgument}
    if named:
        found |= {RecordNotFound, InvalidName}
    if method != "get":
        found |= {ContentTypeRefused}
    if operation.body is not None:
        found |= {DocumentTooLarge, ConnectionStalled}
        found |= {StorageUnavailable} if isinstance(operation.body, str) else {InvalidDocument}
    found |= {IdempotencyKeyReused, InvalidArgument} if promises.once else {IdempotencyKeyRefused}
    if promises.once and _SECRETS.intersection(structs_of(operation.result)):
        found.add(AlreadyDone)
    if promises.matched:
        found.add(PreconditionFailed)
    if promises.paged:
        found.add(InvalidPage)
    if promises.ranged:
        found.add(RangeRefused)
    return _sorted(found)


def _good(
    operation: Operation, method: str, promises: Promises, schemas: Mapping[Any, dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for status, results in _results(operation).items():
        answer: dict[str, Any] = {"description": _WORDS.get(status, "Done")}
        content = {media: schema for result in results for media, schema in _content(result, schemas).items()}
        if content:
            answer["content"] = content
        headers = (_ETAG if promises.tagged and content else {}) | (_REPLAYED if promises.once else {})
        if headers:
            answer["headers"] = headers
        yield str(status), answer
    if promises.tagged and method == "get":
        yield "304", {"description": _WORDS[304], "headers": _ETAG}
    if promises.ranged:
        content = _content(operation.result, schemas)
        yield "206", {"description": _WORDS[206], "headers": _ETAG | _PART, "content": content}


def _results(operation: Operation) -> dict[int, list[Any]]:
    """What there may be in the body of each successful answer; one status may have several media types."""
    found: dict[int, list[Any]] = {}
    for status, result in ((operation.status, operation.result), *operation.also):
        found.setdefault(status, []).extend([] if result is None else [result])
    return found


def _content(result: Any, schemas: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:  # noqa: ANN401 - Operation.result
    if isinstance(result, str):
        # Content without a JSON shape: its media type says everything.
        return {result: {"schema": {"type": "string"}} if result.startswith("text/") else {}}
    found = [schemas[kind] for kind in structs_of(result)]
    return {"application/json": {"schema": found[0] if len(found) == 1 else {"anyOf": found}}}


def _by_status(kinds: list[type[HedgerowError]]) -> dict[int, list[type[HedgerowError]]]:
    found: dict[int, list[type[HedgerowError]]] = {}
    for kind in kinds:
        found.setdefault(status_of_kind(kind), []).append(kind)
    return found


def shared_answers(schemas: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    """The answers that every operation may give, for the document's components."""
    always = _by_status(_sorted(_ALWAYS))
    return {name: _bad(status, always[status], schemas) for status, name in _SHARED.items()}


def _bad_or_shared(status: int, kinds: list[type[HedgerowError]], schemas: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    if status in _SHARED and kinds == _by_status(_sorted(_ALWAYS))[status]:
        return {"$ref": f"#/components/responses/{_SHARED[status]}"}
    return _bad(status, kinds, schemas)


def _sorted(kinds: Iterable[type[HedgerowError]]) -> list[type[HedgerowError]]:
    return sorted(kinds, key=lambda kind: kind.key)


def _bad(status: int, kinds: list[type[HedgerowError]], schemas: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    lines = [f"- `{kind.key}`: {' '.join(prose(kind.__doc__).split())}" for kind in kinds]
    headers = _AGAIN if status in (429, 503) else _INVITE if status == 401 else {}
    answer = {"description": "\n".join(lines), "content": {"application/json": {"schema": schemas[ProblemAnswer]}}}
    return answer | ({"headers": headers} if headers else {})
