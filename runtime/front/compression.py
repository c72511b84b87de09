"""gzip and deflate, both ways, for callers who ask for it.

    request   Content-Encoding: gzip | deflate      read by :func:`unpacked`; the limit for bodies counts what comes out
    response  Accept-Encoding: gzip, deflate, …     written by :class:`PackingChannel`, for bodies worth it

``deflate`` is zlib's format, as HTTP says and Triton's clients send; bare deflate streams are read as well. Large bodies are
worked on by a thread, since they would hold up every other connection.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from runtime.errors import BadBody, BodyTooLarge, UnknownEncoding
from runtime.exchange import Channel, Exchange, Headers, Request, Response
from runtime.off_loop import OffLoop

Encoding = Literal["gzip", "deflate"]

# Below this the headers weigh more than what is saved.
WORTH_BYTES: Final = 1024
# What may be packed on the event loop, about a tenth of a millisecond; and unpacked, which may be a thousand times as much.
PACK_ON_LOOP_BYTES: Final = 16_384
UNPACK_ON_LOOP_BYTES: Final = 512
_KNOWN_HEADERS: Final = 256
_FASTEST: Final = 1
_WINDOW_BITS: Final[dict[Encoding, int]] = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
# What has its own packing: a second one costs time and saves nothing.
_PACKED_FAMILIES: Final = ("image/", "audio/", "video/")
_PLAIN_AMONG_THEM: Final = frozenset(("image/svg+xml", "image/bmp", "image/x-ms-bmp"))
_PACKED_TYPES: Final = frozenset(
    (
        "application/gzip",
        "application/x-gzip",
        "application/zip",
        "application/x-zip-compressed",
        "application/zstd",
        "application/x-bzip2",
        "application/x-xz",
        "application/x-7z-compressed",
        "application/vnd.rar",
        "application/vnd.apache.parquet",
        "font/woff",
        "font/woff2",
    )
)
_HINT: Final = "Send it as gzip or deflate (zlib), or without Content-Encoding."


def encoding_of(header: str) -> Encoding | None:
    """What Content-Encoding names; None when the body is as it is. Raises UnknownEncoding."""
    name = header.strip().lower()
    if name in ("gzip", "x-gzip"):
        return "gzip"
    if name == "deflate":
        return "deflate"
    if name in ("", "identity"):
        return None
    raise UnknownEncoding(encoding=header[:100])


def wanted_encoding(header: str) -> Encoding | None:
    """The encoding of an answer by Accept-Encoding: gzip where both would do. ``q=0`` means "not this one"."""
    refused: set[str] = set()
    named: set[str] = set()
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        digits = weight.strip().removeprefix("q=")
        never = digits.startswith("0") and not digits.strip("0.")
        (refused if never else named).add(name.strip())
    named -= refused
    if "gzip" in named or ("*" in named and "gzip" not in refused):
        return "gzip"
    return "deflate" if "deflate" in named else None


def is_packed_type(content_type: str) -> bool:
    """Whether bodies of this type are compressed already. Binary tensors are not."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind in _PACKED_TYPES or (kind.startswith(_PACKED_FAMILIES) and kind not in _PLAIN_AMONG_THEM)


def unpacked(body: bytes, encoding: Encoding, limit: int) -> bytes:
    """What ``body`` holds, never more than ``limit`` bytes of memory for it. Raises BodyTooLarge or BadBody."""
    bits = _WINDOW_BITS[encoding]
    if encoding == "deflate" and not _is_zlib(body):
        bits = -zlib.MAX_WBITS
    parts: list[bytes] = []
    size = 0
    try:
        # A gzip file may have several members, one after another.
        while body:
            unpacker = zlib.decompressobj(bits)
            parts.append(unpacker.decompress(body, limit - size + 1))
            size += len(parts[-1])
            if size > limit:
                raise BodyTooLarge(limit=limit)
            if not unpacker.eof:
                raise BadBody(problem=f"its {encoding} stream ends too early", hint=_HINT)
            body = unpacker.unused_data
            if encoding != "gzip" and body:
                raise BadBody(problem=f"{len(body)} bytes follow its {encoding} stream", hint=_HINT)
    except zlib.error:
        raise BadBody(problem=f"it is no {encoding} stream", hint=_HINT) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def unpacked_request(request: Request, encoding: Encoding, limit: int) -> Request:
    """The request as it would have come without Content-Encoding. Raises BodyTooLarge or BadBody."""
    body = unpacked(request.body, encoding, limit)
    headers = {name: value for name, value in request.headers.items() if name not in ("content-encoding", "transfer-encoding")}
    headers["content-length"] = str(len(body))
    return msgspec.structs.replace(request, body=body, headers=headers)


