"""Holds the lease "controller": taken at the start, renewed while we live, shown in every transaction that writes."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from hedgerow.clock import Clock
from registry.errors import LeaseLost
from registry.store import leases
from registry.store.database import Database
from registry.store.leases import Lease

NAME = "controller"
TTL_S = 30.0
RENEW_S = 10.0


class LeaseKeeper:
    """Made under the role lock of the workspace's folder, so an earlier holder at the same place is surely gone."""

    def __init__(self, database: Database, clock: Clock, folder: Path) -> None:
        self._database, self._clock = database, clock
        place = f"{socket.gethostname()}:{folder}"
        # New with every start: the token then grows, and what an earlier controller still writes is refused.
        self._holder = f"{place}#{os.getpid()}.{secrets.token_hex(4)}"
        self._lease = self._take(f"{place}#")

    def lease(self) -> Lease:
        return self._lease

    def renew(self) -> None:
        """Raises LeaseLost, DatabaseUnavailable."""
        with self._database.write() as connection:
            renewed = leases.acquire(connection, NAME, self._holder, TTL_S, self._clock.now())
            holder = leases.find(connection, NAME)
        if renewed is None or renewed.token != self._lease.token:
            raise LeaseLost(name=NAME, holder=holder.holder if holder else "nobody")
        self._lease = renewed

    def release(self) -> None:
        """Let the next one in at once. Raises DatabaseUnavailable."""
        with self._database.write() as connection:
            leases.release(connection, self._lease)

    def _take(self, same_place: str) -> Lease:
        now = self._clock.now()
        with self._database.write() as connection:
            previous = leases.find(connection, NAME)
            if previous is not None and previous.holder.startswith(same_place):
                leases.release(connection, previous)
            lease = leases.acquire(connection, NAME, self._holder, TTL_S, now)
        if lease is None:
            raise LeaseLost(name=NAME, holder=previous.holder if previous else "another controller")
        return lease
