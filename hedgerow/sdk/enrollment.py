"""Enrolment keys: with one a device becomes known by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hedgerow.contracts.api import Page
from hedgerow.contracts.enrollment import CreateEnrollmentKey, EnrollmentKey
from hedgerow.sdk.addresses import address
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/enrollment-keys"
WEEK_S = 7 * 86_400


class EnrollmentKeys:
    """``client.enrollment_keys``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str,
        *,
        device: str | None = None,
        names: str | None = None,
        tags: Mapping[str, str] | None = None,
        uses_max: int | None = 1,
        expires_in_s: int | None = WEEK_S,
    ) -> EnrollmentKey:
        """The answer's ``secret`` is the key's text and shown this once.

        ``device`` is the only name that a device may take with it, ``names`` what its name must begin with. ``uses_max`` None: a
        group's key, for any number of devices. ``expires_in_s`` None: never.

        >>> made = client.enrollment_keys.create("line-3", names="press-", tags={"site": "north"}, uses_max=20)
        >>> made.secret.startswith("hre_")
        True
        """
        body = CreateEnrollmentKey(
            name=name, device=device, names=names, tags=dict(tags or {}), uses_max=uses_max, expires_in_s=expires_in_s
        )
        return self._transport.call("POST", _PATH, EnrollmentKey, body=body)

    def get(self, key_id: str) -> EnrollmentKey:
        return self._transport.call("GET", address(_PATH, key_id), EnrollmentKey)

    def list(self, limit: int = PAGE_ITEMS, after: str | None = None) -> Page[EnrollmentKey]:
        """Newest first; ``after`` is the ``next`` of the page before."""
        return self._transport.call("GET", _PATH, Page[EnrollmentKey], query={"limit": limit, "after": after})

    def iterate(self) -> Iterator[EnrollmentKey]:
        """Every key, newest first, read page by page."""
        return walk(lambda after: self.list(WALK_ITEMS, after))

    def revoke(self, key_id: str) -> None:
        """Nothing enrols with it any more; what did stays."""
        self._transport.delete(address(_PATH, key_id))
