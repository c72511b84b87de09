"""INSERT … ON CONFLICT for the database at hand: the same words in two dialects that share no class."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sqlalchemy import Connection, Table

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert


def insert(at: Connection | str, table: Table) -> Insert:
    """An INSERT with ``on_conflict_do_nothing`` and ``on_conflict_do_update``, which both dialects spell alike.

    ``at`` is the connection or its dialect's name.
    """
    dialect = at if isinstance(at, str) else at.dialect.name
    # Loaded when needed: the PostgreSQL dialect costs megabytes that a workspace on SQLite need not pay.
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return cast("Insert", postgresql.insert(table))
