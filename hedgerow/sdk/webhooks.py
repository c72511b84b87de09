"""Webhooks: have events sent to other programs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from hedgerow.clock import SystemClock
from hedgerow.contracts.api import Page
from hedgerow.contracts.events import (
    ChangeWebhook,
    CreateWebhook,
    Delivery,
    DeliveryState,
    Redeliver,
    Redelivered,
    Webhook,
)
from hedgerow.contracts.webhook_signature import TOLERANCE_S, is_genuine
from hedgerow.sdk.addresses import address
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/webhooks"
_LOOK_S = 0.2


class Webhooks:
    """``client.webhooks`` (owners only)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, url: str, kinds: Sequence[str] = ()) -> Webhook:
        """Send every event from here on (or those of ``kinds``: ``model.registered``, ``model.*``) to ``url``.

        The answer's ``secret`` signs every delivery and is shown this once.
        """
        body = CreateWebhook(name=name, url=url, kinds=list(kinds))
        return self._transport.call("POST", _PATH, Webhook, body=body)

    def get(self, name: str) -> Webhook:
        return self._transport.call("GET", address(_PATH, name), Webhook)

    def list(self, limit: int = PAGE_ITEMS, after: str | None = None) -> Page[Webhook]:
        """By name."""
        return self._transport.call("GET", _PATH, Page[Webhook], query={"limit": limit, "after": after})

    def iterate(self) -> Iterator[Webhook]:
        """Every webhook by name, read page by page."""
        return walk(lambda after: self.list(WALK_ITEMS, after))

    def change(self, name: str, *, url: str | None = None, kinds: Sequence[str] | None = None) -> Webhook:
        """What waits goes to the new URL; new kinds count for events that come."""
        body = ChangeWebhook(url=url, kinds=None if kinds is None else [*kinds])
        return self._transport.call("PATCH", address(_PATH, name), Webhook, body=body)

    def pause(self, name: str) -> Webhook:
        """Nothing is sent until :meth:`resume`; events wait meanwhile."""
        return self._transport.call("PATCH", address(_PATH, name), Webhook, body=ChangeWebhook(state="paused"))

    def resume(self, name: str) -> Webhook:
        return self._transport.call("PATCH", address(_PATH, name), Webhook, body=ChangeWebhook(state="active"))

    def rotate_secret(self, name: str) -> Webhook:
        """The answer's ``secret`` signs whatever is sent from now on."""
        return self._transport.call("POST", address(_PATH, name, "rotate-secret"), Webhook)

    def delete(self, name: str) -> None:
        """With everything that it still had to be sent."""
        self._transport.delete(address(_PATH, name))

    def deliveries(
        self, name: str, *, state: DeliveryState | None = None, limit: int = PAGE_ITEMS, after: str | None = None
    ) -> Page[Delivery]:
        """Newest first: what was sent, what waits, what was given up."""
        query = {"state": state, "limit": limit, "after": after}
        return self._transport.call("GET", address(_PATH, name, "deliveries"), Page[Delivery], query=query)

    def iterate_deliveries(self, name: str, *, state: DeliveryState | None = None) -> Iterator[Delivery]:
        """Every delivery that fits, newest first, read page by page."""
        return walk(lambda after: self.deliveries(name, state=state, limit=WALK_ITEMS, after=after))

    def delivery(self, name: str, event_number: int) -> Delivery:
        return self._transport.call("GET", address(_PATH, name, "deliveries", str(event_number)), Delivery)

    def redeliver(self, name: str, event_number: int | None = None) -> int:
        """Send that event again, or (None) all whose delivery was given up. How many."""
        body = Redeliver(event_number=event_number)
        return self._transport.call("POST", address(_PATH, name, "redeliver"), Redelivered, body=body).count

    def test(self, name: str, wait_s: float = 20.0) -> Delivery:
        """Send a ping now, and wait up to ``wait_s`` seconds for what becomes of it."""
        sent = self._transport.call("POST", address(_PATH, name, "test"), Delivery)
        clock, pause = SystemClock(), threading.Event()
        give_up_s = clock.monotonic_s() + wait_s
        while sent.state == "waiting" and clock.monotonic_s() < give_up_s:
            pause.wait(_LOOK_S)
            sent = self.delivery(name, sent.event_number)
        return sent


def verify(secret: str, signature: str, body: bytes, *, tolerance_s: float = TOLERANCE_S) -> bool:
    """For receivers: whether ``body`` (the exact bytes) came with a good ``Hedgerow-Signature`` header, not long ago."""
    return is_genuine(secret, signature, body, SystemClock().now(), tolerance_s)
