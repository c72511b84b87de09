"""``/api/v1/environments``: Python environments by name and version."""

from __future__ import annotations

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import CreateEnvironment, Page
from hedgerow.contracts.environment import Environment
from hedgerow.contracts.names import Reference
from registry.errors import EnvironmentRefused, InUse, PreconditionFailed, RecordDeleted
from registry.server import arguments
from registry.server.http import (
    actor,
    answer_tagged,
    check_match,
    check_scope,
    context,
    is_forced,
    no_content,
    page_arguments,
    read_body,
    tell,
    tell_deleted,
    write_once,
)
from registry.server.operation import FORCE, PAGE, QueryField, operation
from registry.server.revisions import short_digest
from registry.store import environments
from registry.store.environments import Wanted

_FILTERS = (
    *PAGE,
    QueryField("name", "only versions of this environment; with a star at the end, of environments whose names begin so"),
    QueryField("python", "only with this Python: 3.N or 3.N.P"),
    QueryField("digest", "only with this content"),
    QueryField("package", "only those that ask for this package, from pip or conda"),
)


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("environments", __name__, url_prefix="/api/v1/environments")
    blueprint.post("")(create_environment)
    blueprint.get("")(list_environments)
    blueprint.get("/<reference>")(show_environment)
    blueprint.delete("/<reference>")(delete_environment)
    return blueprint


@operation(
    "Create an environment version",
    "contributor",
    scope="environments",
    body=CreateEnvironment,
    result=Environment,
    status=201,
    errors=(EnvironmentRefused,),
)
def create_environment() -> Response:
    """The new version, or the one of this name that has just this content: a name never has the same twice."""
    wanted = read_body(CreateEnvironment)
    check_scope("environments", wanted.name)

    def create(connection: Connection) -> Response:
        made = environments.create(connection, wanted, context().clock.now())
        environment = made.environment
        if not made.found:
            subject = f"environment/{environment.name}:{environment.version}"
            tell(connection, "environment.created", subject, digest=environment.digest)
        return answer_tagged(environment, short_digest(environment), 201)

    return write_once(create)


@operation("List environments, newest first", "reader", scope="environments", result=Page[Environment], query=_FILTERS)
def list_environments() -> Response:
    limit, after = page_arguments()
    wanted = Wanted(arguments.text("name"), arguments.text("python"), arguments.digest("digest"), arguments.text("package"))
    with context().database.read() as connection:
        found, following = environments.newest(connection, limit, after, wanted=wanted)
    page = Page(items=found, next=following)
    return answer_tagged(page, short_digest(page))


@operation("Show an environment version", "reader", scope="environments", result=Environment, errors=(RecordDeleted,))
def show_environment(reference: str) -> Response:
    with context().database.read() as connection:
        environment = environments.get(connection, Reference.parse(reference))
    return answer_tagged(environment, short_digest(environment))


@operation(
    "Delete an environment version",
    "contributor",
    scope="environments",
    query=(FORCE,),
    errors=(RecordDeleted, InUse, PreconditionFailed),
)
def delete_environment(reference: str) -> Response:
    """Refused while an image was built in it. ``force`` leaves the record of those images whole and hides the environment."""
    named = Reference.parse(reference)
    forced = is_forced()

    def remove(connection: Connection) -> Response:
        standing = environments.get(connection, named)
        check_match("Environment", reference, short_digest(standing))
        exact = Reference(standing.name, standing.version)
        users: list[str] = []
        if forced:
            users = environments.force_delete(connection, exact, actor(), context().clock.now()).users
        else:
            environments.delete_version(connection, exact, actor(), context().clock.now())
        tell_deleted(connection, "environment", exact, standing.digest, users)
        return no_content()

    return write_once(remove)
