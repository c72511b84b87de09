"""What a supervised process is told (ProcessSpec) and what is seen of it (Observation). Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec


class ResourceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one process, inherited by its children; None leaves the limit of the starter in place.

    ``memory_bytes`` bounds private writable memory (RLIMIT_DATA): address space that is only reserved (thread stacks not
    yet touched by malloc arenas, mapped model files) does not count. ``processes`` counts all processes of the uid and
    does not bind root. Each child has the same limit for itself; a bound for a whole tree needs a cgroup.
    """

    memory_bytes: int | None = None
    open_files: int | None = None
    cpu_time_s: int | None = None
    processes: int | None = None
    file_size_bytes: int | None = None


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process to run. ``environment`` is complete: nothing is inherited from the starter.

    ``argv[0]`` without a slash is looked up in the PATH of ``environment``; ``cwd`` is absolute. With ``uid`` and no ``gid``
    the group has the same number; ``groups`` are further groups, for a starter that is root. stdout and stderr go to ``log``,
    ``log.1``, … (``log_files`` files of ``log_bytes_max``). ``exit_with_starter``: the process is ended (TERM, 5 s, KILL) when
    the process that called ``start`` ends, however it ends. ``cgroup``: the folder of a control group that it joins.
    """

    argv: list[str]
    cwd: str
    environment: dict[str, str]
    uid: int | None = None
    gid: int | None = None
    groups: list[int] = []
    limits: ResourceLimits = ResourceLimits()
    log_bytes_max: int = 1_000_000
    log_files: int = 3
    exit_with_starter: bool = False
    cgroup: str | None = None


@dataclass(frozen=True)
class Absent:
    """Nothing was started in this folder, or its start is not finished."""


@dataclass(frozen=True)
class Running:
    """The process runs; ``start_time_ticks`` (since boot, field 22 of /proc/PID/stat) tells it from a later one with its pid."""

    pid: int
    start_time_ticks: int
    started_at: datetime


@dataclass(frozen=True)
class Exited:
    """The process has ended. Exactly one of ``exit_code`` and ``signal`` is set, none when ``lost``.

    ``lost``: nobody saw how it ended (restart of the machine, supervising process killed); ``ended_at`` is None then.
    ``reason`` is one phrase for people, such as ``exit code 3`` or ``killed by signal 9 (SIGKILL)``.
    """

    exit_code: int | None
    signal: int | None
    started_at: datetime
    ended_at: datetime | None
    lost: bool
    reason: str


Observation = Absent | Running | Exited
