"""Records into files of one folder: JSON lines as they come, or Parquet in whole files; bounded in size and number.

    NAME-20260102T030405.678-HOST-PID-1.jsonl       grows by whole lines until it is large enough; then the next is begun
    NAME-20260102T030405.678-HOST-PID-1.parquet     written under another name and renamed when it is whole

Before a file is begun the oldest of the folder's files go, whoever wrote them, until there is room for a full one. Several
processes may write to one folder; each may hold one unfinished file beyond the bound. One thread per writer.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from hedgerow.clock import Clock
from runtime.errors import CollectionUnusable
from runtime.settings import CollectFormat, RuntimeSettings

Record = Mapping[str, object]

_OURS = re.compile(r"[a-z]+-(\d{8}T\d{6}\.\d{3})-.+-\d+-\d+\.(?:jsonl|parquet)")
# What a crash may lose of a Parquet file that is not written yet, and what it may take of memory.
_PARQUET_AGE_S = 60.0
_PARQUET_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class CollectLimits:
    """``folder`` must exist."""

    folder: Path
    format: CollectFormat
    file_bytes: int
    files: int
    total_bytes: int

    @classmethod
    def of(cls, settings: RuntimeSettings) -> CollectLimits:
        """Raises CollectionUnusable when the folder cannot be made or written, or Parquet is not installed."""
        limits = cls(
            settings.collect_dir,
            settings.collect_format,
            # A bound on all of them must leave room for two, or each new file would find itself alone.
            min(settings.collect_file_bytes, settings.collect_bytes // 2),
            settings.collect_files,
            settings.collect_bytes,
        )
        limits.check()
        return limits

    def check(self) -> None:
        """Raises CollectionUnusable."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as problem:
            raise CollectionUnusable(folder=self.folder, problem=problem.strerror) from None
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise CollectionUnusable(folder=self.folder, problem="it cannot be written")
        if self.format == "parquet":
            try:
                import pyarrow.parquet  # noqa: F401 - only whether it is there
            except ImportError as problem:
                raise CollectionUnusable(folder=self.folder, problem=problem) from None


class CollectedFiles(Protocol):
    """Where records go."""

    def write(self, records: Sequence[Record]) -> None:
        """May keep them until ``flush``; raises OSError when the disk does not take them."""
        ...

    def flush(self) -> None: ...


def collected_files(limits: CollectLimits, name: str, clock: Clock) -> CollectedFiles:
    """The writer for the format; ``name`` begins its files' names."""
    names = _Names(limits, name, clock)
    return JsonLines(limits, names.next) if limits.format == "jsonl" else ParquetFiles(limits, names.next, clock)


class _Names:
    def __init__(self, limits: CollectLimits, name: str, clock: Clock) -> None:
        self._limits, self._name, self._clock = limits, name, clock
        self._count = 0

    def next(self) -> Path:
        """A name nobody has."""
        limits = self._limits
        self._count += 1
        moment = self._clock.now().astimezone(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
        host = re.sub(r"[^A-Za-z0-9.]+", "_", socket.gethostname())[:64] or "host"
        return limits.folder / f"{self._name}-{moment}-{host}-{os.getpid()}-{self._count}.{limits.format}"


def make_room(folder: Path, most_files: int, most_bytes: int) -> None:
    """Remove the oldest of our files until no more than these are left."""
    found: list[tuple[str, Path, int]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if (match := _OURS.fullmatch(entry.name)) is not None and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    found.append((match[1], Path(entry.path), entry.stat(follow_symlinks=False).st_size))
    found.sort()
    held = sum(size for _, _, size in found)
    for gone, (_, file, size) in enumerate(found):
        if len(found) - gone <= most_files and held <= most_bytes:
            return
        file.unlink(missing_ok=True)
        held -= size


class JsonLines:
    """A line for each record, written at once."""

    def __init__(self, limits: CollectLimits, next_file: Callable[[], Path]) -> None:
        self._limits, self._next_file = limits, next_file
        self._descriptor: int | None = None
        self._size = self._written = 0

    def write(self, records: Sequence[Record]) -> None:
        lines: list[bytes] = []
        for record in records:
            line = msgspec.json.encode(record) + b"\n"
            if self._descriptor is None or self._size + len(line) > self._limits.file_bytes:
                self._append(lines)
                lines = []
                self._begin()
            lines.append(line)
            self._size += len(line)
        self._append(lines)

    def flush(self) -> None:
        """The next record begins a file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _begin(self) -> None:
        self.flush()
        limits = self._limits
        make_room(limits.folder, limits.files - 1, limits.total_bytes - limits.file_bytes)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        # What callers sent is nobody else's business.
        self._descriptor = os.open(self._next_file(), flags, 0o600)
        self._size = self._written = 0

    def _append(self, lines: Sequence[bytes]) -> None:
        if not lines or self._descriptor is None:
            return
        text = memoryview(b"".join(lines))
        whole = self._written + len(text)
        try:
            while text:
                text = text[os.write(self._descriptor, text) :]
        except OSError:
            # No half line stays, and the file goes on once there is room: beginning others would push out good ones.
            os.ftruncate(self._descriptor, self._written)
            self._size = self._written
            raise
        self._written = whole


class ParquetFiles:
    """Records are kept until there are enough for a file, or for a minute. Nested values become JSON text."""

    def __init__(self, limits: CollectLimits, next_file: Callable[[], Path], clock: Clock) -> None:
        self._limits, self._next_file, self._clock = limits, next_file, clock
        self._rows: list[dict[str, Any]] = []
        self._size = 0
        self._since_s = 0.0

    def write(self, records: Sequence[Record]) -> None:
        now_s = self._clock.monotonic_s()
        for record in records:
            if not self._rows:
                self._since_s = now_s
            row = {name: _cell(value) for name, value in record.items()}
            self._rows.append(row)
            self._size += sum(len(cell) if isinstance(cell, str) else 16 for cell in row.values())
            if self._size >= min(self._limits.file_bytes, _PARQUET_BYTES):
                self.flush()
        if self._rows and now_s - self._since_s >= _PARQUET_AGE_S:
            self.flush()

    def flush(self) -> None:
        """Write what is kept as one file."""
        if not self._rows:
            return
        rows, self._rows, self._size = self._rows, [], 0
        import pyarrow as pa
        import pyarrow.parquet as parquet

        file = self._next_file()
        unfinished = file.with_name(f".{file.name}.unfinished")
        columns = {name: None for row in rows for name in row}
        table = pa.table({name: [row.get(name) for row in rows] for name in columns})
        try:
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
                parquet.write_table(table, out, compression="zstd")
            # Only now: a disk that takes no new file must not cost an old one.
            make_room(self._limits.folder, self._limits.files - 1, self._limits.total_bytes - unfinished.stat().st_size)
            unfinished.replace(file)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise


def _cell(value: object) -> object:
    if isinstance(value, datetime | int | float | str) or value is None:
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return msgspec.json.encode(value).decode()


def collection_variables(settings: RuntimeSettings) -> dict[str, str]:
    """The settings as the environment of a script's process, which writes to the same folder."""
    return {
        "AML_MODEL_DC_STORAGE_ENABLED": "true",
        "HEDGEROW_COLLECT_DIR": str(settings.collect_dir.absolute()),
        "HEDGEROW_COLLECT_FORMAT": settings.collect_format,
        "HEDGEROW_COLLECT_FILE_BYTES": str(settings.collect_file_bytes),
        "HEDGEROW_COLLECT_FILES": str(settings.collect_files),
        "HEDGEROW_COLLECT_BYTES": str(settings.collect_bytes),
    }
