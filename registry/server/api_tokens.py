"""``/api/v1/tokens``: who may do what. For owners only."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, Response

from hedgerow.contracts.api import CreateToken, Page
from hedgerow.errors import InvalidDocument
from registry.errors import RoleNotForTokens
from registry.server.http import answer, context, needs, no_content, page_arguments, read_body
from registry.store import tokens

LONGEST_S = 100 * 366 * 86_400


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("tokens", __name__, url_prefix="/api/v1/tokens")
    blueprint.post("")(create_token)
    blueprint.get("")(list_tokens)
    blueprint.delete("/<token_id>")(revoke_token)
    return blueprint


@needs("owner")
def create_token() -> Response:
    """201; the only answer that ever holds the secret."""
    here = context()
    wanted = read_body(CreateToken)
    if wanted.role in ("device", "run"):
        raise RoleNotForTokens(role=wanted.role)
    if (wanted.expires_in_s or 0) > LONGEST_S:
        raise InvalidDocument(
            document="CreateToken", problem=f"expires_in_s is above {LONGEST_S}; leave it out for a token without end"
        )
    now = here.clock.now()
    expires_at = None if wanted.expires_in_s is None else now + timedelta(seconds=wanted.expires_in_s)
    with here.database.write() as connection:
        made = tokens.create(connection, name=wanted.name, role=wanted.role, now=now, expires_at=expires_at)
    return answer(made, 201)


@needs("owner")
def list_tokens() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found = tokens.newest(connection, limit + 1, after)
    following = found[limit - 1].id if len(found) > limit else None
    return answer(Page(items=found[:limit], next=following))


@needs("owner")
def revoke_token(token_id: str) -> Response:
    here = context()
    with here.database.write() as connection:
        tokens.revoke(connection, token_id, here.clock.now())
    return no_content()
