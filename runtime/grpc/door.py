"""The gRPC port of one worker: opened once it is ready, closed when it drains. Several workers share the port (SO_REUSEPORT)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import grpc

from runtime.errors import PortTaken
from runtime.grpc.face import GrpcFace

_log = logging.getLogger("hedgerow.runtime.grpc")

_QUIET_S = 0.05
# Callers that do not wait for their answers are never quiet.
_LONGEST_QUIET_S = 0.5
# What stop() needs to tell every connection.
_STOPPING_S = 0.05


class GrpcDoor:
    """A grpc.aio server on the running loop. ``tls`` is certificate and private key."""

    def __init__(self, address: str, face: GrpcFace, *, largest_bytes: int, tls: tuple[Path, Path] | None) -> None:
        options = [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", min(largest_bytes, 2**31 - 1)),
            ("grpc.max_send_message_length", -1),
        ]
        self._address, self._face, self._tls = address, face, tls
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers(face.handlers())
        self._opening: asyncio.Task[None] | None = None

    def open(self, failed: Callable[[str], None]) -> None:
        """Begin to answer; ``failed`` gets a sentence when the port cannot be had."""
        self._opening = asyncio.get_running_loop().create_task(self._open(failed))

    async def drain(self, patience_s: float) -> None:
        """Take no more calls, answer those under way, then close.

        grpc cancels what has arrived and was not handed to a handler when it stops. So answers are held back for a moment:
        meanwhile callers that wait for one send nothing new, and every call that has come reaches its handler.
        """
        if self._opening is None:
            return
        await self._opening
        self._face.hold()
        await self._quiet()
        stopping = asyncio.get_running_loop().create_task(self._server.stop(patience_s))
        await asyncio.sleep(_STOPPING_S)
        self._face.release()
        await stopping

    async def _quiet(self) -> None:
        """Until no call has come for a moment, in which this loop and the callers had time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + _LONGEST_QUIET_S:
            begun, since = self._face.begun, loop.time()
            await asyncio.sleep(_QUIET_S)
            if self._face.begun == begun and loop.time() - since < 2 * _QUIET_S:
                return

    async def _open(self, failed: Callable[[str], None]) -> None:
        try:
            if self._tls is None:
                self._server.add_insecure_port(self._address)
            else:
                certificate, private_key = self._tls
                pair = (private_key.read_bytes(), certificate.read_bytes())
                self._server.add_secure_port(self._address, grpc.ssl_server_credentials([pair]))
            await self._server.start()
        except (RuntimeError, OSError) as problem:
            failed(PortTaken(host="grpc", port=self._address, problem=problem).sentence())
        else:
            _log.info("gRPC at %s", self._address)
