"""Blobs in any store that fsspec has a file system for (``s3://bucket/prefix``): ``PREFIX/sha256/ab/ab12…``.

Content is first written to a local temporary, hashed on the way, and then copied to its final key: only then is its digest
known to be right, and an upload that is cut off never touches the store. Object stores make an object visible whole when its
last part is in, so a killed process leaves at most parts that no key leads to (``cut_uploads.py`` takes them back).
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from hedgerow.contracts.names import is_digest
from registry.blobs.cut_uploads import abort_uploads, started_uploads
from registry.blobs.errors import BlobUnknown, DigestMismatch, ObjectStoreUnavailable
from registry.blobs.folder import Temporary, oldest_writer, sweep_temporaries
from registry.blobs.hashing import READ_BYTES, Hashed, Readable, VerifiedReader, copy_hashed
from registry.blobs.port import BlobStore, Staged, StoredBlob, Swept

_LOG = logging.getLogger(__name__)
# A part of a multi-part upload, and what is read ahead; S3 takes parts of 5 MiB to 5 GiB, 10 000 of them.
_PART_BYTES = 16 * 1024 * 1024
_PARTS_MOST = 10_000


class ObjectStore(BlobStore):
    """The adapter for object stores. ``make`` gives the fsspec file system, ``root`` is ``bucket/prefix`` in it.

    ``scratch`` is a local folder for uploads under way: it needs room for as many as happen at once.
    """

    def __init__(self, make: Callable[[], Any], root: str, scratch: Path) -> None:
        self._make, self._root, self._scratch = make, root.strip("/"), scratch
        self._made: Any = None
        self._making = threading.Lock()

    def stage(self, stream: Readable, expected_digest: str | None = None) -> Staged:
        if expected_digest is not None:
            self._key(expected_digest)
        temporary = Temporary(self._scratch / "uploads")
        with temporary.kept_on_success():
            with temporary.create() as file:
                hashed = copy_hashed(stream, file.write)
            if expected_digest is not None and hashed.digest != expected_digest:
                raise DigestMismatch(found=hashed.digest, expected=expected_digest)
            return self._published(temporary, hashed)

    def adopt(self, path: Path, digest: str) -> Staged:
        self._key(digest)
        temporary = Temporary(self._scratch / "uploads")
        with temporary.kept_on_success():
            with temporary.take(path, digest) as file:
                hashed = copy_hashed(file)
            if hashed.digest != digest:
                raise DigestMismatch(found=hashed.digest, expected=digest)
            return self._published(temporary, hashed)

    def open(self, digest: str) -> BinaryIO:
        size = self.size(digest)
        return io.BufferedReader(VerifiedReader(cast(BinaryIO, _Pieces(self, digest, size)), digest, size), READ_BYTES)

    def read_at(self, digest: str, start: int, size: int) -> bytes:
        if size <= 0:
            return b""
        try:
            with _translated(digest):
                return bytes(self._fs.cat_file(self._key(digest), start=start, end=start + size))
        except ObjectStoreUnavailable:
            # What a file system answers with nothing, S3 calls an error: a range that begins behind the end.
            if start < self.size(digest):
                raise
            return b""

    def size(self, digest: str) -> int:
        with _translated(digest):
            return int(self._fs.info(self._key(digest))["size"])

    def delete(self, digests: Sequence[str]) -> None:
        keys = [self._key(digest) for digest in digests]
        if not keys:
            return
        with _translated(digests[0]):
            try:
                self._fs.rm(keys)
            except FileNotFoundError:
                # Some are gone already: one by one, the others still have to go.
                for key in keys:
                    if self._fs.exists(key):
                        self._fs.rm_file(key)

    def stored(self) -> Iterator[StoredBlob]:
        for number in range(256):
            with _translated(""):
                listed = self._listed(f"{self._root}/sha256/{number:02x}")
            for entry in sorted(listed, key=lambda entry: str(entry["name"])):
                digest = f"sha256:{str(entry['name']).rpartition('/')[2]}"
                if is_digest(digest) and entry["type"] == "file":
                    yield StoredBlob(digest, int(entry["size"]), _modified(entry))

    def sweep(self, before: datetime, *, dry_run: bool = False) -> Swept:
        """Raises ObjectStoreUnavailable."""
        local = self._scratch / "uploads"
        with _translated(""):
            # The store first: whose writer is not seen alive after that has none.
            started = started_uploads(self._fs, self._root)
            cut = abort_uploads(self._fs, self._root, started, before, oldest_writer(local), dry_run=dry_run)
        swept = sweep_temporaries(local, before, dry_run=dry_run)
        return Swept(swept.count + cut.count, swept.size_bytes + cut.size_bytes)

    @property
    def _fs(self) -> Any:  # noqa: ANN401 - fsspec has no types
        # Made when first needed, in the process that needs it: s3fs has a thread that does not survive a fork.
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _listed(self, folder: str) -> list[dict[str, Any]]:
        try:
            return list(self._fs.ls(folder, detail=True, refresh=True))
        except FileNotFoundError:
            return []

    def _key(self, digest: str) -> str:
        if not is_digest(digest):
            raise BlobUnknown(digest=digest[:80])
        hexadecimal = digest.removeprefix("sha256:")
        return f"{self._root}/sha256/{hexadecimal[:2]}/{hexadecimal}"

    def _published(self, temporary: Temporary, hashed: Hashed) -> Staged:
        key = self._key(hashed.digest)

        def publish() -> None:
            with _translated(None):
                self._copy_in(temporary.path, key, hashed.size_bytes)

        def republish() -> None:
            if not self.has(hashed.digest):
                publish()

        publish()
        return Staged(hashed, republish, temporary.remove)

    def _copy_in(self, source: Path, key: str, size: int) -> None:
        """Part by part; anything that goes wrong before the last one leaves nothing under ``key``."""
        part = max(_PART_BYTES, -(-size // _PARTS_MOST))
        if size <= part:
            self._fs.pipe_file(key, source.read_bytes())
            return
        target = self._fs.open(key, "wb", block_size=part, autocommit=False)
        try:
            with source.open("rb") as file:
                while piece := file.read(READ_BYTES):
                    target.write(piece)
            target.close()
            target.commit()
        except BaseException:
            try:
                target.discard()
            except Exception as problem:  # noqa: BLE001 - what went wrong first is what is told
                _LOG.warning("Parts of %s stay in the store until garbage is collected: %s", key, problem)
            # Otherwise it closes itself when it is forgotten, and that would store what it has.
            target.closed = True
            raise


class _Pieces:
    """Just enough of a file for VerifiedReader: content in order, a few MiB per request to the store."""

    def __init__(self, store: ObjectStore, digest: str, size: int) -> None:
        self._store, self._digest, self._size = store, digest, size
        self._at, self._held = 0, memoryview(b"")

    def readinto(self, buffer: memoryview) -> int:
        if not len(self._held) and self._at < self._size:
            self._held = memoryview(self._store.read_at(self._digest, self._at, _PART_BYTES // 4))
            self._at += len(self._held)
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def close(self) -> None:
        self._held = memoryview(b"")


def _modified(entry: dict[str, Any]) -> datetime:
    """S3 says ``LastModified``, others ``mtime`` or ``created``; without any it counts as new and is left alone."""
    found = entry.get("LastModified") or entry.get("mtime") or entry.get("created")
    if isinstance(found, datetime):
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return datetime.fromtimestamp(found, UTC) if isinstance(found, int | float) else datetime.max.replace(tzinfo=UTC)


@contextmanager
def _translated(digest: str | None) -> Iterator[None]:
    """What a store far away can answer, in our words; botocore's own exceptions need not be known here.

    ``digest`` is what is looked for; None when something is stored: what is not there then is the bucket.
    """
    try:
        yield
    except OSError as problem:
        if isinstance(problem, FileNotFoundError) and digest is not None:
            raise BlobUnknown(digest=digest) from None
        said = str(problem) or (os.strerror(problem.errno) if problem.errno else type(problem).__name__)
        raise ObjectStoreUnavailable(problem=said[:300]) from problem
    except Exception as problem:
        if type(problem).__module__.partition(".")[0] not in ("botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs"):
            raise
        raise ObjectStoreUnavailable(problem=str(problem)[:300]) from problem
