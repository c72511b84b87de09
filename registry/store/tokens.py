"""Tokens: random secrets that only their holders know; the database keeps their hash.

Form: ``hrw_ID_SECRET``. The id finds the row, the secret (256 random bits, so a plain sha256 is enough) is compared in
constant time.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, or_, select, update

from hedgerow.contracts.api import Role, TokenInfo
from registry.errors import DatabaseUnavailable, InvalidPage, RecordNotFound, TokenRefused
from registry.store.database import Database
from registry.store.prepared import Prepared
from registry.store.tables import tokens
from registry.store.time_text import from_text, maybe_from_text, to_text

PREFIX = "hrw"
# "Last used" is for people who clean up tokens: a minute is fine, and reads do not become writes.
_USE_RESOLUTION = timedelta(minutes=1)
# Subject of a page session: this and the id of the token that it was made from, with which it ends.
_PAGE = "page:"
# Asked at every request.
_BY_ID = Prepared(lambda _: select(tokens).where(tokens.c.id == bindparam("token_id")))


@dataclass(frozen=True)
class VerifiedToken:
    """A token that was just found good."""

    id: str
    name: str
    role: Role
    subject: str
    expires_at: datetime | None
    last_used_at: datetime | None
    scopes: tuple[str, ...] = ()

    @property
    def is_page_session(self) -> bool:
        """Whether it was made for a browser's cookie; such a token is good for nothing else."""
        return self.subject.startswith(_PAGE)


def create(
    connection: Connection,
    *,
    name: str,
    role: Role,
    now: datetime,
    subject: str = "",
    scopes: Sequence[str] = (),
    created_by: str = "",
    expires_at: datetime | None = None,
    made: tuple[str, str] | None = None,
) -> TokenInfo:
    """Make a token; ``secret`` of the answer is the whole token text and exists nowhere else.

    ``subject`` binds a "device" token to its device's uuid and a "run" token to its run's id; no ``scopes`` means
    everything that the role may. ``made`` are id and secret that somebody derived who can derive them again.
    """
    token_id, secret = made or (secrets.token_hex(6), secrets.token_urlsafe(32))
    connection.execute(
        tokens.insert().values(
            id=token_id,
            name=name,
            role=role,
            subject=subject,
            secret_hash=_hash(secret),
            scopes=msgspec.json.encode(list(scopes)).decode(),
            created_by=created_by,
            created_at=to_text(now),
            expires_at=None if expires_at is None else to_text(expires_at),
        )
    )
    return msgspec.structs.replace(find(connection, token_id), secret=text_of(token_id, secret))


def text_of(token_id: str, secret: str) -> str:
    """A token as its holder gets it."""
    return f"{PREFIX}_{token_id}_{secret}"


def verify(connection: Connection, text: str, now: datetime) -> VerifiedToken:
    """Raises TokenRefused unless ``text`` is a token that is known, not revoked and not expired."""
    prefix, _, rest = text.partition("_")
    token_id, _, secret = rest.partition("_")
    row = None
    # Others may send anything (Basic passwords and cookies hold NUL, too), which PostgreSQL would refuse in its own way.
    if prefix == PREFIX and text.isascii() and token_id.isalnum() and secret:
        row = _BY_ID.first(connection, {"token_id": token_id})
    if row is None or not hmac.compare_digest(row.secret_hash, _hash(secret)):
        raise TokenRefused(problem="it is not one of this workspace's")
    return _good(row, now)


def by_id(connection: Connection, token_id: str, now: datetime) -> VerifiedToken:
    """The token that something else was made from, whose maker proved that. Raises TokenRefused unless it is still good."""
    row = _BY_ID.first(connection, {"token_id": token_id})
    if row is None:
        raise TokenRefused(problem="it is not one of this workspace's")
    return _good(row, now)


def _good(row: Any, now: datetime) -> VerifiedToken:  # noqa: ANN401 - a row of either kind
    if row.revoked_at is not None:
        raise TokenRefused(problem=f"it was revoked at {row.revoked_at}")
    if row.expires_at is not None and from_text(row.expires_at) <= now:
        raise TokenRefused(problem=f"it expired at {row.expires_at}")
    return VerifiedToken(
        id=row.id,
        name=row.name,
        role=row.role,
        subject=row.subject,
        expires_at=maybe_from_text(row.expires_at),
        last_used_at=maybe_from_text(row.last_used_at),
        scopes=tuple(_scopes(row)),
    )


