"""Search among model versions: newest first, by index, whatever is asked for and however many versions there are.

Every condition is a *filter*: the rows of one table that fit it. One filter leads, the one that the fewest versions fit;
its index gives them newest first, a page is read off it, and the other conditions are looked up for each version by key.
Which one leads is found out by counting a few index entries, because neither database keeps statistics of pairs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    FromClause,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    desc,
    func,
    intersect,
    select,
    tuple_,
)

from hedgerow.contracts.names import MAX_NAME_LENGTH, check_known_name
from hedgerow.errors import InvalidName
from registry.store import model_conditions as conditions
from registry.store.keyset import After, split_page
from registry.store.model_aliases import listed
from registry.store.model_conditions import Condition, Filter
from registry.store.model_words import Word, lookup_of
from registry.store.prepared import Prepared
from registry.store.tables import model_names, model_versions
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


_BEGINNING = re.compile(r"[a-z0-9._-]*\*")


@dataclass(frozen=True)
class _Shape:
    """All that the text of a page's statement depends on; the values are given apart, so that it is made once.

    ``leader``: the filter that the page is read from (None: by time); ``newest``: from the newest version of each name;
    ``all_large``: no filter is known to have few rows.
    """

    filters: tuple[Filter, ...]
    leader: Filter | None
    newest: bool
    all_large: bool
    bounds: tuple[str, ...]
    newest_only: bool
    is_later_page: bool


def search(connection: Connection, query: ModelQuery, limit: int, after: str | None) -> tuple[Sequence[Any], str | None]:
    """Rows of ``model_versions``, newest first, and the ``after`` of the following page (None at the end).

    Raises InvalidName, InvalidPage.
    """
    found = _plan(connection, query, limit, after)
    if found is None:
        return [], None
    shape, values = found
    rows = _page(shape).rows(connection, values)
    if connection.dialect.name == "sqlite":
        # The keys of a page are read in order; what joins the versions to them need not keep it.
        rows = sorted(rows, key=lambda row: (row.created_at, row.name, row.version), reverse=True)
    return split_page(rows, limit)


def page_statement(connection: Connection, query: ModelQuery, limit: int, after: str | None) -> Select[Any] | None:
    """The one statement that reads a page; None when nothing can fit. Raises InvalidName, InvalidPage."""
    found = _plan(connection, query, limit, after)
    return None if found is None else _statement(connection.dialect.name, found[0]).params(**found[1])


def _plan(connection: Connection, query: ModelQuery, limit: int, after: str | None) -> tuple[_Shape, dict[str, Any]] | None:
    """Look which way is short. Raises InvalidName, InvalidPage."""
    seen = None if after is None else After.parse(after)
    filters, values = _filters(connection, query)
    newest, leader, fewest = False, None, None
    if query.newest_only and _count(connection, conditions.EVERY_NAME, _FEW_NAMES, {}) <= _FEW_NAMES:
        newest = True
    else:
        leader, fewest = _leader(connection, filters, values)
        if fewest == 0:
            return None
        if fewest is None:
            query = _where_all_have_some(connection, query, filters, values)
    bounds = {name: to_text(at) for name, at in (("since", query.since), ("until", query.until)) if at is not None}
    values |= {**bounds, "limit": limit + 1}
    if seen is not None:
        values |= {"seen_at": seen.created_at, "seen_name": seen.name, "seen_version": seen.version}
    large = not newest and fewest is None
    return _Shape(tuple(filters), leader, newest, large, tuple(bounds), query.newest_only, seen is not None), values


@functools.lru_cache(maxsize=500)
def _page(shape: _Shape) -> Prepared:
    return Prepared(lambda dialect: _statement(dialect, shape))


def _statement(dialect: str, shape: _Shape) -> Select[Any]:
    leader, others = shape.leader, [one for one in shape.filters if one != shape.leader]
    if shape.newest:
        return _ordered(_joined(_newest_of_each()), model_versions, shape.filters, shape)
    if leader is not None and not (leader.in_order or leader.dated):
        return _ordered(_joined(_all_that_fit(leader)), model_versions, others, shape)
    if leader is None or not leader.dated:
        return _ordered(_versions(), model_versions, shape.filters, shape)
    met = [one for one in shape.filters if one.in_order and one.dated]
    if dialect == "sqlite" and shape.all_large and len(met) > 1:
        return _joined(_met(met, shape).subquery("page"))
    led = leader.table.alias("led")
    keys = select(led.c.created_at, led.c.name, led.c.version).where(leader.fits(led))
    # Out of order means several values of one key, or several words: one version may fit more than once.
    keys = keys if leader.in_order else keys.distinct()
    page = _ordered(keys, led, others, shape).subquery("page")
    if dialect == "sqlite":
        return _joined(page)
    # How names sort is the database's business (its collation), and a page ends where it says.
    return _joined(page).order_by(page.c.created_at.desc(), page.c.name.desc(), page.c.version.desc())


def _joined(keys: FromClause) -> Select[Any]:
    return _versions().join_from(keys, model_versions, _same(keys, model_versions))


def _versions() -> Select[Any]:
    columns = ("name", "version", "manifest", "created_at", "revision")
    named = listed().label("aliases")
    return select(*(model_versions.c[column] for column in columns), named).where(model_versions.c.deleted_at.is_(None))


def _filters(connection: Connection, query: ModelQuery) -> tuple[list[Filter], dict[str, Any]]:
    """Each condition, and the values of all. Raises InvalidName."""
    found = list(_conditions(connection, query))
    filters = [Filter(condition, position) for position, (condition, _) in enumerate(found)]
    values = {f"{part}_{position}": value for position, (_, given) in enumerate(found) for part, value in given.items()}
    return filters, values


def _conditions(connection: Connection, query: ModelQuery) -> Iterator[tuple[Condition, dict[str, Any]]]:
    if query.name is not None:
        yield _named(connection, query.name)
    for kind, labels in (("tag", query.tags), ("property", query.properties)):
        for label in labels:
            given = {"kind": kind, "key": label.key}
            yield (
                (conditions.KEY, given)
                if label.value is None
                else (conditions.LABEL, {**given, "lookup": lookup_of(label.value)})
            )
    for word in query.words:
        if word.prefix:
            # Words are compared by code point, and this is the last one.
            yield conditions.WORD_BEGINS, {"first": word.text, "beyond": word.text + "\U0010ffff"}
        else:
            yield conditions.WORD, {"word": word.text}
    for condition, part, value in (
        (conditions.FRAMEWORK, "framework", query.framework),
        (conditions.RUN, "run_id", query.run_id),
        (conditions.DIGEST, "digest", query.digest),
        (conditions.DATA, "digest", query.data_digest),
        (conditions.ALIAS, "alias", query.alias),
    ):
        if value is not None:
            yield condition, {part: value}


def _named(connection: Connection, name: str) -> tuple[Condition, dict[str, Any]]:
    """Raises InvalidName."""
    if not name.endswith("*"):
        check_known_name(name, "model")
        return conditions.NAME, {"name": name}
    if len(name) > MAX_NAME_LENGTH or not _BEGINNING.fullmatch(name):
        raise InvalidName(kind="model", value=name[:80])
    # "_" is a letter of names and a sign of LIKE.
    pattern = name[:-1].replace("_", "/_") + "%"
    # How names sort is the database's business, so those that begin alike are looked up first.
    begins = select(model_names.c.name).where(model_names.c.name.like(pattern, escape="/"))
    names = [row.name for row in connection.execute(begins.limit(_FEW_NAMES + 1))]
    return (conditions.NAMES, {"names": names}) if len(names) <= _FEW_NAMES else (conditions.NAME_BEGINS, {"pattern": pattern})


def _leader(connection: Connection, filters: Sequence[Filter], values: Mapping[str, Any]) -> tuple[Filter | None, int | None]:
    """The filter to read the page from and how many rows fit it (None: not counted); no filter: by time."""
    if len(filters) == 1 and filters[0].in_order:
        return filters[0], None
    leader, fewest = None, _MANY + 1
    for one in filters:
        count = _count(connection, one, _MANY, values)
        if count < fewest and (one.in_order or one.dated or count <= _FEW):
            leader, fewest = one, count
        if fewest <= _FEW:
            break
    if leader is not None:
        return leader, fewest
    # Everything fits many. An index in order is as good as time, and no worse.
    return next((one for one in filters if one.in_order), None), None


def _count(connection: Connection, one: Filter, most: int, values: Mapping[str, Any]) -> int:
    """How many rows fit, counted up to one more than ``most``."""
    return int(_counting(one).first(connection, {**values, "most": most + 1}).number)


@functools.lru_cache(maxsize=500)
def _counting(one: Filter) -> Prepared:
    table = one.table.alias("counted")
    some = select(table.c.name).where(one.fits(table)).limit(bindparam("most", type_=Integer)).subquery()
    return Prepared(lambda _: select(func.count().label("number")).select_from(some))


def _all_that_fit(leader: Filter) -> FromClause:
    """Keys of rows that are few but not in order: all are found, then sorted."""
    table = leader.table.alias("led")
    # Never more than were counted; said again so that the database knows it too.
    return select(table.c.name, table.c.version).where(leader.fits(table)).distinct().limit(_FEW + 1).subquery("found")


def _newest_of_each() -> FromClause:
    """Keys of the newest version of each name, by one look-up for each name."""
    mine = (model_versions.c.name == model_names.c.name) & model_versions.c.deleted_at.is_(None)
    newest = select(func.max(model_versions.c.version)).where(mine).correlate(model_names).scalar_subquery()
    return select(model_names.c.name, newest.label("version")).limit(_FEW_NAMES + 1).subquery("newest")


def _where_all_have_some(
    connection: Connection, query: ModelQuery, filters: Sequence[Filter], values: Mapping[str, Any]
) -> ModelQuery:
    """``query`` narrowed to the time in which each of several large filters has rows: walking beyond it finds nothing."""
    in_order = [one for one in filters if one.in_order]
    if len(in_order) < 2:
        return query
    since, until = query.since, query.until
    for one in in_order:
        first, last = (edge.first(connection, values).at for edge in _edges(one))
        since = max(from_text(first), since) if since else from_text(first)
        # `until` is not included: one microsecond, the finest that is stored, after the last.
        end = from_text(last) + timedelta(microseconds=1)
        until = min(end, until) if until else end
    return replace(query, since=since, until=until)


@functools.lru_cache(maxsize=500)
def _edges(one: Filter) -> tuple[Prepared, Prepared]:
    # Two statements: SQLite finds one end of an index at a time.
    table = one.table.alias("span")
    first, last = (select(edge(table.c.created_at).label("at")).where(one.fits(table)) for edge in (func.min, func.max))
    return Prepared(lambda _: first), Prepared(lambda _: last)


def _met(filters: Sequence[Filter], shape: _Shape) -> CompoundSelect[Any]:
    """Keys that fit all of ``filters``: SQLite walks their indexes side by side, and no further than the page needs.

    Large filters that seldom or never meet are the reason: to walk one and look each of its rows up costs ten times as much.
    """
    first, parts = filters[0], []
    others = [one for one in shape.filters if one not in filters]
    for one in filters:
        led = one.table.alias()
        keys = select(led.c.created_at, led.c.name, led.c.version).where(one.fits(led))
        # The rest is asked of one of them.
        rest = (others, shape) if one == first else ([], replace(shape, newest_only=False))
        parts.append(_narrowed(keys, led, *rest))
    met = intersect(*parts).order_by(desc("created_at"), desc("name"), desc("version"))
    return met.limit(bindparam("limit", type_=Integer))


def _ordered(statement: Select[Any], table: FromClause, filters: Sequence[Filter], shape: _Shape) -> Select[Any]:
    """``statement`` over ``table`` with every condition, for one page and one row more."""
    statement = _narrowed(statement, table, filters, shape)
    statement = statement.order_by(table.c.created_at.desc(), table.c.name.desc(), table.c.version.desc())
    return statement.limit(bindparam("limit", type_=Integer))


def _narrowed(statement: Select[Any], table: FromClause, filters: Sequence[Filter], shape: _Shape) -> Select[Any]:
    for one in filters:
        statement = statement.where(one.fits(table) if one.table is table else _looked_up(one, table))
    if "since" in shape.bounds:
        statement = statement.where(table.c.created_at >= bindparam("since"))
    if "until" in shape.bounds:
        statement = statement.where(table.c.created_at < bindparam("until"))
    if shape.newest_only:
        statement = statement.where(~_has_newer(table))
    if shape.is_later_page:
        seen = (bindparam("seen_at", type_=Text), bindparam("seen_name", type_=Text), bindparam("seen_version", type_=Integer))
        statement = statement.where(tuple_(table.c.created_at, table.c.name, table.c.version) < tuple_(*seen))
    return statement


def _looked_up(one: Filter, table: FromClause) -> ColumnElement[bool]:
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
