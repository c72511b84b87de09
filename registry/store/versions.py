"""Version numbers: counted up per name by the database, never given twice, never used again after a delete."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Table, bindparam, func, select

from registry.store.prepared import Prepared
from registry.store.upsert import insert

if TYPE_CHECKING:
    from sqlalchemy.sql.dml import ReturningInsert


def next_version(connection: Connection, names: Table, name: str) -> int:
    """The next number of ``name`` in a table like ``model_names``, which it makes known on first use.

    One statement that locks the row until the commit: of two callers the second waits, on SQLite as on PostgreSQL.
    """
    return int(_counted(names).first(connection, {"name": name}).last_version)


@functools.cache
def _counted(names: Table) -> Prepared:
    def count_up(dialect: str) -> ReturningInsert[int]:
        statement = insert(dialect, names).values(name=bindparam("name"), last_version=1)
        counted = {"last_version": names.c.last_version + 1}
        return statement.on_conflict_do_update(index_elements=[names.c.name], set_=counted).returning(names.c.last_version)

    return Prepared(count_up)


def count_there(connection: Connection, versions: Table) -> int:
    """How many rows a table like ``model_versions`` has, without those that an owner deleted although they were used.

    Two counts, each of which an index answers, where one count would read every row.
    """
    every = connection.execute(select(func.count()).select_from(versions)).scalar_one()
    deleted = connection.execute(select(func.count()).where(versions.c.deleted_at.is_not(None))).scalar_one()
    return int(every) - int(deleted)
