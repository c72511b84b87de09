"""What the control plane needs of a place for content. Adapters: ``folder.py`` and ``object_store.py``.

Content under a digest is there whole or not at all, never changes, and is checked whenever it is read.

**Publishing beside a garbage collection** (theory of operation). A record may only refer to content that is there, and the
collection must never take content that a record is about to refer to. Four steps make that so, without a lock around both:

1. ``stage`` makes content durable under its final name; a temporary (a second link to it) is kept until the ``with`` ends.
2. In the transaction of the record, ``registry.store.blobs.record`` inserts the blob's row or updates its lease. Either way
   this transaction holds the row until its commit.
3. Still in it, ``Staged.confirm`` looks whether the content is there, and publishes it again from the temporary if not.
4. The collection deletes a row *and then the content* inside one transaction that holds the row (``store/garbage.py``).

Say the collection had the row first: step 2 waits for its commit; by then the content is gone for good, step 3 sees that and
publishes again, and nobody deletes it: the row has a lease now. Say step 2 came first: the collection passes over a row
that is held, and afterwards sees the lease. A collection that dies between deleting content and its commit leaves a row whose
content is gone; it had been marked as condemned in a transaction before, and a condemned row is no promise: everybody takes it
for absent, and step 2 takes the mark away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from registry.blobs.errors import BlobUnknown
from registry.blobs.hashing import Hashed, Readable

__all__ = ["BlobStore", "Readable", "Staged", "StoredBlob", "Swept"]


@dataclass(frozen=True)
class StoredBlob:
    """One blob as the store lists it; ``stored_at`` is the time of its (newest) publication by the store's clock."""

    digest: str
    size_bytes: int
    stored_at: datetime


@dataclass(frozen=True)
class Swept:
    """Remains of uploads whose writers are gone."""

    count: int
    size_bytes: int


class Staged:
    """Content that is durable under its digest and about to be recorded. Leave the ``with`` after the commit.

    ``chunks`` proves ranges of it; None when it has one chunk only.
    """

    def __init__(self, hashed: Hashed, republish: Callable[[], None], clean: Callable[[], None]) -> None:
        self.digest, self.size_bytes, self.chunks = hashed.digest, hashed.size_bytes, hashed.chunks
        self._republish, self._clean = republish, clean

    def confirm(self) -> None:
        """In the transaction that recorded it: make sure that the content is (still, or again) there.

        Raises StorageUnavailable.
        """
        self._republish()

    def __enter__(self) -> Staged:
        return self

    def __exit__(self, *_: object) -> None:
        self._clean()


class BlobStore(Protocol):
    """A place for content. All methods may be called from many threads and processes at once.

    Every method raises StorageUnavailable when the place itself fails (full disk, no permission, away).
    """

    def stage(self, stream: Readable, expected_digest: str | None = None) -> Staged:
        """Store what ``stream`` gives until its end: durable on return. Memory stays at a few MiB.

        Content that was there already is replaced by the same, which also mends damage. Raises DigestMismatch (nothing stored).
        """
        ...

    def adopt(self, path: Path, digest: str) -> Staged:
        """Take a finished file (made by a build) in as ``digest``, by hard link where possible.

        The file is checked first and must not be written to afterwards. Raises DigestMismatch.
        """
        ...

    def open(self, digest: str) -> BinaryIO:
        """A stream over the blob that raises BlobDamaged in place of its last bytes when the content is not right.

        Raises BlobUnknown.
        """
        ...

    def read_at(self, digest: str, start: int, size: int) -> bytes:
        """``size`` bytes from ``start`` (fewer at the end), not checked: see ``ranges.py``. Raises BlobUnknown."""
        ...

    def size(self, digest: str) -> int:
        """In bytes. Raises BlobUnknown."""
        ...

    def delete(self, digests: Sequence[str]) -> None:
        """Only for the garbage collection. What is not there is deleted already."""
        ...

    def stored(self) -> Iterator[StoredBlob]:
        """Every blob, in the order of digests; what is added or deleted meanwhile may be missed. Memory stays flat."""
        ...

    def sweep(self, before: datetime, *, dry_run: bool = False) -> Swept:
        """Remove what uploads that began before ``before`` left behind, except those whose writer lives."""
        ...

    def put(self, stream: Readable, expected_digest: str | None = None) -> tuple[str, int]:
        """Stage without recording: for content that the records learn of soon (within the lease time). Digest and bytes."""
        with self.stage(stream, expected_digest) as staged:
            return staged.digest, staged.size_bytes

    def has(self, digest: str) -> bool:
        """Whether content is there (it may be damaged)."""
        try:
            self.size(digest)
        except BlobUnknown:
            return False
        return True
