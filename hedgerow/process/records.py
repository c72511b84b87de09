"""Reads what the shim wrote and says what it means. :func:`observation` is pure; everything it needs is in its arguments."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from hedgerow.process.spec import Absent, Exited, Observation, Running

R = TypeVar("R")


class StateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``state.json``: the process and its shim, written before the process runs. Times in seconds since 1970."""

    boot_id: str
    shim_pid: int
    shim_start_time_ticks: int
    pid: int
    start_time_ticks: int
    started_at: float


class ExitRecord(StateRecord, frozen=True, kw_only=True):
    """``exit.json``: the same and how it ended. ``cause``: self, stopped (somebody asked) or starter-ended."""

    exit_code: int | None
    signal: int | None
    ended_at: float
    cause: str
    log_lines_lost: int = 0


class Unreadable(msgspec.Struct, frozen=True):
    """A record that is there but damaged (power cut, foreign hand); ``modified_at`` in seconds since 1970."""

    modified_at: float


def read_state(folder: Path) -> StateRecord | Unreadable | None:
    """``state.json`` of a folder, None when there is none."""
    return _read(folder / "state.json", StateRecord)


def read_exit(folder: Path) -> ExitRecord | Unreadable | None:
    """``exit.json`` of a folder, None when there is none."""
    return _read(folder / "exit.json", ExitRecord)


def observation(
    ended: ExitRecord | Unreadable | None, state: StateRecord | Unreadable | None, *, boot_id: str, shim_alive: bool
) -> Observation:
    """What the records mean in this boot; ``shim_alive`` is about the shim of ``state``."""
    if isinstance(ended, ExitRecord):
        return _exited(ended)
    record = ended or state
    if record is None:
        return Absent()
    if isinstance(record, Unreadable):
        return _lost(record.modified_at, "its record is damaged")
    if record.boot_id != boot_id:
        return _lost(record.started_at, "the machine was restarted")
    if shim_alive:
        return Running(record.pid, record.start_time_ticks, _moment(record.started_at))
    return _lost(record.started_at, "the supervising process was killed")


def _exited(ended: ExitRecord) -> Exited:
    if ended.signal is None:
        reason = f"exit code {ended.exit_code}"
    else:
        reason = f"killed by signal {ended.signal} ({_signal_name(ended.signal)})"
    if ended.cause == "starter-ended":
        reason += " after the process that started it had ended"
    return Exited(
        exit_code=ended.exit_code,
        signal=ended.signal,
        started_at=_moment(ended.started_at),
        ended_at=_moment(ended.ended_at),
        lost=False,
        reason=reason,
    )


def _lost(started_at: float, reason: str) -> Exited:
    return Exited(exit_code=None, signal=None, started_at=_moment(started_at), ended_at=None, lost=True, reason=reason)


def _signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:  # real-time signals have no names
        return "real-time"


def _moment(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


def _read(path: Path, kind: type[R]) -> R | Unreadable | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError:
        return Unreadable(path.stat().st_mtime)
