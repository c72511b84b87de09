"""What must not come back as it was: sessions, leases, work under way, replicas, numbers that only one database understands.

All of it in the transaction that restores, on tables of today's schema.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, func, select, update

from hedgerow.contracts.work import Problem
from hedgerow.errors import Bug
from registry.store import activities, clock_jumps, events, facts, leases, runs
from registry.store.blobs import CONDEMNED
from registry.store.schema import Part
from registry.store.tables import blobs, deployments, device_sessions, endpoints, twins
from registry.store.tables import leases as lease_rows
from registry.store.tables import tokens as token_rows
from registry.store.time_text import to_text

INTERRUPTED = Problem(
    code="interrupted",
    message="This work was interrupted by a restore: it was under way or waiting when the backup was made",
    remedy="Start it again.",
)
# A device's token comes with its identity; a run's ends with its run.
_PEOPLE = ("owner", "contributor", "reader", "puller")


def begin_new_life(connection: Connection, now: datetime) -> tuple[str, int]:
    """Returns the new incarnation and how much work was interrupted."""
    # First, so that what is told below comes after all that was told before the backup.
    events.begin_new_life(connection)
    interrupted = _fail_work(connection, now)
    connection.execute(delete(lease_rows))
    # Of the old machine's clock.
    clock_jumps.write(connection, None)
    connection.execute(delete(device_sessions))
    _stop_deployments(connection)
    return facts.renew_incarnation(connection), interrupted


def revoke_tokens(connection: Connection, now: datetime) -> int:
    """Nobody's token is good any more but the devices'; returns how many were."""
    good = token_rows.c.revoked_at.is_(None) & token_rows.c.role.in_(_PEOPLE)
    return connection.execute(update(token_rows).where(good).values(revoked_at=to_text(now))).rowcount


def drop_condemned(connection: Connection) -> None:
    """Rows of content that garbage collection was about to delete: the backup does not hold it."""
    connection.execute(delete(blobs).where(blobs.c.leased_until == CONDEMNED))


def forget_signatures(connection: Connection) -> None:
    """With a new identity no device would believe what the old one signed: it is signed again for those that come back."""
    connection.execute(update(twins).values(desired=None))


def move_sequences(connection: Connection, part: Part) -> None:
    """PostgreSQL counts apart from the rows; on SQLite the rows are the counter."""
    if connection.dialect.name != "postgresql":
        return
    for table in part.metadata.sorted_tables:
        column = table.autoincrement_column
        if column is not None:
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            highest = select(func.max(column)).scalar_subquery()
            connection.execute(select(func.setval(sequence, func.coalesce(highest, 1), highest.is_not(None))))


def _fail_work(connection: Connection, now: datetime) -> int:
    ended = activities.interrupt_all(connection, INTERRUPTED, now)
    lease = leases.acquire(connection, "restore", "restore", 60.0, now)
    if lease is None:
        raise Bug(what="somebody else holds the lease of a restore")
    # Runs follow their activities, and their tokens end with them.
    runs.settle(connection, lease, now)
    return len(ended)


def _stop_deployments(connection: Connection) -> None:
    """No replica of the old machine runs here: the controller starts them anew."""
    connection.execute(update(deployments).values(replicas="[]"))
    live = deployments.c.state.in_(["ready", "degraded"])
    connection.execute(update(deployments).where(live).values(state="starting", reason="restored from a backup"))
    connection.execute(update(endpoints).values(scoring_url=None))
