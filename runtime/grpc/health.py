"""``grpc.health.v1.Health``, for probes of Kubernetes and load balancers: whether requests are scored now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from runtime.grpc.calls import Context, Message
from runtime.grpc.schema import HEALTH_SERVICE, SERVICE
from runtime.grpc.told import Refusal

_SERVING, _NOT_SERVING, _UNKNOWN = 1, 2, 3
# The empty name is the server as a whole.
_KNOWN: Final = frozenset({"", SERVICE, HEALTH_SERVICE})
_LOOK_S = 0.5


class HealthFace:
    """``ready`` says whether requests are scored. ``classes`` are those of schema.py's health messages."""

    def __init__(self, ready: Callable[[], bool], classes: Mapping[str, Any]) -> None:
        self._ready, self._answer = ready, classes["HealthCheckResponse"]
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Tell who watches, and end their calls."""
        self._leaving.set()

    async def check(self, request: Message) -> Message:
        """Raises Refusal for a service that is not here."""
        if request.service not in _KNOWN:
            raise Refusal(404, grpc.StatusCode.NOT_FOUND, f"There is no service {request.service[:200]!r} here.")
        return self._answer(status=self._status(request.service))

    async def watch(self, service: str, context: Context) -> None:
        """The status at once, and again whenever it is another. An unknown service may be watched, too."""
        told = 0
        while True:
            leaving = self._leaving.is_set()
            status = self._status(service)
            if status != told:
                await context.write(self._answer(status=status).SerializeToString())
                told = status
            if leaving:
                return
            await _either(self._leaving, _LOOK_S)

    def _status(self, service: str) -> int:
        if service not in _KNOWN:
            return _UNKNOWN
        return _SERVING if self._ready() and not self._leaving.is_set() else _NOT_SERVING


async def _either(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for the event, no longer than that."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
