"""Pages by key instead of by offset: the next page begins after the last row seen, however many rows were added before.

Versioned records are listed newest first by (created_at, name, version); the three together are the cursor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Select, Table, tuple_

from registry.errors import InvalidPage

R = TypeVar("R")
# A larger number than a column can hold is one that PostgreSQL refuses even in a comparison.
_MAX_VERSION = 2**31 - 1


@dataclass(frozen=True)
class After:
    """Where a page ended. Its text is opaque to clients."""

    created_at: str
    name: str
    version: int

    @classmethod
    def of_row(cls, row: Any) -> After:  # noqa: ANN401 - a row with these columns
        return cls(row.created_at, row.name, row.version)

    @classmethod
    def parse(cls, text: str) -> After:
        """Raises InvalidPage."""
        parts = text.split(",")
        if len(parts) != 3 or not (parts[2].isascii() and parts[2].isdigit() and len(parts[2]) <= 10) or "\0" in text:
            raise InvalidPage(value=text[:80])
        version = int(parts[2])
        if version > _MAX_VERSION:
            raise InvalidPage(value=text[:80])
        return cls(parts[0], parts[1], version)

    def text(self) -> str:
        return f"{self.created_at},{self.name},{self.version}"


def page_of(query: Select[Any], table: Table, limit: int, after: str | None) -> Select[Any]:
    """``query`` for one page of ``table``, and one row more by which the caller sees that another page follows."""
    key = tuple_(table.c.created_at, table.c.name, table.c.version)
    if after is not None:
        seen = After.parse(after)
        query = query.where(key < tuple_(seen.created_at, seen.name, seen.version))
    return query.order_by(table.c.created_at.desc(), table.c.name.desc(), table.c.version.desc()).limit(limit + 1)


def split_page(rows: list[R], limit: int) -> tuple[list[R], str | None]:
    """The rows of the page, and the ``after`` of the following one (None at the end)."""
    return rows[:limit], After.of_row(rows[limit - 1]).text() if len(rows) > limit else None
