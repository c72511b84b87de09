"""What a job wants done, as data: its story is a generator that yields these, ``jobs.py`` does them and sends back how it went.

A story so reads from top to bottom although it waits for processes and for the database in between, and nothing in it
blocks the one thread of the controller.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from sqlalchemy import Connection

from hedgerow.contracts.work import Problem
from hedgerow.process import Exited, ProcessSpec
from registry.store.leases import Lease

T = TypeVar("T")


@dataclass(frozen=True)
class RunProcess:
    """Run a process to its end. Sends back :class:`Ended`.

    ``reads``: "progress" for a process of ours, whose lines are ProgressLines; "text" for foreign code, whose lines are
    only shown. ``span`` is the part of the activity's progress (0 to 1) that this process goes through.
    """

    spec: ProcessSpec
    step: str
    span: tuple[float, float]
    reads: Literal["progress", "text"] = "progress"


@dataclass(frozen=True)
class Ended:
    """How a process ended; ``answer`` is the result of its last ProgressLine, ``tail`` its last lines of text."""

    exit: Exited
    answer: dict[str, Any] | None
    problem: Problem | None
    tail: tuple[str, ...]


@dataclass(frozen=True)
class Aside:
    """Do ``action`` in a thread while the loop goes on: work with files that is over in a moment. Sends back its result.

    Unlike a process it cannot be ended, so only what does not grow with the size of models may be done like this. A ``step``
    is shown.
    """

    action: Callable[[], object]
    step: str = ""
    progress: float = 0.0


@dataclass(frozen=True)
class Record:
    """Do ``action`` in one writing transaction, again and again while the database is unavailable. Sends back its result."""

    action: Callable[[Connection, Lease], object]


@dataclass(frozen=True)
class Note:
    """Show a line in the activity's log. Sends back nothing."""

    text: str


Effect = RunProcess | Aside | Record | Note


@dataclass(frozen=True)
class Verdict:
    """How the job ended. ``record`` is written in the transaction that ends the activity."""

    state: Literal["succeeded", "failed", "cancelled"] = "succeeded"
    result: dict[str, str] = field(default_factory=dict)
    problem: Problem | None = None
    record: Callable[[Connection, Lease], None] | None = None


Story = Generator[Effect, Any, Verdict]
Part = Generator[Effect, Any, T]


def run_process(effect: RunProcess) -> Part[Ended]:
    """``ended = yield from run_process(...)``."""
    return cast(Ended, (yield effect))


def aside(action: Callable[[], T], step: str = "", progress: float = 0.0) -> Part[T]:
    """``value = yield from aside(...)``."""
    return cast(T, (yield Aside(action, step, progress)))


def record(action: Callable[[Connection, Lease], T]) -> Part[T]:
    """``value = yield from record(...)``."""
    return cast(T, (yield Record(action)))
