"""Taking model versions away: refused while anything uses one; an owner may force it, which leaves a tombstone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Select, Table, delete, func, select, update

from hedgerow.contracts.events import Actor
from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.names import Reference
from registry.errors import InUse
from registry.store import model_words, models
from registry.store.tables import activities, image_models, model_aliases, model_files, model_packs, model_samples, model_versions
from registry.store.time_text import to_text

MOST_NAMED = 20
_UNFINISHED = ("queued", "running")


@dataclass(frozen=True)
class Deleted:
    """What was deleted; ``users`` are those that used it all the same (a forced deletion), in words."""

    manifest: ModelManifest
    users: list[str]


def delete_version(connection: Connection, reference: Reference) -> ModelManifest:
    """Take one version away for ever; its number is never used again. Raises RecordNotFound, RecordDeleted, InUse."""
    manifest = _hold(connection, reference)
    users = users_of(connection, manifest.name, manifest.version)
    if users:
        raise InUse(kind="Model", name=f"{manifest.name}:{manifest.version}", users=", ".join(users))
    _drop(connection, manifest)
    return manifest


def force_delete(connection: Connection, reference: Reference, actor: Actor, now: datetime) -> Deleted:
    """Delete a version even though it is used; without users this is a plain deletion. Raises RecordNotFound, RecordDeleted.

    Its row stays, so that images and lineage still point at something; its files are free for the next garbage
    collection, its aliases are gone, and nothing finds it any more.
    """
    manifest = _hold(connection, reference)
    users = users_of(connection, manifest.name, manifest.version)
    if not users:
        _drop(connection, manifest)
        return Deleted(manifest, [])
    here = models.is_version(manifest.name, manifest.version)
    stamp = {"deleted_at": to_text(now), "deleted_by": actor.text(), "revision": manifest.revision + 1}
    connection.execute(update(model_versions).where(here).values(**stamp))
    for table in (model_files, model_samples, model_packs, model_aliases):
        connection.execute(table.delete().where(table.c.name == manifest.name, table.c.version == manifest.version))
    model_words.delete(connection, manifest.name, manifest.version)
    return Deleted(manifest, users)


def users_of(connection: Connection, name: str, version: int) -> list[str]:
    """In words: the images made of it, the aliases on it, the builds that are to take it in.

    At most MOST_NAMED of them, and then "and N more".
    """
    found: list[str] = []
    count = 0
    for table, query, words in _questions(name, version):
        rows = connection.execute(query.limit(MOST_NAMED + 1)).all()
        found += [words.format(*row) for row in rows]
        # Counting walks over every user; only who has many needs it.
        count += len(rows) if len(rows) <= MOST_NAMED else _number(connection, table, query)
    shown = found[:MOST_NAMED]
    return [*shown, f"and {count - len(shown)} more"] if count > len(shown) else shown


def _questions(name: str, version: int) -> tuple[tuple[Table, Select[tuple[str, str]], str], ...]:
    images = (
        select(image_models.c.image_name, image_models.c.image_version)
        .where(image_models.c.model_name == name, image_models.c.model_version == version)
        .order_by(image_models.c.image_name, image_models.c.image_version)
    )
    aliases = (
        select(model_aliases.c.name, model_aliases.c.alias)
        .where(model_aliases.c.name == name, model_aliases.c.version == version)
        .order_by(model_aliases.c.alias)
    )
    # A build's request holds its references as JSON text, pinned to versions; few builds are unfinished at a time.
    builds = (
        select(activities.c.subject, activities.c.id)
        .where(
            activities.c.state.in_(_UNFINISHED),
            activities.c.kind == "image.build",
            activities.c.request.contains(f'"{name}:{version}"', autoescape=True),
        )
        .order_by(activities.c.id)
    )
    return (
        (image_models, images, "image {0}:{1}"),
        (model_aliases, aliases, "alias {0}@{1}"),
        (activities, builds, "the build of image {0} (activity {1})"),
    )


def _number(connection: Connection, table: Table, query: Select[tuple[str, str]]) -> int:
    counted = select(func.count()).select_from(table).where(query.whereclause)  # type: ignore[arg-type]  # it has one, see above
    return int(connection.execute(counted).scalar_one())


def _hold(connection: Connection, reference: Reference) -> ModelManifest:
    """Nobody registers, changes, aliases or builds an image of it until the end of the transaction."""
    manifest = models.lock(connection, reference)
    # The writers of images hold the row of the version, not the name.
    here = models.is_version(manifest.name, manifest.version)
    connection.execute(select(model_versions.c.name).where(here).with_for_update())
    return manifest


def _drop(connection: Connection, manifest: ModelManifest) -> None:
    """Everything that belongs to the version goes with its row."""
    connection.execute(delete(model_versions).where(models.is_version(manifest.name, manifest.version)))
