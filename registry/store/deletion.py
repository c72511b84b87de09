"""What the three deletions share (models, environments, images): who uses a record, in words, and what a tombstone says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, func, select

from hedgerow.contracts.api_images import BuildImage
from hedgerow.contracts.events import Actor
from hedgerow.contracts.names import Reference
from hedgerow.contracts.work import ENDED
from registry.errors import RecordDeleted
from registry.store.activities import BuildTask, ConvertTask
from registry.store.tables import activities, image_versions
from registry.store.time_text import from_text

MOST_NAMED = 20


def named_users(connection: Connection, *questions: tuple[Select[Any], str], builds: Sequence[str] = ()) -> list[str]:
    """The rows of each query in the words beside it (``image {0}:{1}``), then ``builds``.

    MOST_NAMED at the most, and then "and N more".
    """
    found: list[str] = []
    count = 0
    for query, words in questions:
        rows = connection.execute(query.limit(MOST_NAMED + 1)).all()
        found += [words.format(*row) for row in rows]
        # Counting walks over every user; only who has many needs it.
        count += len(rows) if len(rows) <= MOST_NAMED else _number(connection, query)
    found += builds
    count += len(builds)
    shown = found[:MOST_NAMED]
    return [*shown, f"and {count - len(shown)} more"] if count > len(shown) else shown


def standing_images(links: Table, *wanted: ColumnElement[bool]) -> Select[Any]:
    """The images (name, version) that rows of ``links`` name and that were not deleted; ``wanted`` says which rows."""
    there = and_(image_versions.c.name == links.c.image_name, image_versions.c.version == links.c.image_version)
    return (
        select(links.c.image_name, links.c.image_version)
        .join(image_versions, there)
        .where(*wanted, image_versions.c.deleted_at.is_(None))
        .order_by(links.c.image_name, links.c.image_version)
    )


def unfinished_conversions(connection: Connection, exact: Reference) -> list[str]:
    """In words: the conversions of ``exact`` that have not ended."""
    query = select(activities.c.id, activities.c.request).where(
        activities.c.state.not_in(sorted(ENDED)),
        activities.c.kind == "model.convert",
        activities.c.subject == exact.name,
    )
    return [
        f"its conversion (activity {row.id})"
        for row in connection.execute(query.order_by(activities.c.id))
        if msgspec.json.decode(row.request, type=ConvertTask).source == str(exact)
    ]


def unfinished_builds(connection: Connection, exact: Reference, needs: Callable[[BuildImage], bool]) -> list[str]:
    """In words: the builds that have not ended and of whose requests ``needs`` says that they name ``exact``."""
    # A request holds its references as JSON text, pinned to versions; few builds are unfinished at a time.
    query = select(activities.c.subject, activities.c.id, activities.c.request).where(
        activities.c.state.not_in(sorted(ENDED)),
        activities.c.kind == "image.build",
        activities.c.request.contains(f'"{exact}"', autoescape=True),
    )
    # The same text may stand for something else: a model and an environment of one name, a tag.
    return [
        f"the build of image {row.subject} (activity {row.id})"
        for row in connection.execute(query.order_by(activities.c.id))
        if needs(msgspec.json.decode(row.request, type=BuildTask))
    ]


def told_by_tombstone(row: Row[Any], kind: str, command: str) -> RecordDeleted:
    """The error for a row of ``*_versions`` that has ``deleted_at``: when, and by whom."""
    when = from_text(row.deleted_at).isoformat(timespec="seconds")
    return RecordDeleted(
        kind=kind, name=f"{row.name}:{row.version}", when=when, by=Actor.parse(row.deleted_by).name, command=command
    )


def _number(connection: Connection, query: Select[Any]) -> int:
    return int(connection.execute(select(func.count()).select_from(query.order_by(None).subquery())).scalar_one())
