"""``GET /v2/token``: a short-lived registry token for a credential, limited to what was asked for and to what it may do."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from flask import Response, request

from registry.server import oci_grants, scopes
from registry.server.context import Caller
from registry.server.http import caller, context, needs
from registry.server.oci_grants import CATALOG, PULL, PUSH, Asked
from registry.store import tokens

_MODELS = "models/"
_PULLS = frozenset({"owner", "contributor", "reader", "puller", "device"})
_PUSHES = frozenset({"owner", "contributor"})
# More would make a token that no header can carry; tools ask for one or two.
_SCOPES_MOST = 25


@needs("reader", "puller", "device", scope=scopes.OPEN)
def give_token() -> Response:
    """As the distribution project specified it. Who may nothing of what was asked gets a token that opens nothing."""
    here, who = context(), caller()
    now = here.clock.now()
    with here.database.look() as connection:
        parent = tokens.by_id(connection, who.token_id, now)
    expires = now + timedelta(seconds=oci_grants.LASTS_S)
    if parent.expires_at is not None:
        expires = min(expires, parent.expires_at)
    asked = oci_grants.parse(request.args.getlist("scope"))[:_SCOPES_MOST]
    granted = [(one.repository, action) for one in asked for action in _granted(who, one)]
    text = oci_grants.issue(here.workspace, who.token_id, expires, granted)
    body = {
        "token": text,
        "access_token": text,
        "expires_in": int((expires - now).total_seconds()),
        "issued_at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return Response(msgspec.json.encode(body), mimetype="application/json")


def _granted(who: Caller, asked: Asked) -> list[str]:
    """Which of the actions this caller could do with the credential itself."""
    if asked.repository == CATALOG[0]:
        return [CATALOG[1]] if who.role in _PULLS - {"device"} and not who.scopes else []
    noun, name = "images", asked.repository
    if name.startswith(_MODELS):
        noun, name = "models", name.removeprefix(_MODELS)
    if who.scopes and not scopes.allows(who.scopes, noun, name):
        return []
    may = ([PULL] if who.role in _PULLS else []) + ([PUSH] if who.role in _PUSHES and noun == "images" else [])
    return [action for action in asked.actions if action in may]
