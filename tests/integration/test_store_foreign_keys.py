"""Every foreign key, on either database: no row points at nothing, and what is pointed at stays or takes the row along."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Float,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from registry.store.database import Database
from registry.store.tables import RECORDS
from tests.fixtures.postgres import fresh_database
from tests.registry_stores import BACKENDS, ready_database

KEYS = [key for table in RECORDS.sorted_tables for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name))]


@pytest.fixture(params=BACKENDS, scope="module")
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One row in every table; each points at those of the tables that it refers to."""
    with ExitStack() as stack:
        url = None
        if request.param == "postgresql":
            url = stack.enter_context(fresh_database(request.getfixturevalue("postgres_server")))
        opened = stack.enter_context(ready_database(tmp_path_factory.mktemp("full") / "workspace", url))
        with opened.write() as connection:
            rows: dict[str, dict[str, Any]] = {}
            for table in RECORDS.sorted_tables:
                connection.execute(delete(table))
                rows[table.name] = _row(table, rows)
                connection.execute(insert(table).values(**rows[table.name]))
        yield opened


def _row(table: Table, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    row = {column.name: _value(table, column) for column in table.columns}
    for key in table.foreign_key_constraints:
        for element in key.elements:
            row[element.parent.name] = rows[element.column.table.name][element.column.name]
    return row


def _value(table: Table, column: Column[Any]) -> object:
    for check in table.constraints:
        if isinstance(check, CheckConstraint) and str(check.sqltext).startswith(f"{column.name} IN"):
            return re.findall(r"'([^']*)'", str(check.sqltext))[0]
    if isinstance(column.type, BigInteger | Integer):
        return 1
    if isinstance(column.type, Float):
        return 1.0
    return b"x" if isinstance(column.type, LargeBinary) else "x"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: str(key.name).removeprefix("fk_"))
def test_no_row_points_at_nothing(full: Database, key: ForeignKeyConstraint) -> None:
    nowhere: dict[str, Any] = {
        element.parent.name: 77 if isinstance(element.parent.type, Integer) else "nowhere" for element in key.elements
    }
    with pytest.raises(IntegrityError), full.write() as connection:
        connection.execute(update(key.table).values(**nowhere))


@pytest.mark.parametrize("key", KEYS, ids=lambda key: str(key.name).removeprefix("fk_"))
def test_what_is_pointed_at_stays_or_takes_the_row_along(full: Database, key: ForeignKeyConstraint) -> None:
    """The database itself refuses, whatever a program forgot to ask; what belongs to a record goes with it."""

    class UndoneError(Exception):
        """Nothing of this is kept."""

    parent = key.elements[0].column.table
    refused = left = False
    try:
        with full.write() as connection:
            for other in KEYS:
                # Only this key shall decide: the rows of all others that hold the parent are out of the way.
                if other.elements[0].column.table is parent and other.table is not key.table and other.table is not parent:
                    _clear(connection, other.table)
            try:
                connection.execute(delete(parent))
            except IntegrityError:
                refused = True
            else:
                left = connection.execute(select(func.count()).select_from(key.table)).scalar_one() == 1
            raise UndoneError
    except UndoneError:
        pass
    if key.ondelete == "CASCADE":
        # Another key of the same row may hold it.
        others = [other for other in _beside(key) if other.ondelete != "CASCADE"]
        assert not left
        assert not refused or others
    elif any(other.ondelete == "CASCADE" and other.elements[0].column.table is parent for other in _beside(key)):
        # Both ends of its row are the one row of ``parent``, and the other end takes it along; see test_store_conversions.py.
        assert not left
    else:
        assert refused


def _beside(key: ForeignKeyConstraint) -> list[ForeignKeyConstraint]:
    return [other for other in key.table.foreign_key_constraints if other is not key]


def _clear(connection: Connection, table: Table) -> None:
    for other in KEYS:
        if other.elements[0].column.table is table and other.table is not table:
            _clear(connection, other.table)
    connection.execute(delete(table))
