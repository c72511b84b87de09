"""Keeps every blob where it is while backups run: the lease ``blobs.keep``, which garbage collection takes before it deletes.

One for all backups of a server process (there is one server to a workspace): they share the lease, the last one gives it
back. A killed server's lease runs out by itself, and its successor takes it over at once. What a killed collection held is
over after ``KEEP_LONGEST_S`` at the latest, whatever its clock said.
"""

from __future__ import annotations

import contextlib
import threading

from hedgerow.clock import Clock
from registry.backup.errors import BlobsBusy
from registry.errors import DatabaseUnavailable, LeaseLost
from registry.store import leases
from registry.store.database import Database
from registry.store.garbage import KEEP_LEASE, KEEP_LONGEST_S
from registry.store.leases import Lease

HOLDER = "backup"
# A reader that takes nothing is cut off after a minute (SILENCE_S), so this is never missed by a backup that lives.
TTL_S = KEEP_LONGEST_S
_RENEW_AFTER_S = 30.0


class BlobKeeper:
    """Used by many threads at once."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._lock = threading.Lock()
        self._users, self._renewed_s = 0, 0.0
        self._lease: Lease | None = None

    def begin(self) -> None:
        """From now on nothing is deleted, until as many :meth:`end`. Raises BlobsBusy, LeaseLost, DatabaseUnavailable."""
        with self._lock:
            if self._users == 0:
                self._lease = self._take()
                if self._lease is None:
                    raise self._busy()
            else:
                self._renew()
            self._users += 1

    def renew(self) -> None:
        """To be called more often than every minute. Raises LeaseLost, DatabaseUnavailable."""
        with self._lock:
            if self._clock.monotonic_s() - self._renewed_s > _RENEW_AFTER_S:
                self._renew()

    def _renew(self) -> None:
        renewed = self._take()
        # Another token means that somebody had it in between, and may have deleted what we count on.
        if renewed is None or self._lease is None or renewed.token != self._lease.token:
            self._lease = None
            raise LeaseLost(name=KEEP_LEASE, holder="garbage collection")
        self._lease = renewed

    def end(self) -> None:
        """The last one lets garbage collection go on; where that cannot be written, the lease runs out by itself."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._lease is not None:
                with contextlib.suppress(DatabaseUnavailable), self._database.write() as connection:
                    leases.release(connection, self._lease)

    def _take(self) -> Lease | None:
        with self._database.write() as connection:
            lease = leases.acquire(connection, KEEP_LEASE, HOLDER, TTL_S, self._clock.now(), longest_s=KEEP_LONGEST_S)
        self._renewed_s = self._clock.monotonic_s()
        return lease

    def _busy(self) -> BlobsBusy:
        with self._database.read() as connection:
            found = leases.find(connection, KEEP_LEASE)
        return BlobsBusy(holder=found.holder if found else "nobody", until=found.expires_at if found else "now")
