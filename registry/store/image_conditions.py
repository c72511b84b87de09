"""What a list of images is narrowed to, and the conditions that this makes in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, cast, exists, func, select, tuple_

from hedgerow.contracts.image import ImageKind
from hedgerow.contracts.names import Reference
from registry.errors import InvalidFilter
from registry.store.matching import name_matches
from registry.store.tables import image_models, image_versions


@dataclass(frozen=True)
class Wanted:
    """What a list is narrowed to.

    ``name`` may end with a star; ``model`` without a version means any of that name; ``tags`` are KEY=VALUE or KEY.
    """

    name: str | None = None
    kind: ImageKind | None = None
    digest: str | None = None
    model: Reference | None = None
    tags: tuple[str, ...] = ()


def narrowed(connection: Connection, query: Select[Any], wanted: Wanted) -> Select[Any]:
    """``query`` of ``image_versions`` with what is ``wanted``. Raises InvalidName, InvalidFilter."""
    if wanted.name is not None:
        query = query.where(name_matches(image_versions.c.name, wanted.name, "image"))
    if wanted.kind is not None:
        query = query.where(image_versions.c.kind == wanted.kind)
    if wanted.digest is not None:
        query = query.where(image_versions.c.digest == wanted.digest)
    if wanted.model is not None:
        query = query.where(_made_of(wanted.model))
    for tag in wanted.tags:
        query = query.where(has_tag(connection, tag))
    return query


def _made_of(model: Reference) -> ColumnElement[bool]:
    """Not a correlated question: the few images of a model are looked up once, by its index."""
    query = select(image_models.c.image_name, image_models.c.image_version).where(image_models.c.model_name == model.name)
    if model.version is not None:
        query = query.where(image_models.c.model_version == model.version)
    return tuple_(image_versions.c.name, image_versions.c.version).in_(query)


def has_tag(connection: Connection, wanted: str) -> ColumnElement[bool]:
    """``site=north``, or ``site`` for any value. Tags lie in the record's JSON text; both databases can open it."""
    key, equals, value = wanted.partition("=")
    if not key:
        raise InvalidFilter(value=wanted[:80])
    if connection.dialect.name == "sqlite":
        pairs = func.json_each(image_versions.c.record, "$.tags").table_valued("key", "value")
    else:
        from sqlalchemy.dialects.postgresql import JSONB

        pairs = func.jsonb_each_text(cast(image_versions.c.record, JSONB)["tags"]).table_valued("key", "value")
    found = select(1).select_from(pairs).where(pairs.c.key == key)
    return exists(found.where(pairs.c.value == value) if equals else found)
