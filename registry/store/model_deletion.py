"""Taking model versions away: refused while anything uses one; an owner may force it, which leaves a tombstone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Select, delete, select, update

from hedgerow.contracts.events import Actor
from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.names import Reference
from registry.errors import InUse
from registry.store import model_words, models
from registry.store.deletion import named_users, standing_images, unfinished_builds, unfinished_conversions
from registry.store.tables import (
    image_models,
    model_aliases,
    model_conversions,
    model_files,
    model_packs,
    model_samples,
    model_versions,
)
from registry.store.time_text import to_text


@dataclass(frozen=True)
class Deleted:
    """What was deleted; ``users`` are those that used it all the same (a forced deletion), in words."""

    manifest: ModelManifest
    users: list[str]


def delete_version(connection: Connection, reference: Reference, actor: Actor, now: datetime) -> ModelManifest:
    """Take one version away for ever; its number is never used again. Raises RecordNotFound, RecordDeleted, InUse."""
    manifest = _hold(connection, reference)
    users = users_of(connection, manifest.name, manifest.version)
    if users:
        raise InUse(kind="Model", name=f"{manifest.name}:{manifest.version}", users=", ".join(users))
    # The tombstone of an image or of a conversion may still point at it.
    if _is_pointed_at(connection, manifest):
        _bury(connection, manifest, actor, now)
    else:
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
        return Deleted(delete_version(connection, reference, actor, now), [])
    _bury(connection, manifest, actor, now)
    return Deleted(manifest, users)


def users_of(connection: Connection, name: str, version: int) -> list[str]:
    """In words: the images made of it and the models converted from it that are still there, the aliases on it, unfinished work.

    At most MOST_NAMED of them, and then "and N more".
    """
    images = standing_images(image_models, image_models.c.model_name == name, image_models.c.model_version == version)
    aliases = (
        select(model_aliases.c.name, model_aliases.c.alias)
        .where(model_aliases.c.name == name, model_aliases.c.version == version)
        .order_by(model_aliases.c.alias)
    )
    exact = Reference(name, version)
    work = unfinished_builds(connection, exact, lambda build: f"{name}:{version}" in build.models)
    work += unfinished_conversions(connection, exact)
    converted = (_standing_conversions(name, version), "model {0}:{1}, which was converted from it")
    return named_users(connection, (images, "image {0}:{1}"), converted, (aliases, "alias {0}@{1}"), builds=work)


def _standing_conversions(name: str, version: int) -> Select[tuple[str, int]]:
    there = (model_versions.c.name == model_conversions.c.name) & (model_versions.c.version == model_conversions.c.version)
    return (
        select(model_conversions.c.name, model_conversions.c.version)
        .join(model_versions, there)
        .where(model_conversions.c.source_name == name, model_conversions.c.source_version == version)
        .where(model_versions.c.deleted_at.is_(None))
        .order_by(model_conversions.c.name, model_conversions.c.version)
    )


def _hold(connection: Connection, reference: Reference) -> ModelManifest:
    """Nobody registers, changes, aliases or builds an image of it until the end of the transaction."""
    manifest = models.lock(connection, reference)
    # The writers of images hold the row of the version, not the name.
    here = models.is_version(manifest.name, manifest.version)
    connection.execute(select(model_versions.c.name).where(here).with_for_update())
    return manifest


def _is_pointed_at(connection: Connection, manifest: ModelManifest) -> bool:
    ends = (
        (image_models.c.model_name, image_models.c.model_version),
        (model_conversions.c.source_name, model_conversions.c.source_version),
    )
    return any(
        connection.execute(select(name).where(name == manifest.name, version == manifest.version).limit(1)).first() is not None
        for name, version in ends
    )


def _bury(connection: Connection, manifest: ModelManifest, actor: Actor, now: datetime) -> None:
    here = models.is_version(manifest.name, manifest.version)
    stamp = {"deleted_at": to_text(now), "deleted_by": actor.text(), "revision": manifest.revision + 1}
    connection.execute(update(model_versions).where(here).values(**stamp))
    for table in (model_files, model_samples, model_packs, model_aliases):
        connection.execute(table.delete().where(table.c.name == manifest.name, table.c.version == manifest.version))
    model_words.delete(connection, manifest.name, manifest.version)


def _drop(connection: Connection, manifest: ModelManifest) -> None:
    """Everything that belongs to the version goes with its row."""
    connection.execute(delete(model_versions).where(models.is_version(manifest.name, manifest.version)))
