"""Direct methods of modules that are under way: who was asked, and who waits for the answer. Thread-safe; knows no MQTT."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

# Of one module; more than it could have in hand.
CALLS_MAX = 32
Answer = tuple[int, str]


class Calls:
    """Open calls by request id. The first answer counts, and only the module that was asked can give it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[str, Future[Answer]]] = {}

    def begin(self, module: str) -> tuple[str, Future[Answer]] | None:
        """A request id and the answer to come; None when the module has too many open calls."""
        request, answer = secrets.token_hex(8), Future[Answer]()
        with self._lock:
            if sum(asked == module for asked, _ in self._open.values()) >= CALLS_MAX:
                return None
            self._open[request] = (module, answer)
        return request, answer

    def answer(self, request: str, module: str, status: int, payload: str) -> bool:
        """``module`` answers; False when nobody waits for that."""
        with self._lock:
            asked, answer = self._open.get(request, ("", None))
        if answer is None or asked != module:
            return False
        with suppress(InvalidStateError):
            answer.set_result((status, payload))
        return True

    def end(self, request: str) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._open.pop(request, None)
