"""The first byte on a port that speaks TLS: a handshake, or somebody who means plain HTTP and is told so in words."""

from __future__ import annotations

import asyncio
import contextlib
import socket

# What a caller may take from its connection to the end of its handshake, in two parts.
FIRST_BYTE_S = 10.0
HANDSHAKE_S = 10.0
_HANDSHAKE_RECORD = 0x16
_READ_BYTES = 65_536
# How long the sentence may take to arrive before the connection is gone.
_LINGER_S = 1.0
_BODY = b'{"message": "This port speaks HTTPS. Send the request again to https://."}'
_ANSWER = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)


async def begins_handshake(loop: asyncio.AbstractEventLoop, caller: socket.socket) -> bool:
    """Wait for the first byte and leave it unread. False: it was no TLS; the caller is answered and the socket taken care of.

    Raises TimeoutError for a caller that stays silent.
    """
    arrived: asyncio.Future[None] = loop.create_future()
    loop.add_reader(caller.fileno(), _settle, arrived)
    try:
        await asyncio.wait_for(arrived, FIRST_BYTE_S)
    finally:
        loop.remove_reader(caller.fileno())
    first = caller.recv(1, socket.MSG_PEEK)
    if not first:
        raise ConnectionError("it was closed before its handshake")
    if first[0] == _HANDSHAKE_RECORD:
        return True
    with contextlib.suppress(OSError):
        # Bytes that are left unread would reset the connection, and the answer with it.
        caller.recv(_READ_BYTES)
        caller.send(_ANSWER)
        caller.shutdown(socket.SHUT_WR)
    loop.call_later(_LINGER_S, caller.close)
    return False


def _settle(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)
