"""Several transfers at once; when one fails, or the process is asked to end, the others are broken off."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from packager.distribution.repository import Repository

T = TypeVar("T")
AT_ONCE = 2


def in_parallel(tasks: Iterable[Callable[[], T]], repository: Repository) -> list[T]:
    """The results in the order of ``tasks``. Raises what the first that failed raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        under_way = [pool.submit(task) for task in tasks]
        try:
            ended, _ = wait(under_way, return_when=FIRST_EXCEPTION)
            for one in under_way:
                if one in ended:
                    one.result()
            return [one.result() for one in under_way]
        except BaseException:
            repository.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
