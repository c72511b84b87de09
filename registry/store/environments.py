"""Environment versions: what was asked for. Locks are made per platform when an image is built."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, select

from hedgerow.contracts.api import CreateEnvironment
from hedgerow.contracts.document import decode, digest_of, encode
from hedgerow.contracts.environment import Environment
from hedgerow.contracts.names import Reference, check_name
from registry.errors import RecordNotFound
from registry.store.keyset import page_of, split_page
from registry.store.tables import environment_names, environment_versions
from registry.store.time_text import to_text
from registry.store.versions import next_version


def create(connection: Connection, request: CreateEnvironment, now: datetime) -> Environment:
    """Make the next version of ``request.name``, unless its newest version asks for just the same: then that one."""
    digest = _content_digest(request)
    version = next_version(connection, environment_names, request.name)
    # Looked at after `next_version` holds the name's row: two equal requests at once agree on one version.
    newest_row = connection.execute(
        select(environment_versions)
        .where(environment_versions.c.name == request.name)
        .order_by(environment_versions.c.version.desc())
        .limit(1)
    ).one_or_none()
    if newest_row is not None and newest_row.digest == digest:
        _give_back(connection, request.name, version)
        return decode(newest_row.document, Environment)
    environment = Environment(
        name=request.name,
        version=version,
        python_version=request.python_version,
        requirements=request.requirements,
        variables=request.variables,
        digest=digest,
        created_at=now,
    )
    connection.execute(
        environment_versions.insert().values(
            name=environment.name,
            version=version,
            digest=digest,
            document=encode(environment).decode(),
            created_at=to_text(now),
        )
    )
    return environment


def get(connection: Connection, reference: Reference) -> Environment:
    """The version that ``reference`` names, the newest one if it names none. Raises RecordNotFound."""
    query = select(environment_versions.c.document).where(environment_versions.c.name == reference.name)
    if reference.version is not None:
        query = query.where(environment_versions.c.version == reference.version)
    if reference.digest is not None:
        query = query.where(environment_versions.c.digest == reference.digest)
    row = connection.execute(query.order_by(environment_versions.c.version.desc()).limit(1)).one_or_none()
    if row is None:
        raise RecordNotFound(kind="environment", name=reference, command="env")
    return decode(row.document, Environment)


def newest(
    connection: Connection, limit: int, after: str | None = None, *, name: str | None = None
) -> tuple[list[Environment], str | None]:
    """Newest first, with the ``after`` of the following page (None at the end)."""
    query = select(environment_versions)
    if name is not None:
        query = query.where(environment_versions.c.name == check_name(name, "environment"))
    rows = connection.execute(page_of(query, environment_versions, limit, after)).all()
    page, following = split_page(list(rows), limit)
    return [decode(row.document, Environment) for row in page], following


def _content_digest(request: CreateEnvironment) -> str:
    content = {field: getattr(request, field) for field in ("python_version", "requirements", "variables")}
    return digest_of(msgspec.json.encode(content, order="sorted"))


def _give_back(connection: Connection, name: str, version: int) -> None:
    """Nobody has seen the number yet: this transaction took it and still holds its row."""
    connection.execute(environment_names.update().where(environment_names.c.name == name).values(last_version=version - 1))
