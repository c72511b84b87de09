"""Requests that never stop, for tests of what must not disturb them: several clients in threads, every answer counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Load:
    """``answers`` counts ``(status, first value)``; a connection that broke is ``(0, reason)``."""

    url: str
    body: dict[str, Any]
    answers: Counter[tuple[int, Any]] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def good(self) -> int:
        return sum(count for (status, _), count in self.answers.items() if status == 200)

    @property
    def bad(self) -> dict[tuple[int, Any], int]:
        return {answer: count for answer, count in self.answers.items() if answer[0] != 200}

    def run(self) -> None:
        with httpx.Client(timeout=10) as client:
            while not self._stop.is_set():
                self.answers[_ask(client, self.url, self.body)] += 1

    def stop(self) -> None:
        self._stop.set()


def _ask(client: httpx.Client, url: str, body: dict[str, Any]) -> tuple[int, Any]:
    try:
        answered = client.post(url, json=body)
    except httpx.HTTPError as problem:
        return 0, type(problem).__name__
    return answered.status_code, answered.json()[0][0] if answered.status_code == 200 else answered.text[:100]


@contextmanager
def steady_load(url: str | None, body: dict[str, Any], *, clients: int = 3) -> Iterator[Load]:
    load = Load(str(url), body)
    threads = [threading.Thread(target=load.run, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop()
        for thread in threads:
            thread.join(15)
