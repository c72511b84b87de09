"""``/api/v1/activities``: long work, followed over server-sent events that a client can resume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from hedgerow.contracts.api import Page
from hedgerow.contracts.document import encode
from hedgerow.contracts.names import HEADER_LAST_EVENT
from hedgerow.contracts.work import ENDED, Activity, ActivityEvent, ActivityState
from registry.server import arguments
from registry.server.context import ServerContext
from registry.server.errors import InvalidArgument, TooManyStreams
from registry.server.followers import Followers, followers
from registry.server.http import answer, caller, context, page_arguments, tell, write_once
from registry.server.operation import PAGE, QueryField, operation
from registry.server.revisions import answer_seen
from registry.server.threads import budget
from registry.store import activities, tokens

HEARTBEAT_S = 15.0
_FILTERS = (
    QueryField("kind", "activities of this kind (`image.build`, `service.deploy`, `run`, ...)"),
    QueryField("state", "activities in this state", choices=get_args(ActivityState)),
    QueryField("subject", "activities about this, as their `subject` says it"),
)


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("activities", __name__, url_prefix="/api/v1/activities")
    blueprint.get("")(list_activities)
    blueprint.get("/<activity_id>")(show_activity)
    blueprint.get("/<activity_id>/events")(follow_activity)
    blueprint.post("/<activity_id>/cancel")(cancel_activity)
    return blueprint


@operation("List activities", "reader", scope="activities", result=Page[Activity], query=(*PAGE, *_FILTERS))
def list_activities() -> Response:
    """Newest first."""
    limit, after = page_arguments()
    wanted = {name: arguments.text(name) for name in ("kind", "state", "subject")}
    with context().database.read() as connection:
        found = activities.newest(connection, limit + 1, after, **wanted)
    following = found[limit - 1].id if len(found) > limit else None
    return answer(Page(items=found[:limit], next=following))


@operation("Show an activity", "reader", scope="activities", result=Activity)
def show_activity(activity_id: str) -> Response:
    """How far it is; once it ended, what it made or why it failed."""
    with context().database.read() as connection:
        return answer_seen(activities.get(connection, activity_id))


@operation("Cancel an activity", "contributor", scope="activities", result=Activity)
def cancel_activity(activity_id: str) -> Response:
    """Queued work ends at once, running work is asked to stop, and ended work stays as it is."""
    here = context()

    def cancel(connection: Connection) -> Response:
        before = activities.get(connection, activity_id)
        activity = activities.cancel(connection, activity_id, here.clock.now())
        if before.state not in ENDED:
            tell(connection, "activity.cancelled", f"activity/{activity_id}", work=activity.kind, of=activity.subject)
        return answer(activity)

    answered = write_once(cancel)
    here.wakeups.wake("controller")
    here.wakeups.wake("server")
    return answered


@operation("Follow an activity", "reader", scope="activities", result="text/event-stream", errors=(TooManyStreams,))
def follow_activity(activity_id: str) -> Response:
    """ActivityEvents after `Last-Event-ID` (0 when absent) as they happen; the stream ends with the activity."""
    here = context()
    seen = _last_event()
    with here.database.read() as connection:
        activities.get(connection, activity_id)  # an unknown id is a 404, not an empty stream
    response = Response(mimetype="text/event-stream")
    response.call_on_close(budget().take_stream())
    response.response = _stream(here, followers(), caller().token_id, activity_id, seen)
    # Proxies that buffer would hold the events back.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _stream(here: ServerContext, news: Followers, token_id: str, activity_id: str, seen: int) -> Iterator[bytes]:
    yield b": following\n\n"
    quiet_since = here.clock.monotonic_s()
    while not news.closed:
        turn = news.turn
        with here.database.read() as connection:
            # It may last for hours: it ends with the token that asked for it.
            if not tokens.is_good(connection, token_id, here.clock.now()):
                return
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
