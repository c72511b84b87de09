"""Model versions as OCI artifacts: their tags, and the two documents that were written at the first pull."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, or_, select

from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.names import MAX_NAME_LENGTH, Reference
from registry.errors import RecordNotFound
from registry.store.model_aliases import NEWEST
from registry.store.models import is_version
from registry.store.tables import model_aliases, model_files, model_packs, model_versions
from registry.store.upsert import insert

_VERSION_DIGITS = 10


@dataclass(frozen=True)
class StoredPack:
    """Digests of a version's artifact."""

    manifest_digest: str
    config_digest: str


def reference_of(name: str, tag: str) -> Reference | None:
    """What a tag means: a version's number, ``latest`` (the newest) or an alias. None for what can be no tag."""
    if tag.isascii() and tag.isdigit():
        # One spelling for each version, and no number that the database cannot hold.
        usable = not tag.startswith("0") and len(tag) <= _VERSION_DIGITS and int(tag) < 2**31
        return Reference(name, version=int(tag)) if usable else None
    if tag == NEWEST:
        return Reference(name)
    return Reference(name, alias=tag) if len(tag) <= MAX_NAME_LENGTH else None


def of_version(connection: Connection, name: str, version: int) -> StoredPack | None:
    """None until its first pull."""
    query = select(model_packs).where(model_packs.c.name == name, model_packs.c.version == version)
    row = connection.execute(query).one_or_none()
    return None if row is None else StoredPack(row.manifest_digest, row.config_digest)


def keep(connection: Connection, model: ModelManifest, wanted: StoredPack) -> StoredPack:
    """Write down the artifact of a version, whose two documents are recorded blobs; returns what holds from now on.

    Somebody else's of the same moment stays. Raises RecordNotFound when the version was deleted meanwhile.
    """
    there = select(model_versions.c.name).where(is_version(model.name, model.version), model_versions.c.deleted_at.is_(None))
    if connection.execute(there.with_for_update(read=True)).one_or_none() is None:
        raise RecordNotFound(kind="model", name=f"{model.name}:{model.version}", command="model")
    row = {"manifest_digest": wanted.manifest_digest, "config_digest": wanted.config_digest}
    statement = insert(connection, model_packs).values(name=model.name, version=model.version, **row)
    connection.execute(statement.on_conflict_do_nothing(index_elements=[model_packs.c.name, model_packs.c.version]))
    return of_version(connection, model.name, model.version) or wanted


def is_manifest(connection: Connection, name: str, digest: str) -> bool:
    """Whether ``digest`` is the artifact of a version of ``name`` that was pulled before."""
    query = select(model_packs.c.name).where(model_packs.c.name == name, model_packs.c.manifest_digest == digest)
    return connection.execute(query.limit(1)).first() is not None


def has_blob(connection: Connection, name: str, digest: str) -> bool:
    """Whether ``digest`` is a file of a version of ``name``, or one of its artifacts' documents. Tombstones have none."""
    of_files = select(model_files.c.name).where(model_files.c.name == name, model_files.c.digest == digest)
    documents = or_(model_packs.c.manifest_digest == digest, model_packs.c.config_digest == digest)
    of_packs = select(model_packs.c.name).where(model_packs.c.name == name, documents)
    return any(connection.execute(query.limit(1)).first() is not None for query in (of_files, of_packs))


def tags_of(connection: Connection, name: str) -> list[str]:
    """Version numbers, aliases and ``latest``, in lexical order; none for a name without versions."""
    there = (model_versions.c.name == name) & model_versions.c.deleted_at.is_(None)
    versions = [str(row.version) for row in connection.execute(select(model_versions.c.version).where(there))]
    aliases = [row.alias for row in connection.execute(select(model_aliases.c.alias).where(model_aliases.c.name == name))]
    return sorted({*versions, *aliases, NEWEST}) if versions else []
