"""A piece of work in a thread of its own; its end is a descriptor that becomes readable, as with a process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from hedgerow.errors import HedgerowError
from registry.controller.errors import of_file_work

log = logging.getLogger(__name__)


class SideWork:
    """``value`` or ``problem`` is there once the descriptor of :meth:`start` is readable."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self.value: object = None
        self.problem: HedgerowError | None = None

    def start(self) -> int:
        """The caller takes the descriptor over and closes it after the end. Raises Bug where no thread can be started."""
        try:
            end = os.eventfd(0, os.EFD_CLOEXEC)
        except OSError as problem:
            raise of_file_work(problem) from problem
        try:
            # A daemon: a file system that hangs must not keep the controller from ending.
            threading.Thread(target=self._run, args=(end,), name="side work", daemon=True).start()
        except RuntimeError as problem:
            os.close(end)
            raise of_file_work(problem) from problem
        return end

    def _run(self, end: int) -> None:
        try:
            self.value = self._action()
        except HedgerowError as problem:
            self.problem = problem
        except Exception as problem:
            self.problem = of_file_work(problem)
            log.exception("side work failed")
        os.eventfd_write(end, 1)
