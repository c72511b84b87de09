"""Version numbers: counted up per name by the database, never given twice, never used again after a delete."""

from __future__ import annotations

from sqlalchemy import Connection, Table

from registry.store.upsert import insert


def next_version(connection: Connection, names: Table, name: str) -> int:
    """The next number of ``name`` in a table like ``model_names``, which it makes known on first use.

    One statement that locks the row until the commit: of two callers the second waits, on SQLite as on PostgreSQL.
    """
    statement = insert(connection, names).values(name=name, last_version=1)
    counted = statement.on_conflict_do_update(
        index_elements=[names.c.name], set_={"last_version": names.c.last_version + 1}
    ).returning(names.c.last_version)
    return int(connection.execute(counted).scalar_one())
