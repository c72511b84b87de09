"""Unfinished uploads of ``/v2/`` as files: ``work/pushes/NAME@ID``. They outlive the server, and end by themselves.

A file's length is how far its upload is; whose it is shows in its id, and nothing else is kept about it. What arrived before
a connection broke stays, so a client on a poor link goes on from there. The digest is looked at once, when it is finished.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from flask import current_app

from registry.blobs import READ_BYTES
from registry.blobs.errors import StorageUnavailable
from registry.blobs.folder import sweep_temporaries
from registry.blobs.hashing import Readable
from registry.server.errors import MalformedRequest, TooManyUploads, UploadBusy, UploadUnknown

EXTENSION = "hedgerow.pushes"
_RANDOM_CHARACTERS, _OWNER_CHARACTERS = 32, 12
# The shorter ones are from before uploads were told apart by their token.
_ID = re.compile(rf"[0-9a-f]{{{_RANDOM_CHARACTERS}}}([0-9a-f]{{{_OWNER_CHARACTERS}}})?\Z")
_CLOSED = ".closed"
# Unfinished at one time: of all together, and of one token, so that nobody alone keeps the others from pushing.
UPLOADS_MOST, UPLOADS_OF_ONE_MOST = 1000, 200


class PushFiles:
    """The uploads in ``folder``; ``kept_s`` after the last byte they end. One server has the folder to itself."""

    def __init__(self, folder: Path, kept_s: float) -> None:
        self._folder, self._kept = folder, timedelta(seconds=kept_s)
        self._lock, self._beginning = threading.Lock(), threading.Lock()
        self._written: set[str] = set()

    def begin(self, name: str, token_id: str, now: datetime) -> str:
        """A new upload to repository ``name`` by whoever has ``token_id``; its id. Raises TooManyUploads, StorageUnavailable."""
        owner = _owner(token_id)
        with _disk_trouble_said(), self._beginning:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            # The garbage collection does the same; here it keeps those who push from standing in each other's way.
            sweep_temporaries(self._folder, now - self._kept, dry_run=False)
            self._expect_room(owner)
            upload = secrets.token_hex(_RANDOM_CHARACTERS // 2) + owner
            os.close(os.open(self._path(name, upload), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return upload

    def size(self, name: str, upload: str) -> int:
        """How far it is, in bytes. Raises UploadUnknown."""
        try:
            return self._path(name, upload).stat().st_size
        except FileNotFoundError:
            raise UploadUnknown(upload=upload[:40], name=name) from None

    @contextmanager
    def writing(self, name: str, upload: str) -> Iterator[OpenUpload]:
        """The upload for one request alone. Raises UploadUnknown, UploadBusy."""
        path = self._path(name, upload)
        with self._lock:
            if path.name in self._written:
                raise UploadBusy(upload=upload)
            self._written.add(path.name)
        try:
            if not OpenUpload(path).is_closed:
                self.size(name, upload)
            yield OpenUpload(path)
        finally:
            with self._lock:
                self._written.discard(path.name)

    def _expect_room(self, owner: str) -> None:
        there = [path.name.removesuffix(_CLOSED) for path in self._folder.iterdir()]
        if sum(name.rpartition("@")[2][_RANDOM_CHARACTERS:] == owner for name in there) >= UPLOADS_OF_ONE_MOST:
            raise TooManyUploads(limit=UPLOADS_OF_ONE_MOST, whose=" with this token")
        if len(there) >= UPLOADS_MOST:
            raise TooManyUploads(limit=UPLOADS_MOST, whose="")

    def _path(self, name: str, upload: str) -> Path:
        """``name`` was checked by its grammar, which has neither "/" nor "@". Raises UploadUnknown."""
        if not _ID.match(upload):
            raise UploadUnknown(upload=upload[:40], name=name)
        return self._folder / f"{name}@{upload}"


class OpenUpload:
    """An upload that nobody else writes to."""

    def __init__(self, path: Path) -> None:
        self._path, self._closed = path, path.with_name(f"{path.name}{_CLOSED}")

    @property
    def path(self) -> Path:
        """Where its content lies."""
        return self._closed if self.is_closed else self._path

    @property
    def is_closed(self) -> bool:
        return self._closed.exists()

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def close(self) -> None:
        """Nothing is added from now on: the store may link this very file. What fails after that can be repeated."""
        if not self.is_closed:
            self._path.rename(self._closed)

    def append(self, stream: Readable, most_bytes: int | None = None) -> int:
        """Add what ``stream`` gives, in pieces of 1 MiB; the new size. Whatever breaks, what came before it stays.

        Raises MalformedRequest when there are more than ``most_bytes`` (then nothing of it stays), StorageUnavailable.
        """
        begun, piece = self.size, stream.read(READ_BYTES)
        if not piece:
            return begun
        if self.is_closed:
            raise MalformedRequest(problem="the upload was finished with less")
        with _disk_trouble_said(), self._path.open("ab", buffering=0) as file:
            while piece:
                if most_bytes is not None and file.tell() + len(piece) - begun > most_bytes:
                    file.truncate(begun)
                    raise MalformedRequest(problem="its body is longer than its Content-Range")
                _write_all(file, piece)
                piece = stream.read(READ_BYTES)
            return file.tell()

    def remove(self) -> None:
        """It ended: finished, cancelled, or wrong."""
        self._path.unlink(missing_ok=True)
        self._closed.unlink(missing_ok=True)


def push_files() -> PushFiles:
    """Those of the running app."""
    return cast(PushFiles, current_app.extensions[EXTENSION])


def _owner(token_id: str) -> str:
    return hashlib.sha256(token_id.encode()).hexdigest()[:_OWNER_CHARACTERS]


def _write_all(file: io.FileIO, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]  # an unbuffered file may take a part


@contextmanager
def _disk_trouble_said() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise StorageUnavailable(problem=os.strerror(problem.errno or 0)) from problem
