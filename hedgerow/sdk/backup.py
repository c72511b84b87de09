"""Backups: fetched, checked on the way, and under their name only when they are whole and durable."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from hedgerow.atomic_write import publish
from hedgerow.contracts.backup import BackupEnd, BackupHeader
from hedgerow.contracts.backup_archive import BackupDamaged, read_header, read_members
from hedgerow.errors import Bug
from hedgerow.sdk.errors import BackupIncomplete, OutputExists
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/backup"
# The server reads all rows before it sends the first byte.
_SILENCE_S = 1800.0
# Told the bytes that arrived, and about how many there will be (0: not known yet).
Progress = Callable[[int, int], None]


class SavedBackup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that is on this disk."""

    file: str
    size_bytes: int
    header: BackupHeader
    end: BackupEnd


class Backups:
    """``client.backups`` (owners only)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def save(
        self,
        file: Path,
        *,
        blobs: bool = True,
        keys: bool = False,
        replace: bool = False,
        accept_lost: bool = False,
        on_progress: Progress | None = None,
    ) -> SavedBackup:
        """Back the workspace up into ``file`` (mode 0600), while everything goes on.

        ``blobs`` False leaves contents out (when they are kept otherwise); with ``keys`` whoever has the file is the workspace.
        Nothing is under this name unless it is whole. Raises OutputExists (unless ``replace``), BackupIncomplete (the workspace
        itself lacks contents; unless ``accept_lost``), BackupDamaged and ServerUnreachable (cut off on the way), OSError.
        """
        if file.is_dir() or (file.exists() and not replace):
            raise OutputExists(path=file)
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:100]}.", suffix=".part")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as target:
                header, end, size = self._fetch(target, file, blobs=blobs, keys=keys, on_progress=on_progress)
                target.flush()
                os.fsync(target.fileno())
            if end.lost and not accept_lost:
                first = end.lost[0]
                raise BackupIncomplete(count=len(end.lost), digest=first.digest, problem=first.problem)
            _publish(temporary, file, replace=replace)
        finally:
            temporary.unlink(missing_ok=True)
        return SavedBackup(file=str(file), size_bytes=size, header=header, end=end)

    def _fetch(
        self, target: BinaryIO, file: Path, *, blobs: bool, keys: bool, on_progress: Progress | None
    ) -> tuple[BackupHeader, BackupEnd, int]:
        query = f"?blobs={str(blobs).lower()}&keys={str(keys).lower()}"
        stream = _Copied(self._transport.download(_PATH + query, read_timeout_s=_SILENCE_S), target, on_progress)
        header: BackupHeader | None = None
        try:
            for member in read_members(stream, str(file)):
                if isinstance(member, BackupEnd):
                    if header is None:
                        break
                    return header, member, stream.arrived
                if member.kind == "header":
                    header = read_header(member, str(file))
                    stream.total = header.size_bytes
        except BackupDamaged as problem:
            raise BackupDamaged(file="What the server sent", problem=problem.fields["problem"]) from None
        raise Bug(what="an archive without beginning or end was taken for whole")


class _Copied:
    """Reads the answer, and writes to the file what it read."""

    def __init__(self, chunks: Iterator[bytes], target: BinaryIO, on_progress: Progress | None) -> None:
        self._chunks, self._target, self._on_progress = chunks, target, on_progress
        self._rest = memoryview(b"")
        self.arrived, self.total = 0, 0

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._target.write(chunk)
            self._rest = memoryview(chunk)
            self.arrived += len(chunk)
            if self._on_progress is not None:
                self._on_progress(self.arrived, self.total)
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


def _publish(temporary: Path, file: Path, *, replace: bool) -> None:
    try:
        publish(temporary, file, replace=replace)
    except FileExistsError:
        raise OutputExists(path=file) from None
