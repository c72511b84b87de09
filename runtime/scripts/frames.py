"""What a scoring server and its script processes say to each other: msgpack frames over a socket pair.

    server -> host   GO                                one byte, to a standby that was told to wait with init()
    host -> server   Ready | Failed                    once, after init()
    server -> host   Call                              as many at once as Ready.calls says
    host -> server   Answer, or Head, Part…, End       one of the two for each Call

A frame is four bytes of length (big-endian) and one of these Structs. The host is foreign code's process: everything that
comes from it is decoded strictly, and a frame that does not decode ends it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec

_LENGTH = struct.Struct(">I")
LENGTH_BYTES = _LENGTH.size
# A frame holds a whole body or answer; llhttp's side has its own limit, this one stops a host that writes nonsense.
MOST_BYTES = 2**31 - 1
GO = b"\x01"
_WORTH_TWO_WRITES = 65_536


class Call(msgspec.Struct, tag="call", array_like=True, frozen=True):
    """One request. ``headers`` and the rest of the head are sent only to scripts that look at them."""

    id: int
    body: bytes
    method: str = "POST"
    path: str = ""
    query: str = ""
    headers: Mapping[str, str] = {}
    caller: str = ""
    # W3C Trace Context; sent to every script.
    traceparent: str = ""
    tracestate: str = ""


class Ready(msgspec.Struct, tag="ready", array_like=True, frozen=True):
    """The script is loaded. ``mode`` is string, schema or raw; ``calls`` how many it takes at once.

    ``swagger`` holds, as JSON text, what the script declares about its input and output, and its own swagger files
    (runtime/scripts/swagger_parts.py).
    """

    mode: str
    wants_head: bool = False
    calls: int = 1
    swagger: str = "{}"


class Failed(msgspec.Struct, tag="failed", array_like=True, frozen=True):
    """The script could not be loaded; the sentence says why."""

    sentence: str


class Answer(msgspec.Struct, tag="answer", array_like=True, frozen=True):
    """The whole answer to a call. ``failed``: run() raised. ``refusal``: the caller's fault, said in it.

    ``made_by_script``: run() answered with a response of its own, whose headers are all that it wants.
    """

    id: int
    ran_s: float
    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = []
    failed: bool = False
    refusal: str = ""
    made_by_script: bool = False


class Head(msgspec.Struct, tag="head", array_like=True, frozen=True):
    """The head of an answer that comes in parts. ``ran_s``: how long run() itself took; its generator goes on."""

    id: int
    status: int
    content_type: str
    headers: list[tuple[str, str]]
    ran_s: float = 0.0


class Part(msgspec.Struct, tag="part", array_like=True, frozen=True):
    """The next bytes of the answer."""

    id: int
    data: bytes


class End(msgspec.Struct, tag="end", array_like=True, frozen=True):
    """The answer is complete; ``whole`` is false when run()'s generator failed on the way."""

    id: int
    ran_s: float
    whole: bool = True


FromHost = Ready | Failed | Answer | Head | Part | End

_encoder = msgspec.msgpack.Encoder()
_from_host = msgspec.msgpack.Decoder(FromHost)
_call = msgspec.msgpack.Decoder(Call)


def packed(frame: FromHost | Call) -> bytes:
    """The frame with its length before it. Raises ValueError beyond MOST_BYTES."""
    body = _encoder.encode(frame)
    if len(body) > MOST_BYTES:
        raise ValueError(f"an answer of {len(body)} bytes is too large")
    return _LENGTH.pack(len(body)) + body


def pieces(frame: Call) -> tuple[bytes, ...]:
    """:func:`packed`, without copying a large frame once more. Raises ValueError beyond MOST_BYTES."""
    body = _encoder.encode(frame)
    if len(body) > MOST_BYTES:
        raise ValueError(f"a call of {len(body)} bytes is too large")
    head = _LENGTH.pack(len(body))
    return (head + body,) if len(body) < _WORTH_TWO_WRITES else (head, body)


def begins_frame(first: int) -> bool:
    """Whether a frame's first byte can be this one: an array of fewer than sixteen. Text and most other nonsense cannot."""
    return first & 0xF0 == 0x90


def length_of(head: bytes | bytearray | memoryview) -> int:
    length: int = _LENGTH.unpack_from(head)[0]
    return length


def from_host(body: bytes | memoryview) -> FromHost:
    """Raises msgspec.DecodeError."""
    frame: FromHost = _from_host.decode(body)
    return frame


def call_from(body: bytes | memoryview) -> Call:
    """Raises msgspec.DecodeError."""
    return _call.decode(body)
