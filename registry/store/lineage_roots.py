"""Where a walk begins: reads ``KIND:NAME`` and finds the thing that it names, tombstones included."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, Connection, Table, func, select, union

from hedgerow.contracts.lineage import NodeKind
from hedgerow.contracts.names import Reference, check_known_name, check_name, is_digest
from registry.errors import AmbiguousCommit, InvalidLineageId, RecordNotFound
from registry.store.lineage_graph import KINDS, Key, Thing
from registry.store.model_aliases import NEWEST
from registry.store.tables import (
    deployments,
    desired_images,
    devices,
    edge_deployments,
    environment_versions,
    image_versions,
    model_aliases,
    model_data,
    model_versions,
    run_data,
    runs,
)

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_VERSIONS: dict[NodeKind, tuple[Table, str]] = {
    "model": (model_versions, "model"),
    "image": (image_versions, "image"),
    "environment": (environment_versions, "env"),
}


def find(connection: Connection, text: str, limit: int) -> tuple[Thing, list[Thing]]:
    """The thing that ``text`` names, and for a data set given by name its contents (at most ``limit``), each a thing.

    Raises InvalidLineageId, InvalidReference, InvalidName, AmbiguousCommit, RecordNotFound.
    """
    kind, rest = _split(text)
    if kind in _VERSIONS:
        return Thing(kind, _version(connection, kind, rest)), []
    if kind == "data" and not is_digest(rest):
        name = check_name(rest, "data set")
        return Thing(kind, (name,)), [Thing(kind, (digest,)) for digest in _contents(connection, name, limit)]
    return Thing(kind, _FINDERS[kind](connection, rest)), []


def _split(text: str) -> tuple[NodeKind, str]:
    for kind in KINDS:
        if text.startswith(f"{kind}:"):
            return kind, text.removeprefix(f"{kind}:")
        # `image@sha256:…`: by content alone, under whatever name.
        if kind in _VERSIONS and text.startswith(f"{kind}@"):
            return kind, text.removeprefix(kind)
    raise InvalidLineageId(value=text[:200], kinds=", ".join(KINDS))


def _version(connection: Connection, kind: NodeKind, text: str) -> Key:
    table, command = _VERSIONS[kind]
    query = select(table.c.name, table.c.version)
    if text.startswith("@"):
        if not is_digest(text[1:]):
            raise InvalidLineageId(value=f"{kind}{text}"[:200], kinds=", ".join(KINDS))
        query = query.where(table.c.digest == text[1:]).order_by(table.c.deleted_at.is_not(None), table.c.created_at.desc())
    else:
        reference = Reference.parse(text)
        query = query.where(table.c.name == reference.name)
        if reference.version is not None:
            query = query.where(table.c.version == reference.version)
        elif reference.digest is not None:
            query = query.where(table.c.digest == reference.digest)
        elif reference.alias is not None and (kind, reference.alias) != ("model", NEWEST):
            query = query.where(table.c.version == _aliased(connection, kind, reference))
        else:
            query = query.where(table.c.deleted_at.is_(None))
        query = query.order_by(table.c.version.desc())
    row = connection.execute(query.limit(1)).one_or_none()
    if row is None:
        raise RecordNotFound(kind=kind, name=text.removeprefix("@"), command=command)
    return tuple(row)


def _aliased(connection: Connection, kind: NodeKind, reference: Reference) -> int | None:
    if kind != "model":
        return None
    here = (model_aliases.c.name == reference.name) & (model_aliases.c.alias == reference.alias)
    return connection.execute(select(model_aliases.c.version).where(here)).scalar_one_or_none()


def _contents(connection: Connection, name: str, limit: int) -> list[str]:
    parts = [select(table.c.digest).where(table.c.data_name == name) for table in (run_data, model_data)]
    found = union(*parts).subquery()
    digests = [row.digest for row in connection.execute(select(found.c.digest).order_by(found.c.digest).limit(limit))]
    if not digests:
        raise RecordNotFound(kind="data set", name=name, command="run")
    return digests


def _data(connection: Connection, digest: str) -> Key:
    for column in (run_data.c.digest, model_data.c.digest):
        if connection.execute(select(column).where(column == digest).limit(1)).first() is not None:
            return (digest,)
    raise RecordNotFound(kind="data set", name=digest, command="run")


def _commit(connection: Connection, prefix: str) -> Key:
    """The one recorded commit that begins so; the whole id always means itself."""
    if not _COMMIT.fullmatch(prefix):
        raise InvalidLineageId(value=f"commit:{prefix}"[:200], kinds=", ".join(KINDS))
    found: set[str] = set()
    for column in (runs.c.source_commit, model_versions.c.source_commit):
        # Two looks into the index instead of a list: of 100 000 runs at one commit, first and last are the same.
        begins = (column >= prefix) & (column < prefix + "g")
        exact = connection.execute(select(column).where(column == prefix).limit(1)).first()
        if exact is not None:
            return (prefix,)
        ends = connection.execute(select(func.min(column), func.max(column)).where(begins)).one()
        found |= {end for end in ends if end is not None}
    if not found:
        raise RecordNotFound(kind="recorded commit", name=prefix, command="run")
    if len(found) > 1:
        raise AmbiguousCommit(prefix=prefix, first=min(found), last=max(found))
    return (found.pop(),)


def _row(command: str, kind: NodeKind, *columns: Column[Any]) -> Callable[[Connection, str], Key]:
    """Finds what the ``/``-separated parts of a name stand for in ``columns``, all of one table."""

    def find_row(connection: Connection, text: str) -> Key:
        parts = text.split("/")
        if len(parts) != len(columns):
            raise InvalidLineageId(value=f"{kind}:{text}"[:200], kinds=", ".join(KINDS))
        here = [column == check_known_name(part, kind.replace("-", " ")) for column, part in zip(columns, parts, strict=True)]
        if connection.execute(select(*columns).where(*here).limit(1)).first() is None:
            raise RecordNotFound(kind=kind.replace("-", " "), name=text, command=command)
        return tuple(parts)

    return find_row


def _module(connection: Connection, text: str) -> Key:
    device, slash, module = text.partition("/")
    if not slash:
        raise InvalidLineageId(value=f"module:{text}"[:200], kinds=", ".join(KINDS))
    key = (check_known_name(device, "device"), check_known_name(module, "module"))
    query = (
        select(desired_images.c.module)
        .join(devices, devices.c.uuid == desired_images.c.device_uuid)
        .where(devices.c.name == key[0], desired_images.c.module == key[1])
    )
    if connection.execute(query).first() is None:
        raise RecordNotFound(kind="module with an image", name=text, command="device")
    return key


_FINDERS: dict[NodeKind, Callable[[Connection, str], Key]] = {
    "data": _data,
    "commit": _commit,
    "run": _row("run", "run", runs.c.id),
    "deployment": _row("service", "deployment", deployments.c.endpoint, deployments.c.name),
    "edge-deployment": _row("edge", "edge-deployment", edge_deployments.c.name),
    "module": _module,
    "device": _row("device", "device", devices.c.name),
}