def is_good(connection: Connection, token_id: str, now: datetime) -> bool:
    """Whether a token that was found good once still is: for answers that go on for long."""
    row = _BY_ID.first(connection, {"token_id": token_id})
    return row is not None and row.revoked_at is None and (row.expires_at is None or from_text(row.expires_at) > now)


def create_page_session(connection: Connection, parent: VerifiedToken, name: str, now: datetime, lasts: timedelta) -> TokenInfo:
    """A reader token for a browser's cookie; it reaches no more than ``parent``, never outlives it, and is revoked with it."""
    expires_at = now + lasts if parent.expires_at is None else min(now + lasts, parent.expires_at)
    subject = f"{_PAGE}{parent.id}"
    return create(connection, name=name, role="reader", subject=subject, scopes=parent.scopes, expires_at=expires_at, now=now)


def note_use(database: Database, token: VerifiedToken, now: datetime) -> None:
    """Remember when a token was last used, to the minute. A database that cannot write now refuses no reader."""
    if token.last_used_at is not None and abs(now - token.last_used_at) < _USE_RESOLUTION:
        return
    try:
        with database.write() as connection:
            connection.execute(update(tokens).where(tokens.c.id == token.id).values(last_used_at=to_text(now)))
    except DatabaseUnavailable:
        return


def find(connection: Connection, token_id: str) -> TokenInfo:
    """Raises RecordNotFound."""
    row = connection.execute(select(tokens).where(tokens.c.id == token_id)).one_or_none()
    if row is None:
        raise RecordNotFound(kind="token", name=token_id, command="token")
    return _info(row)


def newest(connection: Connection, limit: int, after: str | None = None) -> list[TokenInfo]:
    """Newest first; ``after`` is the id of the last one seen. Raises InvalidPage."""
    query = select(tokens).order_by(tokens.c.created_at.desc(), tokens.c.id.desc()).limit(limit)
    if after:
        at = connection.execute(select(tokens.c.created_at).where(tokens.c.id == after)).scalar()
        if at is None:
            raise InvalidPage(value=after[:80])
        query = query.where(or_(tokens.c.created_at < at, (tokens.c.created_at == at) & (tokens.c.id < after)))
    return [_info(row) for row in connection.execute(query)]


def revoke(connection: Connection, token_id: str, now: datetime) -> TokenInfo:
    """From now on the token is refused, and the pages opened with it; a second time changes nothing. Raises RecordNotFound."""
    either = or_(tokens.c.id == token_id, tokens.c.subject == f"{_PAGE}{token_id}")
    connection.execute(update(tokens).where(either, tokens.c.revoked_at.is_(None)).values(revoked_at=to_text(now)))
    return find(connection, token_id)


def revoke_for(connection: Connection, role: Role, subject: str, now: datetime) -> int:
    """Revoke every token of ``role`` bound to ``subject`` (a deleted device, an ended run); returns how many there were."""
    done = connection.execute(
        update(tokens)
        .where(tokens.c.role == role, tokens.c.subject == subject, tokens.c.revoked_at.is_(None))
        .values(revoked_at=to_text(now))
    )
    return done.rowcount


def forget_for(connection: Connection, role: Role, subject: str) -> None:
    """Drop every token of ``role`` bound to ``subject``, for one that is about to get others: they would pile up."""
    connection.execute(delete(tokens).where(tokens.c.role == role, tokens.c.subject == subject))


def forget_expired(connection: Connection, name: str, now: datetime) -> None:
    """Drop expired tokens called ``name``: page sessions would otherwise pile up."""
    connection.execute(delete(tokens).where(tokens.c.name == name, tokens.c.expires_at < to_text(now)))


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _scopes(row: Any) -> list[str]:  # noqa: ANN401 - a row of either kind
    return msgspec.json.decode(row.scopes, type=list[str])


def _info(row: Row[Any]) -> TokenInfo:
    return TokenInfo(
        id=row.id,
        name=row.name,
        role=row.role,
        scopes=_scopes(row),
        created_by=row.created_by,
        created_at=from_text(row.created_at),
        expires_at=maybe_from_text(row.expires_at),
        revoked_at=maybe_from_text(row.revoked_at),
        last_used_at=maybe_from_text(row.last_used_at),
    )
