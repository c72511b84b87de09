"""The collection from beginning to end. Repeating it is always right: what a killed one left half done is found again.

First blobs that no record needs (by digest, a page at a time), then content that no row knows, then remains of uploads. It
holds the lease ``blobs.keep`` all the while, as a backup does, and stops at once when it has lost it: of all the machines that
have this workspace one collects at a time.

Leases of uploads, and a backup's, are judged by a time that goes on evenly: a clock that is set ahead, before or meanwhile,
ends none of them early (``registry/store/clock_jumps.py``), one that is set back lets nothing that is stored after it look old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from hedgerow.clock import Clock
from hedgerow.contracts.api import CollectedGarbage, FreedBlob
from registry.blobs.errors import BlobsKept
from registry.blobs.folder import sweep_temporaries
from registry.blobs.port import BlobStore, StoredBlob, Swept
from registry.store import clock_jumps, garbage, leases
from registry.store.blobs import LEASE_S
from registry.store.clock_jumps import SetAhead
from registry.store.database import Database
from registry.store.garbage import KEEP_LEASE, KEEP_LONGEST_S, Garbage
from registry.store.leases import Lease

# Content is deleted while its rows are held: so many at a time keep everybody else's waiting short.
_BATCH = 500
_LISTED = 2000
_FIRST = 20
_LEASE_TTL_S, _RENEW_S = 60.0, 10.0
_ROWS_DONE = 0.8

Report = Callable[[float, str], None]


class Collection:
    """One collection. ``grace_s``: content that no row knows is left alone for that long after it was stored.

    ``pushes`` is the folder of the server's unfinished uploads.
    """

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        clock: Clock,
        *,
        holder: str,
        grace_s: float,
        dry_run: bool,
        report: Report,
        pushes: Path | None = None,
    ) -> None:
        self._database, self._store, self._clock, self._report = database, store, clock, report
        self._holder, self._grace_s, self._dry_run = holder, grace_s, dry_run
        self._pushes = pushes
        self._ahead: SetAhead | None = None
        self._began, self._began_s = clock.now(), clock.monotonic_s()
        self._lease: Lease | None = None
        self._renewed_s = 0.0
        self._blobs = self._bytes = 0
        self._first: list[FreedBlob] = []

    def run(self) -> CollectedGarbage:
        """Raises BlobsKept (a backup runs), LeaseLost, StorageUnavailable, DatabaseUnavailable."""
        with self._database.read() as connection:
            self._ahead = clock_jumps.read(connection)
        self._take_lease()
        try:
            if not self._dry_run:
                with self._database.write() as connection:
                    garbage.hold_for_work(connection)
                    garbage.shorten_leases(connection, self._clock.now(), max(LEASE_S, self._grace_s))
            self._collect_rows()
            self._collect_unknown()
            swept = self._sweep()
        finally:
            self._let_go()
        return CollectedGarbage(
            blobs=self._blobs,
            size_bytes=self._bytes,
            leftovers=swept.count,
            leftover_bytes=swept.size_bytes,
            dry_run=self._dry_run,
            first=self._first,
        )

    def _sweep(self) -> Swept:
        """Remains of uploads, and pushes that nobody went on with."""
        swept = self._store.sweep(self._old(), dry_run=self._dry_run)
        if self._pushes is None:
            return swept
        left = sweep_temporaries(self._pushes, self._old(), dry_run=self._dry_run)
        return Swept(swept.count + left.count, swept.size_bytes + left.size_bytes)

    def _collect_rows(self) -> None:
        after = ""
        while True:
            self._keep_lease()
            # Looking takes as long as it takes and holds nothing; only what was found is locked.
            with self._database.read() as connection:
                found = garbage.find(connection, self._judged_at(), after, _BATCH)
            if not found:
                return
            after = found[-1].digest
            if self._dry_run:
                self._count(found)
            else:
                with self._database.write() as connection:
                    condemned = garbage.condemn(connection, found, self._judged_at())
                self._delete(condemned)
            self._tell(_ROWS_DONE * _place(after))

    def _collect_unknown(self) -> None:
        for page in _pages(self._store.stored(), _LISTED):
            self._keep_lease()
            # After the look: a clock that was set back before it made what was stored since look old.
            before = self._old()
            old = [blob for blob in page if blob.stored_at < before]
            with self._database.read() as connection:
                lost = garbage.unknown(connection, old)
            if lost and self._dry_run:
                self._count([Garbage(blob.digest, blob.size_bytes) for blob in lost])
            elif lost:
                with self._database.write() as connection:
                    condemned = garbage.condemn_unknown(connection, lost, self._clock.now())
                for start in range(0, len(condemned), _BATCH):
                    self._delete(condemned[start : start + _BATCH])
            self._tell(_ROWS_DONE + (1.0 - _ROWS_DONE) * _place(page[-1].digest))

    def _delete(self, condemned: list[Garbage]) -> None:
        """Rows and content in one transaction: see ``registry/blobs/port.py`` for why."""
        if not condemned:
            return
        with self._database.write() as connection:
            if self._lease is not None:
                leases.check(connection, self._lease)
            gone = garbage.forget(connection, condemned)
            self._store.delete([one.digest for one in gone])
        self._count(gone)

    def _count(self, found: list[Garbage]) -> None:
        self._blobs += len(found)
        self._bytes += sum(one.size_bytes for one in found)
        self._first += [FreedBlob(digest=one.digest, size_bytes=one.size_bytes) for one in found[: _FIRST - len(self._first)]]

    def _tell(self, progress: float) -> None:
        done = "would free" if self._dry_run else "freed"
        self._report(progress, f"{done} {self._blobs} blobs, {self._bytes} bytes so far")

    def _judged_at(self) -> datetime:
        """The steady time, and never more than what passed since the beginning."""
        elapsed = timedelta(seconds=self._clock.monotonic_s() - self._began_s)
        return min(clock_jumps.steady(self._ahead, moment) for moment in (self._clock.now(), self._began + elapsed))

    def _old(self) -> datetime:
        """What was stored before this, and no row knows, has nobody who is about to record it."""
        return self._judged_at() - timedelta(seconds=self._grace_s)

    def _take_lease(self) -> None:
        with self._database.write() as connection:
            self._lease = leases.acquire(
                connection,
                KEEP_LEASE,
                self._holder,
                _LEASE_TTL_S,
                self._clock.now(),
                longest_s=KEEP_LONGEST_S,
                judged_at=self._judged_at(),
            )
            holder = leases.find(connection, KEEP_LEASE)
        # Not inside: a lease that was found to be too long is shorter now.
        if self._lease is None:
            raise BlobsKept(holder=holder.holder if holder else "somebody else")
        self._renewed_s = self._clock.monotonic_s()

    def _keep_lease(self) -> None:
        if self._clock.monotonic_s() - self._renewed_s >= _RENEW_S:
            self._take_lease()

    def _let_go(self) -> None:
        if self._lease is not None:
            with self._database.write() as connection:
                leases.release(connection, self._lease)


def _place(digest: str) -> float:
    """How far a digest is on the way from the first to the last possible one, 0 to 1."""
    return int(digest.removeprefix("sha256:")[:8], 16) / 0xFFFFFFFF


def _pages(stored: Iterator[StoredBlob], size: int) -> Iterator[list[StoredBlob]]:
    while page := list(islice(stored, size)):
        yield page
