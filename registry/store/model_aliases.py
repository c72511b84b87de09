"""Aliases: names for single versions of a model that can be moved (``iris@champion``). A protected one only its owner moves.

Whoever writes here holds the model's name (``models.lock_name``, or the registration that counts its version up), so
that a version cannot go away while an alias is put on it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, literal_column, select, update

from hedgerow.contracts.api import ModelAlias
from hedgerow.contracts.events import Actor
from registry.errors import AliasProtected, AliasReserved, RecordNotFound
from registry.store.tables import model_aliases, model_versions
from registry.store.time_text import from_text, to_text

# Always the newest version; nobody can put it on another.
NEWEST = "latest"


def point(
    connection: Connection,
    name: str,
    alias: str,
    version: int,
    now: datetime,
    *,
    actor: Actor | None,
    protected: bool | None = None,
    unseen: bool = False,
) -> ModelAlias:
    """Put ``alias`` on a version that is there; ``protected`` None leaves that as it is (at first: not).

    ``actor`` None is the control plane; ``unseen`` says that nobody has seen the version yet. What is as asked already
    changes nothing. Raises AliasReserved, AliasProtected.
    """
    _refuse_fixed(alias)
    row = _row(connection, name, alias)
    if row is None:
        made = {"version": version, "protected": int(bool(protected)), "revision": 1} | _stamp(now, actor)
        connection.execute(model_aliases.insert().values(name=name, alias=alias, **made))
        _count_up(connection, name, set() if unseen else {version})
        return get(connection, name, alias)
    wanted = bool(row.protected) if protected is None else protected
    if (row.version, bool(row.protected)) == (version, wanted):
        return _alias(row)
    _refuse_unless_owner(row, actor)
    changed = {"version": version, "protected": int(wanted), "revision": row.revision + 1} | _stamp(now, actor)
    connection.execute(update(model_aliases).where(_is(name, alias)).values(**changed))
    if row.version != version:
        _count_up(connection, name, {row.version} if unseen else {row.version, version})
    return get(connection, name, alias)


def remove(connection: Connection, name: str, alias: str, *, actor: Actor | None) -> ModelAlias:
    """Take an alias away; returns what it was. Raises RecordNotFound, AliasReserved, AliasProtected."""
    _refuse_fixed(alias)
    row = _row(connection, name, alias)
    if row is None:
        raise _missing(name, alias)
    _refuse_unless_owner(row, actor)
    connection.execute(model_aliases.delete().where(_is(name, alias)))
    _count_up(connection, name, {row.version})
    return _alias(row)


def get(connection: Connection, name: str, alias: str) -> ModelAlias:
    """Raises RecordNotFound."""
    found = find(connection, name, alias)
    if found is None:
        raise _missing(name, alias)
    return found


def find(connection: Connection, name: str, alias: str) -> ModelAlias | None:
    """Like :func:`get`; None when there is no such alias."""
    row = _row(connection, name, alias)
    return None if row is None else _alias(row)


def page(connection: Connection, name: str, limit: int, after: str | None) -> tuple[list[ModelAlias], str | None]:
    """Aliases of a model by name of the alias, with the ``after`` of the following page."""
    query = select(model_aliases).where(model_aliases.c.name == name).order_by(model_aliases.c.alias).limit(limit + 1)
    if after is not None:
        query = query.where(model_aliases.c.alias > after)
    rows = connection.execute(query).all()
    found = [_alias(row) for row in rows[:limit]]
    return found, found[-1].alias if len(rows) > limit else None


def version_of(connection: Connection, name: str, alias: str) -> int | None:
    """The version that an alias names; None when there is no such alias."""
    row = _row(connection, name, alias)
    return None if row is None else int(row.version)


def listed() -> ColumnElement[str | None]:
    """A column for statements over ``model_versions``: the aliases of each version, as :func:`parse_listed` reads them."""
    here = (model_aliases.c.name == model_versions.c.name) & (model_aliases.c.version == model_versions.c.version)
    # Written out: as a value it would keep the statement from being compiled once and for all.
    comma: Any = literal_column("','")
    return select(func.aggregate_strings(model_aliases.c.alias, comma)).where(here).correlate(model_versions).scalar_subquery()


def parse_listed(text: str | None) -> list[str]:
    """In order; names hold no comma."""
    return sorted(text.split(",")) if text else []


def _row(connection: Connection, name: str, alias: str) -> Row[Any] | None:
    return connection.execute(select(model_aliases).where(_is(name, alias))).one_or_none()


def _alias(row: Row[Any]) -> ModelAlias:
    return ModelAlias(
        name=row.name,
        alias=row.alias,
        version=row.version,
        protected=bool(row.protected),
        revision=row.revision,
        updated_at=from_text(row.updated_at),
        updated_by=row.updated_by,
    )


def _is(name: str, alias: str) -> Any:  # noqa: ANN401 - SQLAlchemy's & of two conditions has no better type
    return (model_aliases.c.name == name) & (model_aliases.c.alias == alias)


def _stamp(now: datetime, actor: Actor | None) -> dict[str, str]:
    return {"updated_at": to_text(now), "updated_by": actor.name if actor else ""}


def _count_up(connection: Connection, name: str, versions: set[int]) -> None:
    """The manifests of these versions read differently now, so their ETags must too."""
    if not versions:
        return
    here = (model_versions.c.name == name) & model_versions.c.version.in_(sorted(versions))
    connection.execute(update(model_versions).where(here).values(revision=model_versions.c.revision + 1))


def _refuse_fixed(alias: str) -> None:
    # A number is a version wherever an alias may stand (OCI tags).
    if alias == NEWEST or alias.isdecimal():
        raise AliasReserved(alias=alias)


def _refuse_unless_owner(row: Row[Any], actor: Actor | None) -> None:
    if row.protected and actor is not None and actor.role != "owner":
        raise AliasProtected(name=row.name, alias=row.alias, version=row.version, role=actor.role)


def _missing(name: str, alias: str) -> RecordNotFound:
    return RecordNotFound(kind="model", name=f"{name}@{alias}"[:300], command="model")
