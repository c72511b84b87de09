"""``/login?token=…``: turns a token into a cookie for the pages, and takes it out of the address bar.

The cookie holds a reader token of its own that lasts for half a day, so that neither the owner's token nor the right to
write ever lies in a browser.
"""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, Response, render_template, request

from registry.server.access import COOKIE
from registry.server.http import context
from registry.store import tokens

SESSION_NAME = "page-session"
_SESSION = timedelta(hours=12)
_MAY_LOOK = frozenset({"owner", "contributor", "reader"})


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("login", __name__)
    blueprint.get("/login")(login)
    return blueprint


def login() -> Response:
    """Redirects to the overview with the cookie set. Without a token: a page that says how to get one."""
    text = request.args.get("token", "")
    if not text:
        return Response(render_template("login.html"), mimetype="text/html")
    here = context()
    now = here.clock.now()
    with here.database.write() as connection:
        found = tokens.verify(connection, text, now)
        # A session makes no further sessions: it would renew itself for ever.
        if found.role not in _MAY_LOOK or found.is_page_session:
            return Response(render_template("login.html", refused=found.role), 403, mimetype="text/html")
        tokens.forget_expired(connection, SESSION_NAME, now)
        session = tokens.create_page_session(connection, found, SESSION_NAME, now, _SESSION)
    response = Response(status=303, headers={"Location": "/"})
    response.set_cookie(
        COOKIE,
        session.secret or "",
        max_age=_SESSION,
        httponly=True,
        samesite="Strict",
        secure=request.is_secure,
    )
    return response
