"""Statements that are asked at every request: compiled once for each database, then handed to the driver as they are.

SQLAlchemy takes longer to put such a statement together, to find its compiled form and to wrap its rows than either
database takes to answer it. What is lost: conversions of values between Python and the database. Columns of text, numbers and
bytes, of which all of the records consist, need none.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Dialect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement, Executable
from sqlalchemy.sql.compiler import SQLCompiler

Values = Mapping[str, Any]
_NONE: Values = {}


@dataclass
class _Compiled:
    words: str
    # What the statement holds by itself, by name; the names in their order where the driver counts, else None.
    fixed: Values
    order: tuple[str, ...] | None
    # The statement itself where a value is a list.
    listed: Executable | None
    # Made of the first answer's column names.
    row: Callable[[Iterable[Any]], Any] | None = None

    def arguments(self, values: Values) -> Values | list[Any]:
        given = {**self.fixed, **values}
        return given if self.order is None else [given[name] for name in self.order]


class Prepared:
    """A statement whose changing values are bind parameters; ``make`` builds it for a dialect's name ("sqlite", …).

    An INSERT without values of its own names the ``columns`` that it is given. Where a value is a list ("IN") the text differs
    from one execution to the next, and SQLAlchemy executes it.
    """

    def __init__(self, make: Callable[[str], Executable], *, columns: Iterable[str] | None = None) -> None:
        self._make, self._columns = make, None if columns is None else list(columns)
        self._compiled: dict[str, _Compiled] = {}

    @classmethod
    def of_text(cls, words: str) -> Prepared:
        """One that reads the same on every database."""
        return cls(lambda _: text(words))

    def rows(self, connection: Connection, values: Values = _NONE) -> list[Any]:
        """Every row, its columns by name, as of the transaction of ``connection``. Raises SQLAlchemy's DBAPIErrors."""
        found = self._for(connection.dialect)
        if found.listed is not None:
            return list(connection.execute(found.listed, values))
        with _cursor(connection, found.words) as cursor:
            cursor.execute(found.words, found.arguments(values))
            if found.row is None:
                found.row = _row_class([column[0] for column in cursor.description])
            return [found.row(row) for row in cursor.fetchall()]

    def first(self, connection: Connection, values: Values = _NONE) -> Any:  # noqa: ANN401 - a row of its columns
        """The first row; None when there is none."""
        rows = self.rows(connection, values)
        return rows[0] if rows else None

    def run(self, connection: Connection, values: Values = _NONE) -> None:
        """For a statement that returns nothing. Raises like :meth:`rows`."""
        found = self._for(connection.dialect)
        with _cursor(connection, found.words) as cursor:
            cursor.execute(found.words, found.arguments(values))

    def run_many(self, connection: Connection, values: Iterable[Values]) -> None:
        """:meth:`run` for each of ``values``, together. Raises like :meth:`rows`."""
        found = self._for(connection.dialect)
        if arguments := [found.arguments(one) for one in values]:
            with _cursor(connection, found.words) as cursor:
                cursor.executemany(found.words, arguments)

    def _for(self, dialect: Dialect) -> _Compiled:
        found = self._compiled.get(dialect.name)
        if found is None:
            # Two threads may both do this, with the same outcome.
            found = self._compiled[dialect.name] = _compile(self._make(dialect.name), dialect, self._columns)
        return found


def _compile(statement: Executable, dialect: Dialect, columns: list[str] | None) -> _Compiled:
    compiled = cast(SQLCompiler, cast(ClauseElement, statement).compile(dialect=dialect, column_keys=columns))
    fixed = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
    order = None if compiled.positiontup is None else tuple(compiled.positiontup)
    return _Compiled(compiled.string, fixed, order, statement if compiled.post_compile_params else None)


def _row_class(names: Iterable[str]) -> Callable[[Iterable[Any]], Any]:
    made: Any = namedtuple("Row", names)  # type: ignore[misc]  # the statement's names, known only now
    return cast(Callable[[Iterable[Any]], Any], made._make)


@contextmanager
def _cursor(connection: Connection, words: str) -> Iterator[Any]:
    """The driver's own; its errors become what SQLAlchemy would have raised."""
    dialect, held = connection.dialect, connection.connection
    driver, cursor = dialect.loaded_dbapi, held.cursor()
    try:
        yield cursor
    except driver.Error as problem:
        # A connection that is lost must not be given to others.
        if dialect.is_disconnect(problem, held.dbapi_connection, cursor):
            connection.invalidate(problem)
        raise DBAPIError.instance(words, None, problem, driver.Error, dialect=dialect) from problem
    finally:
        cursor.close()
