"""OTLP's messages as bytes (opentelemetry-proto, trace.proto): what OpenTelemetry's own encoder makes, in a tenth of the time.

A message is a row of fields, each a tag (number and kind), for texts and messages a length, and the value. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from runtime.varint import varint

INTERNAL: Final = 1
SERVER: Final = 2
# Span flags: whether the parent is another process's is known; and it is.
_KNOWN: Final = 0x100
_REMOTE: Final = 0x200
_LENGTH_DELIMITED: Final = 2
_TIMES: Final = struct.Struct("<BQBQ")
_BEGUN, _ENDED = 7 << 3 | 1, 8 << 3 | 1
_FAILED: Final = b"\x7a\x02\x18\x02"
_TAILS: Final = {remote: b"\x85\x01" + struct.pack("<I", _KNOWN | (_REMOTE if remote else 0)) for remote in (False, True)}


def field(number: int, value: bytes) -> bytes:
    """A text or a message within another one."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(len(value)) + value


@lru_cache(maxsize=4096)
def attribute(key: str, value: str | int) -> bytes:
    """One of a span's attributes; most of them are the same for many spans."""
    said = field(1, _utf8(value)) if isinstance(value, str) else b"\x18" + varint(value)
    return field(9, field(1, key.encode()) + field(2, said))


def span(
    trace_id: bytes,
    span_id: bytes,
    parent_id: bytes,
    name: str,
    times_ns: tuple[int, int],
    *,
    state: str = "",
    attributes: bytes = b"",
    server: bool = False,
    failed: bool = False,
) -> bytes:
    """One span, as a field of its scope. A ``server`` span's parent, if any, is another process's. ``attributes`` are fields."""
    ids = b"\x0a\x10" + trace_id + b"\x12\x08" + span_id
    if parent_id:
        ids += b"\x22\x08" + parent_id
    if state:
        ids += field(3, _utf8(state))
    times = _TIMES.pack(_BEGUN, times_ns[0], _ENDED, times_ns[1])
    end = _TAILS[server and bool(parent_id)]
    inner = ids + _title(name, server) + times + attributes + (_FAILED + end if failed else end)
    return b"\x12" + varint(len(inner)) + inner


def export_request(resource: bytes, scope: bytes, spans: Iterable[bytes]) -> bytes:
    """The whole message. ``resource`` and ``scope`` are messages, encoded already."""
    return field(1, field(1, resource) + field(2, field(1, scope) + b"".join(spans)))


@lru_cache(maxsize=1024)
def _title(name: str, server: bool) -> bytes:
    return field(5, _utf8(name)) + bytes((6 << 3, SERVER if server else INTERNAL))


def _utf8(text: str) -> bytes:
    # What a caller wrote wrongly must not cost everybody's spans.
    return text.encode("utf-8", "replace")
