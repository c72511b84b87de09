"""``/api/v1/environments``: Python environments by name and version."""

from __future__ import annotations

from flask import Blueprint, Response, request

from hedgerow.contracts.api import CreateEnvironment, Page
from hedgerow.contracts.names import Reference
from registry.server.http import answer, context, needs, page_arguments, read_body
from registry.store import environments


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("environments", __name__, url_prefix="/api/v1/environments")
    blueprint.post("")(create_environment)
    blueprint.get("")(list_environments)
    blueprint.get("/<reference>")(show_environment)
    return blueprint


@needs("contributor")
def create_environment() -> Response:
    """201 with the new version, or with the newest one when that asks for just the same."""
    here = context()
    wanted = read_body(CreateEnvironment)
    with here.database.write() as connection:
        environment = environments.create(connection, wanted, here.clock.now())
    return answer(environment, 201)


@needs("reader")
def list_environments() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = environments.newest(connection, limit, after, name=request.args.get("name"))
    return answer(Page(items=found, next=following))


@needs("reader")
def show_environment(reference: str) -> Response:
    with context().database.read() as connection:
        return answer(environments.get(connection, Reference.parse(reference)))
