"""One stream of requests and answers: scored as they come, several at once, answered in their order.

    _read()    takes messages while there is room, and begins the scoring of each
    run()      writes the answers; ends when the caller has ended its side and has every answer, or when we leave

When the server goes away it ends its streams itself, after what had come by then: a caller that only waits would keep it from
ending, and one that is told so can begin another stream elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final

import grpc

from runtime.grpc.calls import Context, Received
from runtime.grpc.told import Refusal
from runtime.varint import varint

# As many of one stream are held at once: so they share runs of the model, and leave room for other callers.
_WINDOW = 16
_WINDOW_BYTES = 1024 * 1024
# A stream that is silent for so long when we go has brought all that was on its way (front/door.py: _LINGER_S).
_LINGER_S = 0.3
_LONGEST_S = 1.0
# Where it was we who took no more: what the caller sent meanwhile still has to come.
_LONGEST_FULL_S = 5.0
_LOOK_S = 0.02
# Field 2 of ModelStreamInferResponse, with its length before it.
_INFER_RESPONSE: Final = b"\x12"


class InferStream:
    """``infer`` scores one message: a ModelInferResponse as bytes, or Refusal."""

    def __init__(
        self,
        infer: Callable[[Received], Awaitable[bytes]],
        answer_class: Any,  # noqa: ANN401 - protobuf has no types
        context: Context,
        may_answer: asyncio.Event,
    ) -> None:
        self._infer, self._answer_class, self._context, self._may_answer = infer, answer_class, context, may_answer
        self._answers: asyncio.Queue[tuple[asyncio.Task[bytes], int] | None] = asyncio.Queue()
        self._held = self._held_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._scoring: set[asyncio.Task[bytes]] = set()
        # When a message came, and since when there has been room for another.
        self._last_at = self._room_since = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    @property
    def left(self) -> bool:
        """Whether it was we who ended it."""
        return self._leaving is not None

    async def run(self) -> None:
        """Until its end."""
        self._reading = asyncio.create_task(self._read())
        self._reading.add_done_callback(lambda _task: self._answers.put_nowait(None))
        try:
            while (held := await self._answers.get()) is not None:
                answer, size_bytes = held
                message = await answer
                await self._may_answer.wait()
                await self._context.write(message)
                self._hold(-1, -size_bytes)
            if not self.left:
                await self._reading
        finally:
            for task in (self._reading, self._leaving, *self._scoring):
                if task is not None:
                    task.cancel()

    def leave(self) -> None:
        """Answer what has come and what still is on its way, and end."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave())

    async def _read(self) -> None:
        while True:
            await self._room.wait()
            received = await self._context.read()
            if received is grpc.aio.EOF:
                return
            self._last_at = perf_counter()
            task = asyncio.create_task(self._one(received))
            self._scoring.add(task)
            task.add_done_callback(self._scoring.discard)
            self._answers.put_nowait((task, received.size_bytes))
            self._hold(1, received.size_bytes)

    def _hold(self, messages: int, size_bytes: int) -> None:
        self._held += messages
        self._held_bytes += size_bytes
        if self._held >= _WINDOW or self._held_bytes >= _WINDOW_BYTES:
            self._room.clear()
        elif not self._room.is_set():
            self._room_since = perf_counter()
            self._room.set()

    async def _one(self, received: Received) -> bytes:
        try:
            return framed(await self._infer(received))
        except Refusal as refusal:
            return self._refused(received, refusal)
        except Exception as problem:  # noqa: BLE001 - one message's failure is its own, whatever it is
            return self._refused(received, Refusal.of(problem))

    def _refused(self, received: Received, refusal: Refusal) -> bytes:
        # With its id a client knows which of its requests it was.
        asked = "" if received.message is None else received.message.id
        answer = self._answer_class(error_message=refusal.text, infer_response={"id": asked})
        body: bytes = answer.SerializeToString()
        return body

    async def _leave(self) -> None:
        began = perf_counter()
        while (now := perf_counter()) < began + _LONGEST_FULL_S:
            takes = self._room.is_set() and now >= self._room_since + _LINGER_S
            if takes and now >= min(max(self._last_at, began) + _LINGER_S, began + _LONGEST_S):
                break
            await asyncio.sleep(_LOOK_S)
        if self._reading is not None:
            self._reading.cancel()


def framed(response: bytes) -> bytes:
    """A ModelStreamInferResponse around a ModelInferResponse that is bytes already."""
    return b"".join((_INFER_RESPONSE, varint(len(response)), response))
