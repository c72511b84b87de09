"""Long work: look at it, follow it, wait for it, cancel it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from hedgerow.contracts.api import Page
from hedgerow.contracts.work import ENDED, Activity, ActivityEvent, ActivityState
from hedgerow.sdk.addresses import address
from hedgerow.sdk.errors import ActivityFailed, ServerUnreachable
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/activities"
# The server sends a comment line every 15 s; a silence longer than this means that the connection is dead.
_SILENCE_S = 45.0


class Activities:
    """``client.activities``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, activity_id: str) -> Activity:
        return self._transport.call("GET", address(_PATH, activity_id), Activity)

    def list(
        self,
        limit: int = PAGE_ITEMS,
        after: str | None = None,
        *,
        kind: str | None = None,
        state: ActivityState | None = None,
        subject: str | None = None,
    ) -> Page[Activity]:
        """Newest first. ``kind`` is ``image.build``, ``service.deploy``, ``run``, …; ``subject`` as the activity says it."""
        query = {"limit": limit, "after": after, "kind": kind, "state": state, "subject": subject}
        return self._transport.call("GET", _PATH, Page[Activity], query=query)

    def iterate(
        self, *, kind: str | None = None, state: ActivityState | None = None, subject: str | None = None
    ) -> Iterator[Activity]:
        """Every activity that fits, newest first, read page by page."""
        return walk(lambda after: self.list(WALK_ITEMS, after, kind=kind, state=state, subject=subject))

    def cancel(self, activity_id: str) -> Activity:
        """Queued work ends at once, running work is asked to stop."""
        return self._transport.call("POST", address(_PATH, activity_id, "cancel"), Activity)

    def follow(self, activity_id: str, after: int = 0) -> Iterator[ActivityEvent]:
        """Events as they happen, until the activity has ended. A cut connection is picked up where it was."""
        attempts = 0
        while True:
            try:
                for number, data in self._transport.events(address(_PATH, activity_id, "events"), after, _SILENCE_S):
                    event = msgspec.json.decode(data, type=ActivityEvent)
                    attempts, after = 0, number
                    yield event
                    if event.state in ENDED:
                        return
            except ServerUnreachable:
                attempts += 1
                if attempts > 5:
                    raise
            if self.get(activity_id).state in ENDED and not attempts:
                return

    def wait(self, activity_id: str, on_event: Callable[[ActivityEvent], None] | None = None) -> Activity:
        """Follow to the end. Returns the succeeded activity, raises ActivityFailed otherwise."""
        for event in self.follow(activity_id):
            if on_event:
                on_event(event)
        activity = self.get(activity_id)
        if activity.state != "succeeded":
            raise ActivityFailed(activity)
        return activity
