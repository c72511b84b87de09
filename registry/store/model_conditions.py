"""The ways in which a search among model versions can be narrowed: which rows of which table fit, whatever the values are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Table, and_, bindparam

from registry.store.tables import model_aliases, model_data, model_labels, model_names, model_versions, model_words

Value = Callable[[str], Any]


@dataclass(frozen=True, eq=False)
class Condition:
    """One way to narrow: the rows of ``table`` that fit, given a place for each value by name.

    ``in_order``: their index has them by (created_at, name, version).
    """

    table: Table
    fits: Callable[[FromClause, Value], ColumnElement[bool]]
    in_order: bool


@dataclass(frozen=True)
class Filter:
    """A condition at its position among those of a query, by which the values of two of a kind are told apart."""

    condition: Condition
    position: int

    @property
    def table(self) -> Table:
        return self.condition.table

    @property
    def in_order(self) -> bool:
        return self.condition.in_order

    @property
    def dated(self) -> bool:
        """Whether the rows of another table say when their versions were registered, so that a page is read off them."""
        return self.table in (model_labels, model_words)

    def fits(self, table: FromClause) -> ColumnElement[bool]:
        return self.condition.fits(table, lambda part: bindparam(f"{part}_{self.position}", expanding=part == "names"))


def _equal(table: Table, column: str, *, in_order: bool = False) -> Condition:
    return Condition(table, lambda t, value: t.c[column] == value(column), in_order)


EVERY_NAME = Filter(Condition(model_names, lambda t, _: t.c.name != "", in_order=False), 0)
NAME, FRAMEWORK = (_equal(model_versions, column, in_order=True) for column in ("name", "framework"))
RUN, DIGEST = (_equal(model_versions, column) for column in ("run_id", "digest"))
DATA, ALIAS = _equal(model_data, "digest"), _equal(model_aliases, "alias")
NAMES = Condition(model_versions, lambda t, value: t.c.name.in_(value("names")), in_order=False)
NAME_BEGINS = Condition(model_versions, lambda t, value: t.c.name.like(value("pattern"), escape="/"), in_order=False)
KEY = Condition(model_labels, lambda t, value: and_(t.c.kind == value("kind"), t.c.key == value("key")), in_order=False)
LABEL = Condition(
    model_labels,
    lambda t, value: and_(t.c.kind == value("kind"), t.c.key == value("key"), t.c.lookup == value("lookup")),
    in_order=True,
)
WORD = _equal(model_words, "word", in_order=True)
WORD_BEGINS = Condition(
    model_words, lambda t, value: and_(t.c.word >= value("first"), t.c.word < value("beyond")), in_order=False
)