def packed(body: bytes, encoding: Encoding) -> bytes:
    """``body`` at the level that costs least."""
    packer = zlib.compressobj(_FASTEST, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return packer.compress(body) + packer.flush()


def pack_response(response: Response, encoding: Encoding) -> Response:
    """The same answer, smaller; as it is where that saves nothing."""
    body = packed(response.body, encoding)
    if len(body) >= len(response.body):
        return response
    headers: Headers = {**response.headers, "content-encoding": encoding, "vary": "accept-encoding"}
    return Response(response.status, body, response.content_type, headers, response.repeated, response.lines)


class Packing:
    """A handler of requests before another one: unpacks what comes packed, and packs answers where that was asked for.

    ``passes`` says of which requests nothing may be changed: scripts that get the whole request see it as it came.
    """

    def __init__(
        self,
        handle: Callable[[Exchange], None],
        refuse: Callable[[Exchange, Exception], None],
        limit: int,
        *,
        passes: Callable[[Exchange], bool],
    ) -> None:
        self._handle, self._refuse, self._limit, self._passes = handle, refuse, limit, passes
        self._off_loop = OffLoop()
        # What callers say they accept: few texts, said with every request.
        self._known: dict[str, Encoding | None] = {}

    def handle(self, exchange: Exchange) -> None:
        """Never raises."""
        headers = exchange.request.headers
        if "accept-encoding" in headers:
            self._pack_answer(exchange, headers["accept-encoding"])
        if "content-encoding" in headers and not self._passes(exchange):
            self._unpack(exchange, headers["content-encoding"])
        else:
            self._handle(exchange)

    def _pack_answer(self, exchange: Exchange, accepted: str) -> None:
        if accepted not in self._known:
            if len(self._known) >= _KNOWN_HEADERS:
                self._known.clear()
            self._known[accepted] = wanted_encoding(accepted)
        encoding = self._known[accepted]
        if encoding is not None:
            exchange.answer_through(lambda channel: PackingChannel(channel, encoding, self._off_loop))

    def _unpack(self, exchange: Exchange, named: str) -> None:
        request, limit = exchange.request, self._limit
        try:
            encoding = encoding_of(named)
            if encoding is not None and len(request.body) <= UNPACK_ON_LOOP_BYTES:
                exchange.request = unpacked_request(request, encoding, limit)
        except Exception as problem:  # noqa: BLE001 - mapped like every other
            self._refuse(exchange, problem)
            return
        if encoding is None or exchange.request is not request:
            self._handle(exchange)
            return

        def go_on(plain: Request) -> None:
            exchange.request = plain
            self._handle(exchange)

        def work() -> Request:
            return unpacked_request(request, encoding, limit)

        self._off_loop.run(work, go_on, lambda problem: self._refuse(exchange, problem))


class PackingChannel:
    """Stands between an exchange and its connection, and packs what is worth it. Streams go through as they are."""

    def __init__(self, channel: Channel, encoding: Encoding, off_loop: OffLoop) -> None:
        self._channel, self._encoding, self._off_loop = channel, encoding, off_loop
        self.since = channel.since
        self.send_head, self.send_part, self.send_end = channel.send_head, channel.send_part, channel.send_end

    def send(self, exchange: Exchange, response: Response) -> None:
        size = len(response.body)
        if size <= WORTH_BYTES or exchange.request.method == "HEAD" or _is_packed(response):
            self._channel.send(exchange, response)
        elif size <= PACK_ON_LOOP_BYTES:
            self._channel.send(exchange, pack_response(response, self._encoding))
        else:
            channel, encoding = self._channel, self._encoding
            self._off_loop.run(
                lambda: pack_response(response, encoding),
                lambda smaller: channel.send(exchange, smaller),
                # Out of memory, then: it goes as it is.
                lambda _: channel.send(exchange, response),
            )


def _is_packed(response: Response) -> bool:
    return "content-encoding" in response.headers or is_packed_type(response.content_type)


def _is_zlib(body: bytes) -> bool:
    """Whether a stream begins as RFC 1950 says."""
    return len(body) >= 2 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
