"""What nothing refers to: found without locks, condemned and then deleted in short transactions beside everything else.

A blob is garbage when its lease is over and no row of any table in ``_USES`` names it. Documents name digests too; whoever adds
one that needs the content adds a row to such a table (image and model documents have theirs, queued builds ``activity_blobs``).

Deleting takes two transactions, so that a crash at any point loses nothing (``registry/blobs/port.py`` has the argument):
``condemn`` marks rows that are garbage under their locks; ``forget`` takes the marked rows away, and its caller deletes the
content before that transaction commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, exists, select, update

from hedgerow.contracts.work import ENDED
from registry.blobs.port import StoredBlob
from registry.store.activities import BuildTask
from registry.store.blobs import CONDEMNED, hold_for_activity
from registry.store.tables import (
    activities,
    activity_blobs,
    blobs,
    edge_wheels,
    image_blobs,
    model_files,
    model_packs,
    model_samples,
    run_blobs,
)
from registry.store.time_text import to_text
from registry.store.upsert import insert

# Held by whoever needs that no blob goes away (a backup), and by the collection itself; nobody takes it for longer at a time.
KEEP_LEASE = "blobs.keep"
KEEP_LONGEST_S = 180.0
_DOUBT = timedelta(days=7)
_USES = (
    model_files.c.digest,
    model_samples.c.digest,
    model_packs.c.manifest_digest,
    model_packs.c.config_digest,
    image_blobs.c.digest,
    run_blobs.c.digest,
    activity_blobs.c.digest,
    edge_wheels.c.digest,
)


@dataclass(frozen=True)
class Garbage:
    """A blob that nothing needs."""

    digest: str
    size_bytes: int


def find(connection: Connection, now: datetime, after: str, limit: int) -> list[Garbage]:
    """The next ``limit`` blobs by digest that are garbage at this moment; "" begins."""
    query = select(blobs.c.digest, blobs.c.size_bytes).where(blobs.c.digest > after, _is_garbage(now))
    return [Garbage(row.digest, row.size_bytes) for row in connection.execute(query.order_by(blobs.c.digest).limit(limit))]


def condemn(connection: Connection, found: Sequence[Garbage], now: datetime) -> list[Garbage]:
    """Mark those that still are garbage and that nobody holds; from its commit on nobody begins to refer to them."""
    digests = [garbage.digest for garbage in found]
    locking = select(blobs.c.digest).where(blobs.c.digest.in_(digests)).order_by(blobs.c.digest)
    held = [row.digest for row in connection.execute(locking.with_for_update(skip_locked=True))]
    # A statement of its own: only now that the rows are held does it see every reference that was ever made to them.
    query = select(blobs.c.digest, blobs.c.size_bytes).where(blobs.c.digest.in_(held), _is_garbage(now))
    doomed = [Garbage(row.digest, row.size_bytes) for row in connection.execute(query.order_by(blobs.c.digest))]
    if doomed:
        marked = [garbage.digest for garbage in doomed]
        connection.execute(update(blobs).where(blobs.c.digest.in_(marked)).values(leased_until=CONDEMNED))
    return doomed


def forget(connection: Connection, condemned: Sequence[Garbage]) -> list[Garbage]:
    """Take condemned rows away. The caller deletes the content of what is returned, then commits.

    Left out is what was stored again meanwhile, and what somebody stores this very moment.
    """
    digests = [garbage.digest for garbage in condemned]
    query = select(blobs.c.digest, blobs.c.size_bytes).where(blobs.c.digest.in_(digests), blobs.c.leased_until == CONDEMNED)
    gone = [
        Garbage(row.digest, row.size_bytes)
        for row in connection.execute(query.order_by(blobs.c.digest).with_for_update(skip_locked=True))
    ]
    if gone:
        connection.execute(delete(blobs).where(blobs.c.digest.in_([garbage.digest for garbage in gone])))
    return gone


def unknown(connection: Connection, stored: Sequence[StoredBlob]) -> list[StoredBlob]:
    """Those that no row knows: their writer was killed between publishing and recording, or is about to record."""
    digests = [blob.digest for blob in stored]
    known = {row.digest for row in connection.execute(select(blobs.c.digest).where(blobs.c.digest.in_(digests)))}
    return [blob for blob in stored if blob.digest not in known]


def condemn_unknown(connection: Connection, stored: Iterable[StoredBlob], now: datetime) -> list[Garbage]:
    """Give content that no row knows a condemned one, so that it goes the way of all garbage; a row that came first stays."""
    doomed = [Garbage(blob.digest, blob.size_bytes) for blob in stored]
    rows = [
        {"digest": blob.digest, "size_bytes": blob.size_bytes, "stored_at": to_text(now), "leased_until": CONDEMNED}
        for blob in doomed
    ]
    if rows:
        connection.execute(insert(connection, blobs).on_conflict_do_nothing(index_elements=[blobs.c.digest]), rows)
    return doomed


def shorten_leases(connection: Connection, now: datetime, longest_s: float) -> int:
    """Leases that no right clock can have given end ``longest_s`` from now; returns how many.

    A week is left for the doubt that it is our clock that is wrong: a lease too long costs space, one too short an upload.
    """
    latest = now + timedelta(seconds=longest_s)
    wrong = blobs.c.leased_until > to_text(latest + _DOUBT)
    return connection.execute(update(blobs).where(wrong).values(leased_until=to_text(latest))).rowcount


def hold_for_work(connection: Connection) -> None:
    """Bring ``activity_blobs`` in line with the work there is: of work that ended, and of builds queued before it existed."""
    ended = select(activities.c.id).where(activities.c.state.in_(sorted(ENDED)))
    connection.execute(delete(activity_blobs).where(activity_blobs.c.activity_id.in_(ended)))
    query = select(activities.c.id, activities.c.request).where(
        activities.c.kind == "image.build", activities.c.state.not_in(sorted(ENDED))
    )
    for row in connection.execute(query).all():
        wanted = msgspec.json.decode(row.request, type=BuildTask)
        stored = select(blobs.c.digest).where(blobs.c.digest.in_([entry.digest for entry in wanted.source]))
        hold_for_activity(connection, row.id, [found.digest for found in connection.execute(stored)])


def _is_garbage(now: datetime) -> ColumnElement[bool]:
    unused = [~exists().where(column == blobs.c.digest) for column in _USES]
    return and_(blobs.c.leased_until <= to_text(now), *unused)
