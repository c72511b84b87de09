"""``/api/v1/models/NAME/aliases``: names for single versions of a model that can be moved."""

from __future__ import annotations

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import ModelAlias, Page, SetAlias
from hedgerow.contracts.names import Reference, check_known_name, check_name
from registry.errors import AliasProtected, AliasReserved, PreconditionFailed, RecordDeleted
from registry.server.http import (
    actor,
    answer,
    answer_tagged,
    check_match,
    context,
    no_content,
    page_arguments,
    read_body,
    tell,
    write_once,
)
from registry.server.operation import PAGE, operation
from registry.store import model_aliases, models


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("model_aliases", __name__, url_prefix="/api/v1/models")
    blueprint.get("/<name>/aliases")(list_aliases)
    blueprint.get("/<name>/aliases/<alias>")(show_alias)
    blueprint.put("/<name>/aliases/<alias>")(set_alias)
    blueprint.delete("/<name>/aliases/<alias>")(delete_alias)
    return blueprint


@operation("List the aliases of a model", "reader", scope="models", result=Page[ModelAlias], query=PAGE)
def list_aliases(name: str) -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        models.get(connection, Reference(check_known_name(name, "model")))
        found, following = model_aliases.page(connection, name, limit, after)
    return answer(Page(items=found, next=following))


@operation("Show an alias", "reader", scope="models", result=ModelAlias)
def show_alias(name: str, alias: str) -> Response:
    with context().database.read() as connection:
        found = model_aliases.get(connection, check_known_name(name, "model"), check_name(alias, "alias"))
    return answer_tagged(found, str(found.revision))


@operation(
    "Put an alias on a version",
    "contributor",
    scope="models",
    body=SetAlias,
    result=ModelAlias,
    errors=(RecordDeleted, AliasReserved, AliasProtected, PreconditionFailed),
)
def set_alias(name: str, alias: str) -> Response:
    """Made, or moved from another version. A protected one is moved and unprotected by an owner only."""
    wanted = read_body(SetAlias)
    check_known_name(name, "model")
    check_name(alias, "alias")

    def put(connection: Connection) -> Response:
        manifest = models.lock(connection, Reference(name, wanted.version))
        before = model_aliases.find(connection, name, alias)
        check_match("Alias", f"{name}@{alias}", str(before.revision) if before else None)
        now = context().clock.now()
        found = model_aliases.point(connection, name, alias, manifest.version, now, actor=actor(), protected=wanted.protected)
        if found != before:
            details = {"version": str(found.version), "protected": str(found.protected).lower()}
            if before:
                details["previous"] = str(before.version)
            tell(connection, "model.alias-set", f"model/{name}@{alias}", **details)
        return answer_tagged(found, str(found.revision))

    return write_once(put)


@operation(
    "Take an alias away",
    "contributor",
    scope="models",
    errors=(AliasReserved, AliasProtected, PreconditionFailed),
)
def delete_alias(name: str, alias: str) -> Response:
    """The version that it named stays. A protected alias is taken away by an owner only."""
    check_known_name(name, "model")
    check_name(alias, "alias")

    def remove(connection: Connection) -> Response:
        models.lock_name(connection, name)
        before = model_aliases.find(connection, name, alias)
        check_match("Alias", f"{name}@{alias}", str(before.revision) if before else None)
        gone = model_aliases.remove(connection, name, alias, actor=actor())
        tell(connection, "model.alias-removed", f"model/{name}@{alias}", version=str(gone.version))
        return no_content()

    return write_once(remove)
