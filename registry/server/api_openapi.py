"""``/openapi.json`` and the pages ``/api``: what this API takes and gives, for programs and for people.

Neither needs a token: both are the same for every workspace and stand in the documentation already, and whoever generates
a client or looks for the header to send has no token yet. They say nothing of what a workspace holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import cast

from flask import Blueprint, Flask, Response, current_app, render_template, request

from registry.server.errors import NoSuchPath
from registry.server.openapi.document import NOUNS, document, document_bytes
from registry.server.openapi.document import routes as described_routes
from registry.server.openapi.page import Entry, Shape, entries, shapes

_EXTENSION = "hedgerow.openapi"


@dataclass(frozen=True)
class Published:
    """The document of one application, made once."""

    data: bytes
    etag: str
    by_noun: dict[str, list[Entry]]
    shapes: dict[str, list[Shape]]


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("openapi", __name__)
    blueprint.get("/openapi.json")(show_document)
    blueprint.get("/api")(show_nouns)
    blueprint.get("/api/<noun>")(show_noun)
    return blueprint


def show_document() -> Response:
    """The document; it changes with the version of Hedgerow only."""
    found = _published()
    response = Response(found.data, mimetype="application/json")
    response.set_etag(found.etag)
    response.headers["Cache-Control"] = "no-cache"
    return cast(Response, response.make_conditional(request))


def show_nouns() -> Response:
    """Every operation in one line, by noun."""
    found = _published()
    return Response(render_template("api.html", by_noun=found.by_noun, meanings=NOUNS), mimetype="text/html")


def show_noun(noun: str) -> Response:
    """The operations of one noun, and the shapes of what they take and give."""
    found = _published()
    if noun not in found.by_noun:
        raise NoSuchPath(path=request.path[:200])
    values = {"noun": noun, "entries": found.by_noun[noun], "shapes": found.shapes[noun]}
    return Response(render_template("api_noun.html", nouns=sorted(found.by_noun), meanings=NOUNS, **values), mimetype="text/html")


def _published() -> Published:
    # Two first requests at once make the same thing twice, and one of the two stays.
    kept = current_app.extensions
    if _EXTENSION not in kept:
        kept[_EXTENSION] = _publish(current_app)
    return cast(Published, kept[_EXTENSION])


def _publish(app: Flask) -> Published:
    data, whole, found = document_bytes(app), document(app), described_routes(app)
    by_noun: dict[str, list[Entry]] = {}
    for route, entry in zip(found, entries(found, whole), strict=True):
        by_noun.setdefault(route.noun, []).append(entry)
    below = {noun: shapes(listed, whole) for noun, listed in by_noun.items()}
    return Published(data, sha256(data).hexdigest()[:16], dict(sorted(by_noun.items())), below)
