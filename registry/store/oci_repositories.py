"""The names of all OCI repositories: images, and models below ``models/``."""

from __future__ import annotations

from sqlalchemy import Connection, Table, select

from registry.store.tables import image_versions, model_versions

MODELS = "models/"


def after(connection: Connection, last: str, count: int) -> list[str]:
    """At most ``count`` repositories that have a version, behind ``last`` in lexical order."""
    images = _names(connection, image_versions, last, count)
    if last < MODELS:
        models = _names(connection, model_versions, "", count)
    elif last.startswith(MODELS):
        models = _names(connection, model_versions, last.removeprefix(MODELS), count)
    else:
        models = []
    return sorted([*images, *(f"{MODELS}{name}" for name in models)])[:count]


def _names(connection: Connection, table: Table, last: str, count: int) -> list[str]:
    # By code point, as Python sorts: a database's own order may look past dots and dashes.
    name = table.c.name if connection.dialect.name == "sqlite" else table.c.name.collate("C")
    query = select(name.label("name")).distinct().where(name > last, table.c.deleted_at.is_(None))
    return [row.name for row in connection.execute(query.order_by(name).limit(count))]
