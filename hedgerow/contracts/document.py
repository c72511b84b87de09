"""How every document is written, read and compared: versioned msgspec Structs with one canonical JSON form."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from hedgerow.contracts.names import PATTERNS_IN_WORDS
from hedgerow.errors import DocumentTooNew, InvalidDocument

Instant = Annotated[datetime, msgspec.Meta(tz=True, description="RFC 3339 time with offset; written in UTC")]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document with a schema version; readers tolerate unknown fields of later minor changes."""

    schema_version: int = 1


D = TypeVar("D", bound=msgspec.Struct)

# Bytes that are no UTF-8 and text with half a surrogate pair come out of the JSON parser as UnicodeError.
_UNREADABLE = (msgspec.ValidationError, msgspec.DecodeError, UnicodeError, RecursionError)


def encode(document: msgspec.Struct) -> bytes:
    """Canonical JSON: keys sorted, no spaces. Equal documents give equal bytes, so bytes can be hashed and signed."""
    return msgspec.json.encode(document, order="sorted")


def decode(data: bytes | str, kind: type[D], *, supported: int = 1) -> D:
    """Read a document, or raise InvalidDocument (field and value named) or DocumentTooNew; never anything else."""
    try:
        return _checked_version(msgspec.json.decode(data, type=kind), supported)
    except _UNREADABLE as problem:
        raise _refusal(problem, kind, _parsed(data), supported) from None


def convert(value: object, kind: type[D], *, supported: int = 1) -> D:
    """Like :func:`decode` for values that were parsed already (TOML, YAML, rows of a database)."""
    try:
        return _checked_version(msgspec.convert(value, type=kind, strict=True), supported)
    except _UNREADABLE as problem:
        raise _refusal(problem, kind, value, supported) from None


def digest_of(data: bytes) -> str:
    """``sha256:`` + lower-case hex, the one form of digest used everywhere."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _checked_version(document: D, supported: int) -> D:
    found = getattr(document, "schema_version", supported)
    if found > supported:
        raise DocumentTooNew(document=type(document).__name__, found=found, supported=supported)
    return document


def _refusal(problem: Exception, kind: type[msgspec.Struct], source: object, supported: int) -> InvalidDocument | DocumentTooNew:
    """Why a document cannot be read. A newer one may lack our fields, so its version is looked at before its shape."""
    version = source.get("schema_version") if isinstance(source, dict) else None
    if isinstance(version, int) and version > supported and issubclass(kind, Document):
        return DocumentTooNew(document=kind.__name__, found=version, supported=supported)
    words = "it is nested too deeply" if isinstance(problem, RecursionError) else _with_value(_in_words(str(problem)), source)
    return InvalidDocument(document=kind.__name__, problem=words)


def _parsed(data: bytes | str) -> object:
    """The plain value of what failed to fit, for the message; None when it is no JSON either."""
    try:
        return msgspec.json.decode(data)
    except _UNREADABLE:
        return None


def _in_words(problem: str) -> str:
    """msgspec shows the regular expression of a name; people are told the rule."""
    for pattern, words in PATTERNS_IN_WORDS.items():
        problem = problem.replace(f"`str` matching regex {pattern!r}", words)
    return problem


def _with_value(problem: str, source: object) -> str:
    """msgspec says where (``at `$.a[0].b```) but not what stood there; add the value, shortened."""
    _, mark, path = problem.rpartition(" - at `$")
    if not mark or source is None:
        return problem
    value: Any = source
    for part in path.rstrip("`").replace("[", ".[").split("."):
        if part.startswith("[") and part[1:-1].isdigit() and isinstance(value, list):
            value = value[int(part[1:-1])]
        elif part and isinstance(value, dict) and part in value:
            value = value[part]
        elif part:
            return problem
    shown = repr(value)
    return f"{problem}, found {shown if len(shown) <= 80 else shown[:77] + '...'}"
