"""One answer on its way to the hub: cut into parts, at most WINDOW_PARTS of them beyond what the hub has.

``write`` waits for room, so an answer of any length costs the memory of a window. What is not acknowledged is kept and sent
again when the hub asks (it repeats the call); what cannot be handed to the link now is not lost either.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from edge_agent.methods.errors import AnswerUnwanted
from hedgerow.contracts.methods import PART_BYTES, WINDOW_PARTS, MethodAnswer, MethodCall

# The hub asks again within seconds; one that does not want more for this long is gone.
STALL_S = 90.0
# So young, a part may be on its way still.
ON_THE_WAY_S = 0.8
CONGESTED_RETRY_S, CONGESTED_TRIES = 0.05, 40


class Answer:
    """``publish`` hands a part to the link; False when it takes none now. ``write`` and ``finish`` belong to one thread."""

    def __init__(
        self,
        call: MethodCall,
        publish: Callable[[MethodAnswer], bool],
        monotonic_s: Callable[[], float],
        *,
        stall_s: float = STALL_S,
    ) -> None:
        self.call = call
        self._publish = publish
        self._monotonic_s = monotonic_s
        self._stall_s = stall_s
        self._changed = threading.Condition()
        self._unacknowledged: deque[MethodAnswer] = deque()
        # How often each of them was handed to the link, and when last, by the monotonic clock.
        self._sent: dict[int, tuple[int, float]] = {}
        self._acknowledged = 0
        self._next = 0
        self._cancelled = False
        self._buffer = b""
        self.finished = False

    @property
    def begun(self) -> bool:
        """Whether anything was sent: from then on the status cannot be changed but by the end."""
        return self._next > 0

    @property
    def kept_bytes(self) -> int:
        """What it holds for the case that it is asked for again."""
        with self._changed:
            return sum(len(part.payload) for part in self._unacknowledged)

    def write(self, text: str) -> None:
        """Add to the payload. Waits while the window is full. Raises AnswerUnwanted."""
        self._buffer += text.encode(errors="replace")
        while len(self._buffer) > PART_BYTES:
            end = PART_BYTES
            while self._buffer[end] & 0xC0 == 0x80:  # inside a character
                end -= 1
            part, self._buffer = self._buffer[:end], self._buffer[end:]
            self._send(part, status=200, last=False)

    def finish(self, status: int) -> None:
        """The last part. Raises AnswerUnwanted."""
        part, self._buffer = self._buffer, b""
        self._send(part, status=status, last=True)
        self.finished = True

    def acknowledged(self, parts: int) -> bool:
        """The hub has so many parts. What follows and was sent some time ago is sent again. Returns whether that was news."""
        with self._changed:
            news = parts > self._acknowledged
            if news:
                self._acknowledged = min(parts, self._next)
                while self._unacknowledged and self._unacknowledged[0].part < parts:
                    self._sent.pop(self._unacknowledged.popleft().part, None)
                self._changed.notify_all()
            again = [part for part in self._unacknowledged if not self._on_the_way(part.part)]
        for part in again:
            if not self._hand_over(part):
                break
        return news

    def cancel(self) -> None:
        """The rest is not wanted: ``write`` raises from now on."""
        with self._changed:
            self._cancelled = True
            self._unacknowledged.clear()
            self._changed.notify_all()

    def _send(self, payload: bytes, *, status: int, last: bool) -> None:
        with self._changed:
            room = self._changed.wait_for(lambda: self._cancelled or len(self._unacknowledged) < WINDOW_PARTS, self._stall_s)
            if self._cancelled or not room:
                problem = "the hub said so" if self._cancelled else f"the hub took no more for {self._stall_s:g} s"
                raise AnswerUnwanted(method=self.call.name, problem=problem)
            part = MethodAnswer(
                device_uuid=self.call.device_uuid,
                session=self.call.session,
                id=self.call.id,
                part=self._next,
                last=last,
                status=status,
                payload=payload.decode(),
            )
            self._next += 1
            self._unacknowledged.append(part)
        # A link that is full has room in a moment; one that is gone is the hub's to wait for.
        tries = CONGESTED_TRIES
        while not self._hand_over(part) and tries > 0 and not self._cancelled:
            with self._changed:
                self._changed.wait_for(lambda: self._cancelled, CONGESTED_RETRY_S)
            tries -= 1

    def _hand_over(self, part: MethodAnswer) -> bool:
        if not self._publish(part):
            return False
        with self._changed:
            times, _ = self._sent.get(part.part, (0, 0.0))
            self._sent[part.part] = (times + 1, self._monotonic_s())
        return True

    def _on_the_way(self, part: int) -> bool:
        """Twice as long each time: a slow link must not be filled with repetitions."""
        times, at_s = self._sent.get(part, (0, 0.0))
        return times > 0 and self._monotonic_s() < at_s + ON_THE_WAY_S * 2.0 ** (times - 1)
