"""Events: what happened in a workspace, in order, and what happens while one looks."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from hedgerow.backoff import Backoff
from hedgerow.contracts.api import Page
from hedgerow.contracts.events import Event, EventsRestored
from hedgerow.sdk.errors import ApiError, ServerUnreachable
from hedgerow.sdk.filters import instant_filter
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/events"
# The server says every 15 s that it lives; a silence longer than this means that the connection is dead.
_SILENCE_S = 45.0
_RETRY = Backoff(first_s=0.2, cap_s=5.0)
_MOST_FAILURES = 12
_OVERLOADED = 503


class Events:
    """``client.events``.

    ``kind`` is exact (``model.registered``) or a noun with a star (``model.*``), ``subject`` likewise (``model/iris:3``,
    ``model/iris:*``), ``actor`` a token's id or name. Every event has a ``cursor``: what comes after it is asked for with it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        kind: str | None = None,
        subject: str | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        newest: bool = False,
        limit: int = PAGE_ITEMS,
        after: str | None = None,
    ) -> Page[Event]:
        """Oldest first, or (``newest``) newest first; ``since`` is included, ``until`` is not.

        Raises ApiError; ``events_restored`` for an ``after`` from before a backup was restored.
        """
        query = _query(kind, subject, actor, since, until) | {"limit": limit, "after": after, "newest": newest or None}
        return self._transport.call("GET", _PATH, Page[Event], query=query)

    def iterate(
        self,
        *,
        kind: str | None = None,
        subject: str | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str | None = None,
    ) -> Iterator[Event]:
        """Every event there is now, oldest first, page by page."""

        def fetch(following: str | None) -> Page[Event]:
            return self.list(kind=kind, subject=subject, actor=actor, since=since, until=until, limit=WALK_ITEMS, after=following)

        return walk(fetch, after)

    def follow(
        self,
        *,
        kind: str | None = None,
        subject: str | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        after: str | None = None,
        on_restored: Callable[[str], None] | None = None,
    ) -> Iterator[Event]:
        """Events as they happen, without end: those after the cursor ``after``, those from ``since`` on, or only new ones.

        A broken connection is picked up where it was, for about a minute. When the workspace is restored from a backup,
        ``on_restored`` is called with the new incarnation, and what follows begins with the oldest event.
        """
        query = _query(kind, subject, actor, since, None)
        last_id, failures, met = after or "", 0, False
        while True:
            try:
                for frame in self._transport.frames(_PATH, last_id, _SILENCE_S, query):
                    last_id, failures, met = frame.last_id, 0, True
                    if frame.event == "restored" and on_restored is not None:
                        on_restored(msgspec.json.decode(frame.data, type=EventsRestored).incarnation)
                    elif frame.event == "event":
                        yield msgspec.json.decode(frame.data, type=Event)
            except (ServerUnreachable, ApiError) as problem:
                failures += 1
                passing = not isinstance(problem, ApiError) or problem.status == _OVERLOADED
                if not (met and passing) or failures > _MOST_FAILURES:
                    raise
            # A server that ends closes its streams politely; it may come back.
            threading.Event().wait(_RETRY.delay_s(max(1, failures), random.random))


def _query(
    kind: str | None, subject: str | None, actor: str | None, since: datetime | None, until: datetime | None
) -> dict[str, str | int | bool | None]:
    return {
        "kind": kind,
        "subject": subject,
        "actor": actor,
        "since": instant_filter(since),
        "until": instant_filter(until),
    }
