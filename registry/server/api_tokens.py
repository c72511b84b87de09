"""``/api/v1/tokens``: who may do what. For owners; ``/me`` tells every caller what its own token is."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import CreateToken, Page, TokenInfo
from hedgerow.errors import InvalidDocument
from registry.errors import RecordNotFound, RoleNotForTokens
from registry.server import scopes
from registry.server.errors import AlreadyDone, IdempotencyKeyReused
from registry.server.http import actor, answer, caller, context, no_content, page_arguments, read_body, tell, write_once
from registry.server.operation import PAGE, operation
from registry.server.revisions import answer_seen
from registry.store import tokens

LONGEST_S = 100 * 366 * 86_400
_MAY_HAVE_SCOPES = ("contributor", "reader", "puller")
_ONCE = (IdempotencyKeyReused, AlreadyDone)


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("tokens", __name__, url_prefix="/api/v1/tokens")
    blueprint.post("")(create_token)
    blueprint.get("")(list_tokens)
    blueprint.get("/me")(show_own_token)
    blueprint.get("/<token_id>")(show_token)
    blueprint.delete("/<token_id>")(revoke_token)
    return blueprint


@operation(
    "Create a token",
    "owner",
    scope="tokens",
    body=CreateToken,
    result=TokenInfo,
    status=201,
    errors=(RoleNotForTokens, *_ONCE),
)
def create_token() -> Response:
    """201; the only answer that ever holds the secret."""
    here = context()
    wanted = read_body(CreateToken)
    _check(wanted)
    now = here.clock.now()
    expires_at = None if wanted.expires_in_s is None else now + timedelta(seconds=wanted.expires_in_s)

    def create(connection: Connection) -> Response:
        made = tokens.create(
            connection,
            name=wanted.name,
            role=wanted.role,
            scopes=wanted.scopes,
            created_by=actor().text(),
            expires_at=expires_at,
            now=now,
        )
        expires = {} if expires_at is None else {"expires_at": expires_at.isoformat()}
        tell(
            connection,
            "token.created",
            f"token/{made.id}",
            name=made.name,
            role=made.role,
            scopes=" ".join(made.scopes)[:1000],
            **expires,
        )
        return answer(made, 201)

    return write_once(create)


@operation("List tokens, newest first", "owner", scope="tokens", result=Page[TokenInfo], query=PAGE)
def list_tokens() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found = tokens.newest(connection, limit + 1, after)
    following = found[limit - 1].id if len(found) > limit else None
    return answer(Page(items=found[:limit], next=following))


@operation(
    "Show the token of this request",
    "reader",
    "puller",
    "device",
    "run",
    scope=scopes.OPEN,
    result=TokenInfo,
)
def show_own_token() -> Response:
    """For whatever token it is asked with: its role, scopes and end, never its secret."""
    with context().database.read() as connection:
        return answer(tokens.find(connection, caller().token_id))


@operation("Show a token", "owner", scope="tokens", result=TokenInfo)
def show_token(token_id: str) -> Response:
    with context().database.read() as connection:
        return answer_seen(tokens.find(connection, token_id))


@operation("Revoke a token", "owner", scope="tokens", errors=(RecordNotFound,))
def revoke_token(token_id: str) -> Response:
    """204, also when it was revoked before."""
    now = context().clock.now()

    def revoke(connection: Connection) -> Response:
        before = tokens.find(connection, token_id)
        tokens.revoke(connection, token_id, now)
        if before.revoked_at is None:
            tell(connection, "token.revoked", f"token/{token_id}", name=before.name, role=before.role)
        return no_content()

    return write_once(revoke)


def _check(wanted: CreateToken) -> None:
    """Raises RoleNotForTokens, InvalidDocument."""
    if wanted.role in ("device", "run"):
        raise RoleNotForTokens(role=wanted.role)
    problem = ""
    if (wanted.expires_in_s or 0) > LONGEST_S:
        problem = f"expires_in_s is above {LONGEST_S}; leave it out for a token without end"
    elif wanted.scopes and wanted.role not in _MAY_HAVE_SCOPES:
        problem = f"an {wanted.role} token reaches everything; scopes are for {', '.join(_MAY_HAVE_SCOPES)}"
    elif strange := [scope for scope in wanted.scopes if scope.partition(":")[0] not in scopes.NOUNS]:
        problem = f"there is nothing that the scope {strange[0]!r} names; its first word is one of {', '.join(scopes.NOUNS)}"
    if problem:
        raise InvalidDocument(document="CreateToken", problem=problem)
