"""Environment versions: what was asked for. Locks are made per platform when an image is built.

Content is compared by digest: Python version, requirements in the order given, variables and, where there are any, conda's
packages and channels. A name never has the same content twice. An environment that an image was built in cannot be deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, or_, select, update

from hedgerow.contracts.api import CreateEnvironment
from hedgerow.contracts.document import decode, digest_of, encode
from hedgerow.contracts.environment import Environment
from hedgerow.contracts.events import Actor
from hedgerow.contracts.names import Reference
from registry.environment_files import DEFAULT_PYTHON, CondaFile, check_python, check_variables, read_conda, read_requirements
from registry.errors import EnvironmentRefused, InUse, RecordNotFound
from registry.store.deletion import named_users, standing_images, told_by_tombstone, unfinished_builds
from registry.store.keyset import After, page_of
from registry.store.matching import name_matches
from registry.store.tables import environment_names, environment_versions, image_environments
from registry.store.time_text import to_text
from registry.store.versions import next_version

_PACKAGE = re.compile(r"(?:[\w./:-]+::)?(?P<name>[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")


@dataclass(frozen=True)
class Created:
    """``found``: the name had a version with this content already, and that is it."""

    environment: Environment
    found: bool


@dataclass(frozen=True)
class Deleted:
    """What was deleted; ``users`` are the images that it was needed by all the same (a forced deletion), in words."""

    environment: Environment
    users: list[str]


@dataclass(frozen=True)
class Wanted:
    """What a list is narrowed to.

    ``name`` may end with a star; ``python`` is 3.N (any patch version) or 3.N.P, ``package`` a package's name.
    """

    name: str | None = None
    python: str | None = None
    digest: str | None = None
    package: str | None = None


def create(connection: Connection, request: CreateEnvironment, now: datetime) -> Created:
    """The version of ``request.name`` that has this content, or else its next one. Raises EnvironmentRefused."""
    content = _content(request)
    digest = _content_digest(content)
    version = next_version(connection, environment_names, request.name)
    # Looked at after `next_version` holds the name's row: two equal requests at once agree on one version.
    same = _select().where(environment_versions.c.name == request.name, environment_versions.c.digest == digest)
    row = connection.execute(same.order_by(environment_versions.c.version.desc()).limit(1)).one_or_none()
    if row is not None:
        _give_back(connection, request.name, version)
        return Created(decode(row.document, Environment), found=True)
    environment = Environment(name=request.name, version=version, digest=digest, created_at=now, **content)
    connection.execute(
        environment_versions.insert().values(
            name=environment.name,
            version=version,
            digest=digest,
            document=encode(environment).decode(),
            created_at=to_text(now),
        )
    )
    return Created(environment, found=False)


def get(connection: Connection, reference: Reference) -> Environment:
    """The version that ``reference`` names, the newest one if it names none. Raises RecordNotFound, RecordDeleted."""
    row = None
    if reference.alias is None:
        query = select(environment_versions).where(environment_versions.c.name == reference.name)
        if reference.version is not None:
            query = query.where(environment_versions.c.version == reference.version)
        else:
            query = query.where(environment_versions.c.deleted_at.is_(None))
        if reference.digest is not None:
            query = query.where(environment_versions.c.digest == reference.digest)
        row = connection.execute(query.order_by(environment_versions.c.version.desc()).limit(1)).one_or_none()
    if row is None:
        raise RecordNotFound(kind="environment", name=reference, command="env")
    if row.deleted_at is not None:
        raise told_by_tombstone(row, "environment", "env")
    return decode(row.document, Environment)


def hold(connection: Connection, reference: Reference) -> Environment:
    """Like :func:`get`; until the end of a writing transaction nobody deletes it. Raises RecordNotFound, RecordDeleted."""
    while True:
        found = get(connection, reference)
        held = _select().where(_is(found.name, found.version)).with_for_update(read=True)
        if connection.execute(held).first() is not None:
            return found


def newest(
    connection: Connection, limit: int, after: str | None = None, *, wanted: Wanted | None = None
) -> tuple[list[Environment], str | None]:
    """Newest first, with the ``after`` of the following page (None at the end). Raises InvalidName, EnvironmentRefused."""
    wanted = wanted or Wanted()
    query = _narrowed(_select(), wanted)
    found: list[tuple[Row[Any], Environment]] = []
    while True:
        rows = connection.execute(page_of(query, environment_versions, limit, after)).all()
        decoded = [(row, decode(row.document, Environment)) for row in rows]
        found += [(row, environment) for row, environment in decoded if _has_package(environment, wanted.package)]
        if len(rows) <= limit or len(found) > limit:
            break
        after = After.of_row(rows[-1]).text()
    page = found[:limit]
    following = After.of_row(page[-1][0]).text() if len(found) > limit else None
    return [environment for _, environment in page], following


def delete_version(connection: Connection, reference: Reference, actor: Actor, now: datetime) -> Environment:
    """Take one version away for ever; its number is never used again. Raises RecordNotFound, RecordDeleted, InUse."""
    environment = _locked(connection, reference)
    users = users_of(connection, environment.name, environment.version)
    if users:
        raise InUse(kind="Environment", name=f"{environment.name}:{environment.version}", users=", ".join(users))
    # The tombstone of an image may still point at it.
    if _is_of_an_image(connection, environment):
        _bury(connection, environment, actor, now)
    else:
        connection.execute(delete(environment_versions).where(_is(environment.name, environment.version)))
    return environment


def force_delete(connection: Connection, reference: Reference, actor: Actor, now: datetime) -> Deleted:
    """Delete a version even though it is used; without users this is a plain deletion. Raises RecordNotFound, RecordDeleted.

    Its row stays, so that images and lineage still point at something, and nothing finds it any more.
    """
    environment = _locked(connection, reference)
    users = users_of(connection, environment.name, environment.version)
    if not users:
        return Deleted(delete_version(connection, reference, actor, now), [])
    _bury(connection, environment, actor, now)
    return Deleted(environment, users)


def users_of(connection: Connection, name: str, version: int) -> list[str]:
    """In words: the images built in it that are still there, the builds that are to take it in.

    At most MOST_NAMED of them, and then "and N more".
    """
    images = standing_images(
        image_environments, image_environments.c.environment_name == name, image_environments.c.environment_version == version
    )
    builds = unfinished_builds(connection, Reference(name, version), lambda build: build.environment == f"{name}:{version}")
    return named_users(connection, (images, "image {0}:{1}"), builds=builds)


def _content(request: CreateEnvironment) -> dict[str, Any]:
    """The fields of an Environment that its digest covers."""
    if request.conda_file is not None and request.requirements:
        problem = "it comes with requirements beside a conda file"
        advice = "Put them into the file, below `- pip:`."
        raise EnvironmentRefused(where=f"The environment {request.name}", problem=problem, advice=advice)
    file = CondaFile(requirements=read_requirements(request.requirements))
    if request.conda_file is not None:
        file = read_conda(request.conda_file, python_version=request.python_version)
    return {
        "python_version": check_python(request.python_version or file.python_version or DEFAULT_PYTHON),
        "requirements": file.requirements,
        "conda_packages": file.conda_packages,
        "channels": file.channels,
        "variables": check_variables(file.variables | request.variables),
    }


def _content_digest(content: dict[str, Any]) -> str:
    # An environment without conda has the digest that it had before there were any with it.
    covered = {name: value for name, value in content.items() if value or name not in ("conda_packages", "channels")}
    return digest_of(msgspec.json.encode(covered, order="sorted"))


def _select() -> Select[Any]:
    return select(environment_versions).where(environment_versions.c.deleted_at.is_(None))


def _is(name: str, version: int) -> ColumnElement[bool]:
    return and_(environment_versions.c.name == name, environment_versions.c.version == version)


def _locked(connection: Connection, reference: Reference) -> Environment:
    """Like :func:`get`; an image that is being registered with it waits, or is waited for."""
    environment = get(connection, reference)
    held = _select().where(_is(environment.name, environment.version)).with_for_update()
    if connection.execute(held).one_or_none() is None:
        raise RecordNotFound(kind="environment", name=reference, command="env")
    return environment


def _is_of_an_image(connection: Connection, environment: Environment) -> bool:
    query = select(image_environments.c.image_name).where(
        image_environments.c.environment_name == environment.name,
        image_environments.c.environment_version == environment.version,
    )
    return connection.execute(query.limit(1)).first() is not None


def _bury(connection: Connection, environment: Environment, actor: Actor, now: datetime) -> None:
    here = _is(environment.name, environment.version)
    connection.execute(update(environment_versions).where(here).values(deleted_at=to_text(now), deleted_by=actor.text()))


def _give_back(connection: Connection, name: str, version: int) -> None:
    """Nobody has seen the number yet: this transaction took it and still holds its row."""
    connection.execute(environment_names.update().where(environment_names.c.name == name).values(last_version=version - 1))


def _narrowed(query: Select[Any], wanted: Wanted) -> Select[Any]:
    document = environment_versions.c.document
    if wanted.name is not None:
        query = query.where(name_matches(environment_versions.c.name, wanted.name, "environment"))
    if wanted.digest is not None:
        query = query.where(environment_versions.c.digest == wanted.digest)
    if wanted.python is not None:
        # Between two unescaped quotes no text can imitate a field: a quote inside text is escaped.
        field = f'"python_version":"{check_python(wanted.python)}'
        query = query.where(or_(document.contains(f'{field}"', autoescape=True), document.contains(f"{field}.", autoescape=True)))
    if wanted.package is not None:
        # Only what may match: the names themselves are compared below.
        query = query.where(document.ilike("%" + "%".join(_package_name(wanted.package).split("-")) + "%"))
    return query


def _package_name(name: str) -> str:
    """As indexes compare it. Raises EnvironmentRefused."""
    if len(name) > 200 or _PACKAGE.fullmatch(name) is None or "::" in name:
        raise EnvironmentRefused(
            where="The filter package", problem=f"{name[:80]!r} is no package", advice="Give its name alone."
        )
    return re.sub(r"[-_.]+", "-", name).lower()


def _has_package(environment: Environment, package: str | None) -> bool:
    if package is None:
        return True
    lines = (*environment.requirements, *environment.conda_packages)
    names = (found["name"] for line in lines if (found := _PACKAGE.match(line)))
    return _package_name(package) in {re.sub(r"[-_.]+", "-", name).lower() for name in names}
