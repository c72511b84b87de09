"""Finds out who sends a request: bearer token, for OCI tools a Basic password, for pages a cookie."""

from __future__ import annotations

from flask import Request

from registry.errors import TokenMissing, TokenRefused
from registry.identity.errors import EnrollmentKeyRefused
from registry.server import attempts, oci_grants
from registry.server.context import Caller, ServerContext
from registry.store import enrollment_keys, tokens

COOKIE = "hedgerow_page"
OCI_PREFIX = "/v2/"
_SAFE = frozenset({"GET", "HEAD"})


def authenticate(context: ServerContext, request: Request) -> Caller:
    """Raises TokenMissing or TokenRefused."""
    sent = _token_text(request)
    # A cookie travels unasked, so it never carries a write.
    text = sent or (request.cookies.get(COOKIE) if request.method in _SAFE else None)
    if not text:
        raise TokenMissing
    now = context.clock.now()
    grants = None
    with context.database.look() as connection:
        if oci_grants.is_one(text) and request.path.startswith(OCI_PREFIX):
            says = oci_grants.read(context.workspace, text, now)
            found, grants = tokens.by_id(connection, says.token_id, now), frozenset(says.grants)
        else:
            found = tokens.verify(connection, text, now)
    # Browsers hand cookies to every program on a host, whatever its port: what such a program may learn opens pages only.
    if found.is_page_session != (sent is None):
        raise TokenRefused(problem="it does not belong here: a page's token is for its cookie, and no other token is")
    tokens.note_use(context.database, found, now)
    return Caller(found.id, found.name, found.role, found.subject, found.scopes, grants)


def authenticate_key(context: ServerContext, request: Request) -> Caller:
    """The bearer of an enrolment key, which is good for enrolling and nothing else.

    Raises EnrollmentKeyRefused, TooManyWrongKeys.
    """
    sent = request.authorization
    if sent is None or sent.type != "bearer" or not sent.token:
        raise EnrollmentKeyRefused(problem="there is none; send `Authorization: Bearer KEY`")
    remote, wrong = request.remote_addr or "this machine", attempts.of_app()
    wrong.check(remote)
    try:
        with context.database.look() as connection:
            key = enrollment_keys.verify(connection, sent.token)
    except EnrollmentKeyRefused:
        wrong.note_wrong(remote)
        raise
    return Caller(key.id, key.name, "device", "")


def _token_text(request: Request) -> str | None:
    authorization = request.authorization
    if authorization is not None:
        if authorization.type == "bearer":
            return authorization.token
        # `docker login` and its kin know only user and password; anything else uses Bearer.
        if authorization.type == "basic" and request.path.startswith(OCI_PREFIX):
            return authorization.password
        return None
    return None
