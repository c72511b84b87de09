"""Cross-origin calls (AML_CORS_ORIGINS): pages of the named origins may call this server from a browser.

Stands in front of the routes only where origins are named; a request without an ``Origin`` is not touched. Origins are compared
whole and without case. One with ``*`` in it is a pattern in which ``*`` stands for anything but a slash; one with ``.*`` or a
backslash is a regular expression, as flask-cors has them. Preflights (OPTIONS with ``Access-Control-Request-Method``) get the
methods GET and POST and whatever headers they ask for.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from runtime.exchange import HTML_TYPE, Channel, Exchange, Headers, Response, with_headers

_log = logging.getLogger("hedgerow.runtime.front")
_METHODS = "GET, POST"


class Cors:
    """A handler in front of another."""

    def __init__(self, origins: str, handle: Callable[[Exchange], None]) -> None:
        self._handle = handle
        self._matches = _matcher(origins)

    def handle(self, exchange: Exchange) -> None:
        asked = exchange.request.headers
        origin = asked.get("origin")
        if origin is not None and self._matches(origin):
            # It names this origin, whichever are allowed: a cache must not hand the answer to another one's page.
            added: Headers = {"access-control-allow-origin": origin, "vary": "Origin"}
            preflight = exchange.request.method == "OPTIONS" and "access-control-request-method" in asked
            if preflight:
                added["access-control-allow-methods"] = _METHODS
                if wanted := asked.get("access-control-request-headers"):
                    added["access-control-allow-headers"] = wanted
            exchange.answer_through(lambda channel: _WithHeaders(channel, added))
            if preflight and exchange.request.path != "/score":
                # Of the paths here only that one knows OPTIONS; a script may even answer it itself.
                exchange.answer(Response(200, b"", HTML_TYPE))
                return
        self._handle(exchange)


class _WithHeaders:
    """A channel that adds headers to the one answer that goes through it."""

    def __init__(self, channel: Channel, added: Headers) -> None:
        self._channel, self._added = channel, added
        self.since = channel.since

    def send(self, exchange: Exchange, response: Response) -> None:
        self._channel.send(exchange, self._with_them(response))

    def send_head(self, exchange: Exchange, response: Response) -> None:
        self._channel.send_head(exchange, self._with_them(response))

    def send_part(self, part: bytes) -> bool:
        return self._channel.send_part(part)

    def send_end(self, exchange: Exchange, *, whole: bool) -> None:
        self._channel.send_end(exchange, whole=whole)

    def _with_them(self, response: Response) -> Response:
        answer = with_headers(response, self._added)
        if "vary" in response.headers:
            # A packed answer differs by more than the origin.
            answer.headers["vary"] = f"{response.headers['vary']}, {self._added['vary']}"
        return answer


def _matcher(origins: str) -> Callable[[str], bool]:
    named = [origin.strip() for origin in origins.split(",") if origin.strip()]
    if "*" in named:
        return lambda _origin: True
    whole = frozenset(origin.lower() for origin in named)
    patterns = [pattern for origin in named if (pattern := _pattern(origin)) is not None]

    def matches(origin: str) -> bool:
        lower = origin.lower()
        return lower in whole or any(pattern.fullmatch(origin) for pattern in patterns)

    return matches


def _pattern(origin: str) -> re.Pattern[str] | None:
    if ".*" in origin or "\\" in origin:
        try:
            return re.compile(origin, re.IGNORECASE)
        except re.error as problem:
            _log.warning("%r is no regular expression (%s); it matches no origin", origin, problem)
            return None
    return re.compile(re.escape(origin).replace(r"\*", "[^/]*"), re.IGNORECASE) if "*" in origin else None
