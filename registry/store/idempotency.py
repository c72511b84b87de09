"""Answers kept for requests that carried an Idempotency-Key, written in the transaction of their effect.

:func:`claim` comes first in that transaction: of two requests with one key the second waits for the first there, and then
finds its answer. :func:`keep` comes last. A transaction that fails leaves nothing, so the request may be tried again.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, select, tuple_, update

from registry.store.tables import idempotency_keys
from registry.store.time_text import to_text
from registry.store.upsert import insert

KEPT = timedelta(hours=24)
# With one new key in sixteen this many old ones go: nobody waits for a big clean-up.
_PURGED_AT_ONCE = 100


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered. ``made`` names the record of an answer that held a secret; its body was not kept then."""

    status: int
    body: str = ""
    headers: dict[str, str] = {}
    made: str | None = None


class FoundKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was used before; ``request_digest`` says for what."""

    request_digest: str
    answer: KeptAnswer


def claim(connection: Connection, token_id: str, key: str, request_digest: str, now: datetime) -> FoundKey | None:
    """Take ``key`` for this transaction (None), or say what it was used for. Waits for another that is using it now."""
    values = {"request_digest": request_digest, "status": 0, "answer": "", "created_at": to_text(now)}
    taken = insert(connection, idempotency_keys).values(token_id=token_id, key=key, **values).on_conflict_do_nothing()
    if connection.execute(taken.returning(idempotency_keys.c.key)).one_or_none() is not None:
        # Now and then, and then more than came since: the table stays small without a look at it for every request.
        if request_digest.endswith("0"):
            _forget_some(connection, now)
        return None
    row = connection.execute(select(idempotency_keys).where(_is(token_id, key)).with_for_update()).one_or_none()
    if row is None:
        # Another transaction has just forgotten it, old as it was.
        return claim(connection, token_id, key, request_digest, now)
    if row.created_at < to_text(now - KEPT):
        connection.execute(update(idempotency_keys).where(_is(token_id, key)).values(values))
        return None
    return FoundKey(request_digest=row.request_digest, answer=msgspec.json.decode(row.answer, type=KeptAnswer))


def keep(connection: Connection, token_id: str, key: str, answer: KeptAnswer) -> None:
    """Write down what a claimed key's request is answered with."""
    values = {"status": answer.status, "answer": msgspec.json.encode(answer).decode()}
    connection.execute(update(idempotency_keys).where(_is(token_id, key)).values(values))


def _forget_some(connection: Connection, now: datetime) -> None:
    both = (idempotency_keys.c.token_id, idempotency_keys.c.key)
    old = select(*both).where(idempotency_keys.c.created_at < to_text(now - KEPT)).order_by(idempotency_keys.c.created_at)
    # What another transaction is about to forget is none of ours, and not worth waiting for.
    rows = connection.execute(old.limit(_PURGED_AT_ONCE).with_for_update(skip_locked=True)).all()
    if rows:
        connection.execute(delete(idempotency_keys).where(tuple_(*both).in_([tuple(row) for row in rows])))


def _is(token_id: str, key: str) -> ColumnElement[bool]:
    return and_(idempotency_keys.c.token_id == token_id, idempotency_keys.c.key == key)
