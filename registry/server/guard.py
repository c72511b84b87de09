"""What every request must pass before a handler sees it, and what every answer carries.

Host and Origin are checked against DNS rebinding and pages of other sites; writes must name a content type that no
browser form can send; a silent peer loses its thread.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from flask import Flask, Request, Response, request

from registry.errors import OriginRefused
from registry.server.access import OCI_PREFIX
from registry.server.errors import ContentTypeRefused, MalformedRequest, UnknownApiVersion
from registry.server.http import SILENCE_S
from registry.settings import ServerSettings

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_BODIES = frozenset({"application/json", "application/octet-stream"})
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
_VERSION = re.compile(r"/api/(v[0-9]+[^/]*)(?:/|$)")
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"\*|{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def install(app: Flask, settings: ServerSettings) -> None:
    """Check each request of ``app`` and dress each answer."""
    hosts = allowed_hosts(settings)

    @app.before_request
    def check() -> None:
        _limit_silence(request)
        # No name holds NUL, and PostgreSQL refuses it even in a comparison.
        if "\0" in request.path or b"%00" in request.query_string:
            raise MalformedRequest(problem="its address holds a NUL character")
        check_origin(request.host, request.headers.get("Origin"), request.scheme, hosts, settings.public_url)
        _check_version(request.path)
        if request.routing_exception is not None:
            return  # what is not there is said before what is wrong with the request for it
        _check_tags(request)
        if request.method in _WRITES and _has_body(request) and not _takes(request):
            expected = "application/octet-stream" if request.path.startswith(OCI_PREFIX) else "application/json"
            raise ContentTypeRefused(found=request.mimetype, expected=expected)

    @app.after_request
    def dress(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _check_version(path: str) -> None:
    """Raises UnknownApiVersion, so that an old or a new client learns more than that there is nothing here."""
    found = _VERSION.match(path)
    if found and found[1] != "v1":
        raise UnknownApiVersion(version=found[1][:20])


def _check_tags(asked: Request) -> None:
    """A condition that cannot be read must not pass for one that holds. Raises MalformedRequest."""
    names = ("If-Match", "If-None-Match") if asked.method in _WRITES else ("If-Match",)
    for name in names:
        value = asked.headers.get(name)
        if value is not None and not _TAGS.fullmatch(value):
            raise MalformedRequest(problem=f'{name} is neither * nor a list of tags in quotes: "TAG", "TAG"')


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address) means this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(settings: ServerSettings) -> frozenset[str] | None:
    """The names under which requests may come; None for all (a proxy in front has decided)."""
    if settings.behind_proxy and settings.public_url is None:
        return None
    named = {name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()}
    public = {urlsplit(settings.public_url).hostname or ""} if settings.public_url else set()
    return frozenset({"localhost", "127.0.0.1", "::1", settings.host.lower()} | named | public)


def check_origin(host: str, origin: str | None, scheme: str, allowed: frozenset[str] | None, public_url: str | None) -> None:
    """Raises OriginRefused for a foreign Host, and for an Origin that is not the very address that was asked."""
    name = urlsplit(f"//{host}").hostname or ""
    mine = {f"{scheme}://{host}".lower(), (public_url or f"{scheme}://{host}").rstrip("/").lower()}
    if (allowed is not None and name not in allowed) or (origin is not None and origin.lower() not in mine):
        raise OriginRefused(host=host[:200], origin=(origin or "none")[:200])


def _has_body(asked: Request) -> bool:
    return bool(asked.content_length) or "Transfer-Encoding" in asked.headers


def _takes(asked: Request) -> bool:
    if asked.path.startswith(OCI_PREFIX):
        # Manifests have types of their own, and some tools name none for content; a form has always been a browser's.
        return asked.mimetype not in _FORMS
    return asked.mimetype in _BODIES


def _limit_silence(asked: Request) -> None:
    # gunicorn hands its socket over; without a limit a device that lost power in an upload holds a thread for ever.
    connection = asked.environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(SILENCE_S)
