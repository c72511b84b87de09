"""What was pushed into a repository of ``/v2/`` and is no image's yet: blobs, manifests of single platforms, early referrers.

A blob belongs to a repository when a version of that image consists of it, or when it was pushed or mounted there less than
a lease ago (``pushed_blobs``). Nobody gets at content by its digest alone, and what nothing is made of goes with its lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, delete, exists, or_, select, update

from hedgerow.contracts.image import Referrer
from registry.store.blobs import CONDEMNED, lease
from registry.store.images import ImageBlob
from registry.store.tables import blobs, image_blobs, pushed_blobs
from registry.store.time_text import to_text
from registry.store.upsert import insert

# SQLite takes 32 766 values in one statement.
_MANY = 1000


@dataclass(frozen=True)
class Pushed:
    """One blob for a repository. ``media_type`` of a manifest is its own; ``referrer`` says what it refers to, if anything."""

    digest: str
    media_type: str
    referrer: Referrer | None = None


def note(connection: Connection, repository: str, pushed: Pushed, until: datetime) -> None:
    """The blob is the repository's until then; it must be known (``registry.store.blobs.record``) and leased as long."""
    referrer = pushed.referrer
    row = {
        "repository": repository,
        "digest": pushed.digest,
        "media_type": pushed.media_type,
        "subject": None if referrer is None else referrer.subject,
        "referrer": None if referrer is None else msgspec.json.encode(referrer).decode(),
        "expires_at": to_text(until),
    }
    statement = insert(connection, pushed_blobs).values(**row)
    changed = {name: statement.excluded[name] for name in ("media_type", "subject", "referrer", "expires_at")}
    key = [pushed_blobs.c.repository, pushed_blobs.c.digest]
    if pushed.media_type:
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=changed))
    else:
        # A manifest whose bytes are pushed once more as a blob stays a manifest.
        connection.execute(
            statement.on_conflict_do_update(index_elements=key, set_={"expires_at": statement.excluded.expires_at})
        )


def find(connection: Connection, repository: str, digest: str, now: datetime) -> ImageBlob | None:
    """A blob that was pushed into ``repository`` lately; its media type is empty unless it came as a manifest."""
    query = (
        select(pushed_blobs.c.digest, pushed_blobs.c.media_type, blobs.c.size_bytes)
        .join(blobs, blobs.c.digest == pushed_blobs.c.digest)
        .where(
            pushed_blobs.c.repository == repository,
            pushed_blobs.c.digest == digest,
            pushed_blobs.c.expires_at > to_text(now),
            blobs.c.leased_until != CONDEMNED,
        )
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else ImageBlob(row.digest, row.media_type, row.size_bytes)


def sizes_in(connection: Connection, repository: str, digests: Iterable[str], now: datetime) -> dict[str, int]:
    """The sizes of those of ``digests`` that are the repository's. Only a lease keeps them there (:func:`hold`)."""
    wanted, found = sorted(set(digests)), dict[str, int]()
    of_image = exists(1).where(image_blobs.c.image_name == repository, image_blobs.c.digest == blobs.c.digest)
    of_push = exists(1).where(
        pushed_blobs.c.repository == repository,
        pushed_blobs.c.digest == blobs.c.digest,
        pushed_blobs.c.expires_at > to_text(now),
    )
    there = select(blobs.c.digest, blobs.c.size_bytes).where(blobs.c.leased_until != CONDEMNED, or_(of_image, of_push))
    for start in range(0, len(wanted), _MANY):
        part: Sequence[str] = wanted[start : start + _MANY]
        found |= {row.digest: row.size_bytes for row in connection.execute(there.where(blobs.c.digest.in_(part)))}
    return found


def hold(connection: Connection, repository: str, digests: Iterable[str], now: datetime, lease_s: float) -> dict[str, int]:
    """:func:`sizes_in`, and all that is found stays the repository's for at least half a lease from now."""
    found = sizes_in(connection, repository, digests, now)
    leased = lease(connection, found, now, lease_s=lease_s)
    held = {digest: size for digest, size in found.items() if digest in leased}
    until = to_text(now + timedelta(seconds=lease_s))
    for start in range(0, len(held), _MANY):
        part = sorted(held)[start : start + _MANY]
        here = (pushed_blobs.c.repository == repository) & pushed_blobs.c.digest.in_(part)
        connection.execute(update(pushed_blobs).where(here).values(expires_at=until))
    return held


def waiting_for(connection: Connection, repository: str, subject: str, now: datetime) -> list[Referrer]:
    """Referrers that were pushed before what they refer to is part of an image, in the order of digests."""
    query = select(pushed_blobs.c.referrer).where(
        pushed_blobs.c.repository == repository, pushed_blobs.c.subject == subject, pushed_blobs.c.expires_at > to_text(now)
    )
    rows = connection.execute(query.order_by(pushed_blobs.c.digest))
    return [msgspec.json.decode(row.referrer, type=Referrer) for row in rows]


def forget_expired(connection: Connection, now: datetime) -> None:
    """Rows that mean nothing any more; their blobs are the garbage collection's."""
    key = (pushed_blobs.c.repository, pushed_blobs.c.digest)
    old = select(*key).where(pushed_blobs.c.expires_at <= to_text(now)).order_by(*key).limit(_MANY)
    # What another push is about to forget or renew is left to it.
    rows = connection.execute(old.with_for_update(skip_locked=True)).all()
    for row in rows:
        connection.execute(delete(pushed_blobs).where(key[0] == row.repository, key[1] == row.digest))
