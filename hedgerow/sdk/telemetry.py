"""Telemetry as the hub stored it, and what is known to be missing."""

from __future__ import annotations

from collections.abc import Iterator

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_fleet import RecordedGap, StoredTelemetry
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/telemetry"


class Telemetry:
    """``client.telemetry``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, device: str | None = None, module: str | None = None, limit: int = PAGE_ITEMS, after: str | None = None
    ) -> Page[StoredTelemetry]:
        """Oldest first after ``after`` (a page's ``next``), so that a reader can tail; the newest ``limit`` when it is None."""
        query = {"device": device, "module": module, "limit": limit, "after": after}
        return self._transport.call("GET", _PATH, Page[StoredTelemetry], query=query)

    def iterate(self, device: str | None = None, module: str | None = None) -> Iterator[StoredTelemetry]:
        """Every message there is now, oldest first, read page by page."""
        after: str | None = "0"
        # A page of telemetry always says where to go on; an empty one is the end.
        while (page := self.list(device, module, WALK_ITEMS, after)).items:
            yield from page.items
            after = page.next

    def gaps(self, device: str | None = None, limit: int = PAGE_ITEMS, after: str | None = None) -> Page[RecordedGap]:
        """Messages that will never arrive, with the reason; newest first."""
        query = {"device": device, "limit": limit, "after": after}
        return self._transport.call("GET", f"{_PATH}/gaps", Page[RecordedGap], query=query)

    def iterate_gaps(self, device: str | None = None) -> Iterator[RecordedGap]:
        """Every gap, newest first, read page by page."""
        return walk(lambda after: self.gaps(device, WALK_ITEMS, after))
