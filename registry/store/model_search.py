"""Search among model versions: newest first, by index, whatever is asked for and however many versions there are.

Every condition is a *filter*: the rows of one table that fit it. One filter leads, the one that the fewest versions fit;
its index gives them newest first, a page is read off it, and the other conditions are looked up for each version by key.
Which one leads is found out by counting a few index entries, because neither database keeps statistics of pairs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, Table, and_, func, select, tuple_

from hedgerow.contracts.names import MAX_NAME_LENGTH, check_name
from hedgerow.errors import InvalidName
from registry.store.keyset import After, split_page
from registry.store.model_aliases import listed
from registry.store.model_words import Word, lookup_of
from registry.store.tables import model_aliases, model_data, model_labels, model_names, model_versions, model_words
from registry.store.time_text import from_text, to_text

# So few versions are looked up and sorted in less time than it takes to walk an index past others.
_FEW = 500
# One look-up for each.
_FEW_NAMES = 1000
# Counting stops here: a millisecond or two. Keys alone are sorted in a few more.
_MANY = 10_000


@dataclass(frozen=True)
class Label:
    """A tag or property that a version must have; ``value`` None means any."""

    key: str
    value: str | None = None


@dataclass(frozen=True)
class ModelQuery:
    """What a list of model versions is narrowed to; all of it must fit.

    ``name`` may end with a star: names that begin so. ``since`` is included, ``until`` is not. ``newest_only``: of each
    name the newest version alone.
    """

    name: str | None = None
    tags: tuple[Label, ...] = ()
    properties: tuple[Label, ...] = ()
    framework: str | None = None
    words: tuple[Word, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    run_id: str | None = None
    digest: str | None = None
    data_digest: str | None = None
    alias: str | None = None
    newest_only: bool = False


@dataclass(frozen=True)
class _Filter:
    """The rows of ``table`` that fit one condition; ``in_order``: their index has them by (created_at, name, version)."""

    table: Table
    fits: Callable[[FromClause], ColumnElement[bool]]
    in_order: bool

    @property
    def dated(self) -> bool:
        """Whether the rows of another table say when their versions were registered, so that a page is read off them."""
        return self.table in (model_labels, model_words)


_BEGINNING = re.compile(r"[a-z0-9._-]*\*")
_EVERY_NAME = _Filter(model_names, lambda table: table.c.name != "", in_order=False)


def search(connection: Connection, query: ModelQuery, limit: int, after: str | None) -> tuple[Sequence[Row[Any]], str | None]:
    """Rows of ``model_versions``, newest first, and the ``after`` of the following page (None at the end).

    Raises InvalidName, InvalidPage.
    """
    statement = page_statement(connection, query, limit, after)
    if statement is None:
        return [], None
    rows = list(connection.execute(statement))
    if connection.dialect.name == "sqlite":
        # The keys of a page are read in order; what joins the versions to them need not keep it.
        rows = sorted(rows, key=lambda row: (row.created_at, row.name, row.version), reverse=True)
    return split_page(rows, limit)


def page_statement(connection: Connection, query: ModelQuery, limit: int, after: str | None) -> Select[Any] | None:
    """The one statement that reads a page; None when nothing can fit. Raises InvalidName, InvalidPage."""
    seen = None if after is None else After.parse(after)
    filters = list(_filters(connection, query))
    if query.newest_only and _count(connection, _EVERY_NAME, _FEW_NAMES) <= _FEW_NAMES:
        return _ordered(_joined(_newest_of_each()), model_versions, filters, query, seen, limit)
    leader, fewest = _leader(connection, filters)
    if fewest == 0:
        return None
    if leader is not None and not (leader.in_order or leader.dated):
        return _ordered(_joined(_all_that_fit(leader)), model_versions, _without(filters, leader), query, seen, limit)
    if fewest is None:
        query = _where_all_have_some(connection, query, filters)
    if leader is None or not leader.dated:
        return _ordered(_versions(), model_versions, filters, query, seen, limit)
    led = leader.table.alias("led")
    keys = select(led.c.created_at, led.c.name, led.c.version).where(leader.fits(led))
    # Out of order means several values of one key, or several words: one version may fit more than once.
    keys = keys if leader.in_order else keys.distinct()
    page = _ordered(keys, led, _without(filters, leader), query, seen, limit).subquery("page")
    if connection.dialect.name == "sqlite":
        return _joined(page)
    # How names sort is the database's business (its collation), and a page ends where it says.
    return _joined(page).order_by(page.c.created_at.desc(), page.c.name.desc(), page.c.version.desc())


def _joined(keys: FromClause) -> Select[Any]:
    return _versions().join_from(keys, model_versions, _same(keys, model_versions))


def _without(filters: Sequence[_Filter], leader: _Filter) -> list[_Filter]:
    return [one for one in filters if one is not leader]


@functools.cache
def _versions() -> Select[Any]:
    """Made once: building it costs more than the database takes to answer it."""
    columns = ("name", "version", "manifest", "created_at", "revision")
    named = listed().label("aliases")
    return select(*(model_versions.c[column] for column in columns), named).where(model_versions.c.deleted_at.is_(None))


def _filters(connection: Connection, query: ModelQuery) -> Iterator[_Filter]:
    if query.name is not None:
        yield _named(connection, query.name)
    for kind, labels in (("tag", query.tags), ("property", query.properties)):
        for label in labels:
            yield _labelled(kind, label)
    for word in query.words:
        yield _worded(word)
    yield from _by_facts(query)


def _by_facts(query: ModelQuery) -> Iterator[_Filter]:
    if query.framework is not None:
        yield _Filter(model_versions, lambda t: t.c.framework == query.framework, in_order=True)
    for value, table, column in (
        (query.run_id, model_versions, "run_id"),
        (query.digest, model_versions, "digest"),
        (query.data_digest, model_data, "digest"),
        (query.alias, model_aliases, "alias"),
    ):
        if value is not None:
            yield _equals(table, column, value)


def _equals(table: Table, column: str, value: str) -> _Filter:
    return _Filter(table, lambda t: t.c[column] == value, in_order=False)


def _named(connection: Connection, name: str) -> _Filter:
    """Raises InvalidName."""
    if not name.endswith("*"):
        check_name(name, "model")
        return _Filter(model_versions, lambda t: t.c.name == name, in_order=True)
    if len(name) > MAX_NAME_LENGTH or not _BEGINNING.fullmatch(name):
        raise InvalidName(kind="model", value=name[:80])
    # How names sort is the database's business, so those that begin alike are looked up first.
    begins = select(model_names.c.name).where(model_names.c.name.startswith(name[:-1], autoescape=True))
    names = [row.name for row in connection.execute(begins.limit(_FEW_NAMES + 1))]
    if len(names) <= _FEW_NAMES:
        return _Filter(model_versions, lambda t: t.c.name.in_(names), in_order=False)
    return _Filter(model_versions, lambda t: t.c.name.startswith(name[:-1], autoescape=True), in_order=False)


def _labelled(kind: str, label: Label) -> _Filter:
    if label.value is None:
        return _Filter(model_labels, lambda t: and_(t.c.kind == kind, t.c.key == label.key), in_order=False)
    lookup = lookup_of(label.value)
    return _Filter(model_labels, lambda t: and_(t.c.kind == kind, t.c.key == label.key, t.c.lookup == lookup), in_order=True)


def _worded(word: Word) -> _Filter:
    if not word.prefix:
        return _Filter(model_words, lambda t: t.c.word == word.text, in_order=True)
    # Words are compared by code point, and this is the last one.
    return _Filter(model_words, lambda t: and_(t.c.word >= word.text, t.c.word < word.text + "\U0010ffff"), in_order=False)


def _leader(connection: Connection, filters: Sequence[_Filter]) -> tuple[_Filter | None, int | None]:
    """The filter to read the page from and how many rows fit it (None: not counted); no filter: by time."""
    if len(filters) == 1 and filters[0].in_order:
        return filters[0], None
    leader, fewest = None, _MANY + 1
    for one in filters:
        count = _count(connection, one, _MANY)
        if count < fewest and (one.in_order or one.dated or count <= _FEW):
            leader, fewest = one, count
        if fewest <= _FEW:
            break
    if leader is not None:
        return leader, fewest
    # Everything fits many. An index in order is as good as time, and no worse.
    return next((one for one in filters if one.in_order), None), None


def _count(connection: Connection, one: _Filter, most: int) -> int:
    """How many rows fit, counted up to one more than ``most``."""
    table = one.table.alias("counted")
    some = select(table.c.name).where(one.fits(table)).limit(most + 1).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def _all_that_fit(leader: _Filter) -> FromClause:
    """Keys of rows that are few but not in order: all are found, then sorted."""
    table = leader.table.alias("led")
    # Never more than were counted; said again so that the database knows it too.
    return select(table.c.name, table.c.version).where(leader.fits(table)).distinct().limit(_FEW + 1).subquery("found")


def _newest_of_each() -> FromClause:
    """Keys of the newest version of each name, by one look-up for each name."""
    mine = (model_versions.c.name == model_names.c.name) & model_versions.c.deleted_at.is_(None)
    newest = select(func.max(model_versions.c.version)).where(mine).correlate(model_names).scalar_subquery()
    return select(model_names.c.name, newest.label("version")).limit(_FEW_NAMES + 1).subquery("newest")


def _where_all_have_some(connection: Connection, query: ModelQuery, filters: Sequence[_Filter]) -> ModelQuery:
    """``query`` narrowed to the time in which each of several large filters has rows: walking beyond it finds nothing."""
    in_order = [one for one in filters if one.in_order]
    if len(in_order) < 2:
        return query
    since, until = query.since, query.until
    for one in in_order:
        table = one.table.alias("span")
        first, last = (
            connection.execute(select(edge(table.c.created_at)).where(one.fits(table))).scalar_one()
            for edge in (func.min, func.max)
        )
        since = max(from_text(first), since) if since else from_text(first)
        # `until` is not included: one microsecond, the finest that is stored, after the last.
        end = from_text(last) + timedelta(microseconds=1)
        until = min(end, until) if until else end
    return replace(query, since=since, until=until)


def _ordered(
    statement: Select[Any], table: FromClause, filters: Sequence[_Filter], query: ModelQuery, seen: After | None, limit: int
) -> Select[Any]:
    """``statement`` over ``table`` with every condition, for one page and one row more."""
    for one in filters:
        statement = statement.where(one.fits(table) if one.table is table else _looked_up(one, table))
    if query.since is not None:
        statement = statement.where(table.c.created_at >= to_text(query.since))
    if query.until is not None:
        statement = statement.where(table.c.created_at < to_text(query.until))
    if query.newest_only:
        statement = statement.where(~_has_newer(table))
    if seen is not None:
        key = tuple_(table.c.created_at, table.c.name, table.c.version)
        statement = statement.where(key < tuple_(seen.created_at, seen.name, seen.version))
    return statement.order_by(table.c.created_at.desc(), table.c.name.desc(), table.c.version.desc()).limit(limit + 1)


def _looked_up(one: _Filter, table: FromClause) -> ColumnElement[bool]:
    inner = one.table.alias()
    there = select(inner.c.name).where(_same(inner, table), one.fits(inner)).correlate(table)
    # OFFSET keeps PostgreSQL from turning this into a join over every row that fits; SQLite has no such idea.
    return there.offset(0).exists()


def _has_newer(table: FromClause) -> ColumnElement[bool]:
    newer = model_versions.alias("newer")
    there = select(newer.c.name).where(
        newer.c.name == table.c.name, newer.c.version > table.c.version, newer.c.deleted_at.is_(None)
    )
    return there.correlate(table).offset(0).exists()


def _same(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return and_(one.c.name == other.c.name, one.c.version == other.c.version)
