"""Telemetry as the hub stored it, and what is known to be missing."""

from __future__ import annotations

from hedgerow.contracts.api import Page, RecordedGap, StoredTelemetry
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/telemetry"


class Telemetry:
    """``client.telemetry``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, device: str | None = None, module: str | None = None, limit: int = 100, after: str | None = None
    ) -> Page[StoredTelemetry]:
        """Oldest first after ``after`` (a page's ``next``), so that a reader can tail."""
        query = {"device": device, "module": module, "limit": limit, "after": after}
        return self._transport.call("GET", _PATH, Page[StoredTelemetry], query=query)

    def gaps(self, device: str | None = None, limit: int = 100, after: str | None = None) -> Page[RecordedGap]:
        """Messages that will never arrive, with the reason."""
        query = {"device": device, "limit": limit, "after": after}
        return self._transport.call("GET", f"{_PATH}/gaps", Page[RecordedGap], query=query)
