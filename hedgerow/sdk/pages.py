"""Lists are answered in pages; here one is walked to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from hedgerow.contracts.api import Page

T = TypeVar("T")

# How many a list gives when nobody says how many: as the API itself.
PAGE_ITEMS = 100
# How many a walk asks for at once.
WALK_ITEMS = 500


def walk(fetch: Callable[[str | None], Page[T]], after: str | None = None) -> Iterator[T]:
    """Every item from the page after ``after`` on; ``fetch`` gets the ``next`` of the page before, None for the first page."""
    while True:
        page = fetch(after)
        yield from page.items
        if (after := page.next) is None:
            return
