"""Secrets: named values that only processes of the control plane unseal; and the change of the key that seals them.

Whoever keeps a sealed value in the database seals it with :func:`seal` in the transaction that stores it: a change of keys
(:func:`seal_anew`, then :func:`forget_old_keys`) waits for such transactions, and they for it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Row, delete, select, text, union, update

from hedgerow.contracts.api import RotatedVault, SecretInfo
from registry.errors import RecordNotFound
from registry.store.tables import secrets, webhooks
from registry.store.time_text import from_text, to_text
from registry.store.upsert import insert
from registry.vault import Sealed, Vault

# Every sealed column: noun in its sealed name, name, key, value.
_SEALED: tuple[tuple[str, Column[Any], Column[Any], Column[Any]], ...] = (
    ("secret", secrets.c.name, secrets.c.key_id, secrets.c.sealed),
    ("webhook", webhooks.c.name, webhooks.c.key_id, webhooks.c.sealed_secret),
)


def seal(connection: Connection, vault: Vault, name: str, value: bytes) -> Sealed:
    """Seal ``value`` for a row that this writing transaction stores; ``name`` is ``secret/NAME`` or ``webhook/NAME``.

    To be called before the transaction locks rows of its own. Raises VaultRingUnreadable, OSError.
    """
    _lock(connection, "ROW EXCLUSIVE")
    return vault.seal(name, value)


def put(connection: Connection, vault: Vault, name: str, value: str, *, by: str, now: datetime) -> SecretInfo:
    """Set or replace a secret; ``by`` says who does."""
    sealed = seal(connection, vault, f"secret/{name}", value.encode())
    values = {"key_id": sealed.key_id, "sealed": sealed.data, "updated_at": to_text(now), "updated_by": by}
    fresh = insert(connection, secrets).values(name=name, revision=1, created_at=to_text(now), **values)
    changed = values | {"revision": secrets.c.revision + 1}
    connection.execute(fresh.on_conflict_do_update(index_elements=[secrets.c.name], set_=changed))
    return get(connection, name)


def find(connection: Connection, name: str, *, lock: bool = False) -> SecretInfo | None:
    """The secret without its value; ``lock``: nobody else changes it until this writing transaction ends."""
    row = _row(connection, name, lock=lock)
    return None if row is None else _info(row)


def get(connection: Connection, name: str, *, lock: bool = False) -> SecretInfo:
    """Raises RecordNotFound."""
    found = find(connection, name, lock=lock)
    if found is None:
        raise RecordNotFound(kind="secret", name=name, command="secret")
    return found


def page(connection: Connection, limit: int, after: str | None = None) -> tuple[list[SecretInfo], str | None]:
    """By name; ``after`` is the last name of the page before."""
    query = select(secrets).order_by(secrets.c.name).limit(limit + 1)
    if after is not None:
        query = query.where(secrets.c.name > after)
    rows = connection.execute(query).all()
    return [_info(row) for row in rows[:limit]], rows[limit - 1].name if len(rows) > limit else None


def remove(connection: Connection, name: str) -> None:
    """Raises RecordNotFound."""
    if connection.execute(delete(secrets).where(secrets.c.name == name)).rowcount == 0:
        raise RecordNotFound(kind="secret", name=name, command="secret")


def reveal(connection: Connection, vault: Vault, name: str) -> str:
    """The value, for a process of the control plane; no answer, log or event may hold it.

    To be the first thing that its transaction reads: an old snapshot may show a value whose key is gone by now.
    Raises RecordNotFound, VaultKeyMissing, VaultValueDamaged, VaultRingUnreadable.
    """
    # Before the row is read: the row may be of the moment before a change of keys.
    ring = vault.ring()
    row = _row(connection, name)
    if row is None:
        raise RecordNotFound(kind="secret", name=name, command="secret")
    return vault.open(f"secret/{name}", Sealed(row.key_id, row.sealed), ring=ring).decode()


def seal_anew(connection: Connection, vault: Vault) -> RotatedVault:
    """Put a new key on the ring and seal every value under it; in force with the commit of this writing transaction.

    A value that cannot be unsealed stops it before anything changes. Raises VaultKeyMissing, VaultValueDamaged.
    """
    _lock(connection, "SHARE ROW EXCLUSIVE")
    values = [
        (name, key_id, sealed, row.name, label, vault.open(label, Sealed(row.key_id, row.sealed)))
        for noun, name, key_id, sealed in _SEALED
        for row in connection.execute(select(name.label("name"), key_id.label("key_id"), sealed.label("sealed")))
        for label in (f"{noun}/{row.name}",)
    ]
    # On the disk before the first value needs it. Should this transaction fail, there is a key more that seals what comes.
    made = vault.add_key()
    for name, key_id, sealed, record, label, value in values:
        again = vault.seal(label, value)
        connection.execute(update(name.table).where(name == record).values({key_id: again.key_id, sealed: again.data}))
    return RotatedVault(key_id=made, resealed=len(values))


def forget_old_keys(connection: Connection, vault: Vault) -> None:
    """Drop the keys that no committed value needs; in a writing transaction of its own, after that of :func:`seal_anew`."""
    _lock(connection, "SHARE ROW EXCLUSIVE")
    vault.keep_keys(connection.execute(union(*(select(key_id) for _, _, key_id, _ in _SEALED))).scalars())


def _lock(connection: Connection, mode: str) -> None:
    """PostgreSQL's writers run side by side; SQLite has one at a time anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(text(f"LOCK TABLE secrets IN {mode} MODE"))


def _row(connection: Connection, name: str, *, lock: bool = False) -> Row[Any] | None:
    query = select(secrets).where(secrets.c.name == name)
    if lock:
        # In the order of everybody else, table before row: otherwise a change of keys could wait for us and we for it.
        _lock(connection, "ROW EXCLUSIVE")
        query = query.with_for_update()
    return connection.execute(query).one_or_none()


def _info(row: Row[Any]) -> SecretInfo:
    return SecretInfo(
        name=row.name,
        key_id=row.key_id,
        revision=row.revision,
        created_at=from_text(row.created_at),
        updated_at=from_text(row.updated_at),
        updated_by=row.updated_by,
    )
