"""A few threads for work that would hold up the event loop: packing and unpacking large bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class OffLoop:
    """Threads start with the first work. Belongs to the loop's thread; so do ``then`` and ``failed``."""

    def __init__(self, threads: int = 2) -> None:
        self._threads = ThreadPoolExecutor(threads, "off-loop")

    def run(self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        """Exactly one of ``then`` and ``failed`` is called, later."""

        def finished(future: asyncio.Future[T]) -> None:
            problem = future.exception()
            if isinstance(problem, Exception):
                failed(problem)
            else:
                then(future.result())

        asyncio.get_running_loop().run_in_executor(self._threads, work).add_done_callback(finished)
