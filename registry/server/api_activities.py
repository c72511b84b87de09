"""``/api/v1/activities``: long work, followed over server-sent events that a client can resume."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Response, request

from hedgerow.contracts.api import Page
from hedgerow.contracts.document import encode
from hedgerow.contracts.names import HEADER_LAST_EVENT
from hedgerow.contracts.work import ENDED, ActivityEvent
from registry.server.context import ServerContext
from registry.server.errors import InvalidArgument
from registry.server.followers import Followers, followers
from registry.server.http import answer, context, needs, page_arguments
from registry.server.threads import budget
from registry.store import activities

HEARTBEAT_S = 15.0


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("activities", __name__, url_prefix="/api/v1/activities")
    blueprint.get("")(list_activities)
    blueprint.get("/<activity_id>")(show_activity)
    blueprint.get("/<activity_id>/events")(follow_activity)
    blueprint.post("/<activity_id>/cancel")(cancel_activity)
    return blueprint


@needs("reader")
def list_activities() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found = activities.newest(connection, limit + 1, after)
    following = found[limit - 1].id if len(found) > limit else None
    return answer(Page(items=found[:limit], next=following))


@needs("reader")
def show_activity(activity_id: str) -> Response:
    with context().database.read() as connection:
        return answer(activities.get(connection, activity_id))


@needs("contributor")
def cancel_activity(activity_id: str) -> Response:
    here = context()
    with here.database.write() as connection:
        activity = activities.cancel(connection, activity_id, here.clock.now())
    here.wakeups.wake("controller")
    here.wakeups.wake("server")
    return answer(activity)


@needs("reader")
def follow_activity(activity_id: str) -> Response:
    """Events after ``Last-Event-ID`` (0 when absent) as they happen; the stream ends with the activity."""
    here = context()
    seen = _last_event()
    with here.database.read() as connection:
        activities.get(connection, activity_id)  # an unknown id is a 404, not an empty stream
    response = Response(mimetype="text/event-stream")
    response.call_on_close(budget().take_stream())
    response.response = _stream(here, followers(), activity_id, seen)
    # Proxies that buffer would hold the events back.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _stream(here: ServerContext, news: Followers, activity_id: str, seen: int) -> Iterator[bytes]:
    yield b": following\n\n"
    quiet_since = here.clock.monotonic_s()
    while not news.closed:
        turn = news.turn
        with here.database.read() as connection:
            # State first: the last events are there when it says "ended".
            state = activities.get(connection, activity_id).state
            events = activities.events_after(connection, activity_id, seen)
        if not events and state in ENDED:
            return
        for event in events:
            seen = event.number
            yield _line(event)
        now = here.clock.monotonic_s()
        if events:
            quiet_since = now
        elif now - quiet_since >= HEARTBEAT_S:
            # Tells the client that we live, and us whether it does.
            yield b": still here\n\n"
            quiet_since = now
        else:
            news.wait(turn, HEARTBEAT_S - (now - quiet_since))


def _line(event: ActivityEvent) -> bytes:
    return b"id: %d\nevent: activity\ndata: %s\n\n" % (event.number, encode(event))


def _last_event() -> int:
    text = request.headers.get(HEADER_LAST_EVENT, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidArgument(name="Last-Event-ID", value=text[:80], hint="Send the id of the last event you have.")
    return int(text)
