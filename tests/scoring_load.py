"""Callers that score without pause until they are stopped, each on a thread; every end of a request is counted by name."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from typing import Self

from tests.waiting import wait_for


class ScoringLoad(ABC):
    """A context manager that begins once ``begun`` requests went well.

    ``refused`` (nobody listens any more) is no failed request: a balancer would have gone elsewhere.
    """

    def __init__(self, clients: int, *, begun: int) -> None:
        self.ends: Counter[str] = Counter()
        self._begun = begun
        self.stopped = threading.Event()
        self._threads = [threading.Thread(target=self.call, args=(number,)) for number in range(clients)]

    @abstractmethod
    def call(self, number: int) -> None:
        """What one caller does until ``stopped``: count each end of a request in ``ends``."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: self.ends["ok"] > self._begun, what="the load to begin")
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def failures(self) -> dict[str, int]:
        return {end: count for end, count in self.ends.items() if end not in ("ok", "refused")}
