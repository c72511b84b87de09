"""``/api/v1/events``: everything that happened, as pages or as a stream that a client can resume.

The order, and why nothing is missed in it, is told in ``registry/store/events.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Response, request

from hedgerow.contracts.api import Page
from hedgerow.contracts.document import encode
from hedgerow.contracts.events import Event, EventsRestored
from hedgerow.contracts.names import HEADER_LAST_EVENT
from registry.errors import CursorOfAnotherLife
from registry.server import arguments
from registry.server.context import ServerContext
from registry.server.errors import TooManyStreams
from registry.server.followers import Followers, followers
from registry.server.http import answer, caller, context, page_arguments
from registry.server.operation import PAGE, QueryField, operation
from registry.server.threads import budget
from registry.store import events, tokens
from registry.store.events import Cursor, Wanted

HEARTBEAT_S = 15.0
_STREAM = "text/event-stream"
_BATCH = 200
_FILTERS = (
    QueryField("kind", "events of this kind: `model.registered`, or `model.*`"),
    QueryField("subject", "events about this: `model/iris:3`, or `model/iris:*`"),
    QueryField("actor", "events of this actor: a token's id or name, or `hub` or `controller`"),
    QueryField("since", "events of this time and later", "instant"),
    QueryField("until", "events before this time", "instant"),
    QueryField("newest", "newest first; `after` then goes back in time", "boolean"),
)


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("events", __name__, url_prefix="/api/v1/events")
    blueprint.get("")(list_events)
    return blueprint


@operation(
    "List or follow events",
    "reader",
    scope="events",
    result=Page[Event],
    query=(*PAGE, *_FILTERS),
    errors=(CursorOfAnotherLife, TooManyStreams),
    also=((200, _STREAM),),
)
def list_events() -> Response:
    """Oldest first. With `Accept: text/event-stream` a stream that begins after `Last-Event-ID` (or `after`).

    A stream without either begins with what happens next, or with `since`. `event: restored` in it says that the workspace
    was restored from a backup since: what follows begins with the oldest event.
    """
    limit, after = page_arguments()
    wanted = Wanted(
        kind=arguments.text("kind"),
        subject=arguments.text("subject"),
        actor=arguments.text("actor"),
        since=arguments.instant("since"),
        until=arguments.instant("until"),
    )
    if request.accept_mimetypes.best_match(["application/json", _STREAM]) == _STREAM:
        return _follow(request.headers.get(HEADER_LAST_EVENT) or after, wanted)
    cursor = Cursor.parse(after) if after else None
    if arguments.flag("newest"):
        return answer(_newest(cursor, wanted, limit))
    return answer(_oldest(cursor, wanted, limit))


def _oldest(after: Cursor | None, wanted: Wanted, limit: int) -> Page[Event]:
    with context().database.read() as connection:
        if after is not None:
            events.check_life(connection, after)
        found = events.after(connection, after or events.beginning(connection), wanted, limit + 1).events
    return Page(items=found[:limit], next=found[limit - 1].cursor if len(found) > limit else None)


def _newest(before: Cursor | None, wanted: Wanted, limit: int) -> Page[Event]:
    with context().database.read() as connection:
        if before is not None:
            events.check_life(connection, before)
        found = events.newest(connection, before, wanted, limit + 1)
    return Page(items=found[:limit], next=found[limit - 1].cursor if len(found) > limit else None)


def _follow(after: str | None, wanted: Wanted) -> Response:
    here = context()
    seen = Cursor.parse(after) if after else None
    with here.database.read() as connection:
        begun = seen or (events.end(connection) if wanted.since is None else events.beginning(connection))
    response = Response(mimetype=_STREAM)
    response.call_on_close(budget().take_stream())
    response.response = _stream(here, followers(), caller().token_id, begun, wanted)
    # Proxies that buffer would hold the events back.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _stream(here: ServerContext, news: Followers, token_id: str, seen: Cursor, wanted: Wanted) -> Iterator[bytes]:
    # The place where it begins, so that a client that is cut off before the first event goes on here.
    yield _place(seen)
    quiet_since = here.clock.monotonic_s()
    while not news.closed:
        turn = news.turn
        with here.database.read() as connection:
            # A stream may last for days: it ends with the token that asked for it.
            if not tokens.is_good(connection, token_id, here.clock.now()):
                return
            restored = events.life(connection) != seen.incarnation
            if restored:
                seen = events.beginning(connection)
            batch = events.after(connection, seen, wanted, _BATCH)
        if restored:
            yield b"event: restored\n" + _frame(seen.text(), encode(EventsRestored(incarnation=seen.incarnation)))
        for event in batch.events:
            yield b"event: event\n" + _frame(event.cursor, encode(event))
        seen = batch.reached
        now = here.clock.monotonic_s()
        if batch.events or restored:
            quiet_since = now
        elif now - quiet_since >= HEARTBEAT_S:
            # Tells the client that we live, and us whether it does; and where it would go on.
            yield _place(seen)
            quiet_since = now
        else:
            news.wait(turn, HEARTBEAT_S - (now - quiet_since))


def _frame(cursor: str, data: bytes) -> bytes:
    return b"id: %s\ndata: %s\n\n" % (cursor.encode(), data)


def _place(cursor: Cursor) -> bytes:
    """No event: by the rules of server-sent events the client only remembers the id."""
    return b": at %s\nid: %s\n\n" % (cursor.text().encode(), cursor.text().encode())
