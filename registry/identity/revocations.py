"""The workspace's revocation list, made anew when something was revoked or when the old one nears its end.

A list says when it was issued, in whole seconds. Brokers that read several (Mosquitto keeps those it read before) go by the
newest, so each list is a second younger than the one before, and begins a while ago: clocks differ.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from registry.identity.authority import revocation_list
from registry.workspace import Workspace

# A broker takes nobody's certificate with a list that has ended, so a control plane may be away for so long.
LASTS = timedelta(days=7)
# Of its time; then there is a new one.
_RENEWED_AFTER = 0.25
_BEFORE = timedelta(hours=1)
_STEP = timedelta(seconds=1)


class Revocations:
    """One for each process. For any thread."""

    def __init__(self, workspace: Workspace, lasts: timedelta = LASTS) -> None:
        self._workspace, self._lasts = workspace, lasts
        self._lock = threading.Lock()
        self._made_of: tuple[tuple[str, datetime], ...] | None = None
        self._made_at = self._issued = datetime.min.replace(tzinfo=UTC)
        self._pem = self._der = b""

    def current(self, revoked: Sequence[tuple[str, datetime]], now: datetime) -> bytes:
        """The list (PEM) of ``revoked`` (serial, when): the same bytes until there has to be another."""
        self._refresh(tuple(revoked), now)
        return self._pem

    def current_der(self, revoked: Sequence[tuple[str, datetime]], now: datetime) -> bytes:
        """The same as RFC 5280 has it for HTTP."""
        self._refresh(tuple(revoked), now)
        return self._der

    def due_in(self, now: datetime) -> timedelta:
        """Until there has to be a new one, if nothing is revoked meanwhile; none when there was no list yet."""
        if self._made_of is None:
            return timedelta(0)
        age = now - self._made_at
        # A clock that was set back would have the list end before it is renewed.
        return timedelta(0) if age < timedelta(0) else max(timedelta(0), self._lasts * _RENEWED_AFTER - age)

    def _refresh(self, revoked: tuple[tuple[str, datetime], ...], now: datetime) -> None:
        with self._lock:
            if revoked == self._made_of and self.due_in(now) > timedelta(0):
                return
            issued = (now - _BEFORE).replace(microsecond=0)
            if self._made_of is not None:
                after = self._issued + _STEP
                # Of a clock that was set back: what claims to be of the future counts for nobody.
                issued = issued if after > now else max(issued, after)
            made = revocation_list(self._workspace, revoked, now, issued, max(now, issued) + self._lasts)
            self._pem, self._der = made.public_bytes(Encoding.PEM), made.public_bytes(Encoding.DER)
            self._made_of, self._made_at, self._issued = revoked, now, issued
