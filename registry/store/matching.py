"""The filters that lists share: names that begin with something, tags that are kept as one JSON text."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func

from hedgerow.contracts.names import check_known_name
from registry.errors import InvalidFilter

_STAR = "*"


def name_matches(column: ColumnElement[Any], wanted: str, kind: str) -> ColumnElement[bool]:
    """``press-1`` is that name, ``press-*`` every name that begins so. Raises InvalidName."""
    if not wanted.endswith(_STAR):
        return column == check_known_name(wanted, kind)
    start = wanted.removesuffix(_STAR)
    # Half a name ends anywhere, also behind a dash.
    check_known_name(f"{start.rstrip('.-_')}x" if start else "x", kind)
    # Not LIKE: "_" is a letter of names, and SQLite's LIKE does not tell a from A.
    return func.substr(column, 1, len(start)) == start


def tag_matches(column: ColumnElement[Any], wanted: str) -> ColumnElement[bool]:
    """``site=north``: the tag with that value; ``site``: the tag with any. ``column`` holds canonical JSON.

    Raises InvalidFilter.
    """
    key, equals, value = wanted.partition("=")
    if not key:
        raise InvalidFilter(value=wanted[:80])
    part = msgspec.json.encode(key).decode() + ":" + (msgspec.json.encode(value).decode() if equals else "")
    # Between two unescaped quotes no text can imitate the beginning of a pair: a quote inside text is escaped.
    first, later = (func.replace(column, mark + part, "") != column for mark in ("{", ","))
    return first | later
