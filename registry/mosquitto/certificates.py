"""The broker's certificate: the operator's files, or one of the workspace's authority that is made anew in good time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from registry.identity.authority import SERVER_DAYS, Issued
from registry.mosquitto.errors import CertificateUnusable

# Of its year; a control plane that is off for longer makes a new one when it starts.
RENEW_AFTER = timedelta(days=SERVER_DAYS - 60)


class Certificates:
    """Either ``files`` (certificate and key, read again when they change) or ``issue``; ``now`` is the wall clock."""

    def __init__(self, files: tuple[Path, Path] | None, issue: Callable[[datetime], Issued], now: Callable[[], datetime]) -> None:
        self._files, self._issue, self._now = files, issue, now
        self._given: tuple[float, datetime] | None = None

    def current(self) -> Issued:
        """What is to be served from now on. Raises CertificateUnusable."""
        now = self._now()
        changed_at = self._changed_at()
        self._given = (changed_at, now)
        return self._issue(now) if self._files is None else Issued(_read(self._files[0]), _read(self._files[1]))

    def due(self) -> bool:
        """Whether there is a newer one than was given last."""
        if self._given is None:
            return True
        changed_at, at = self._given
        if self._files is not None:
            return self._changed_at() not in (changed_at, 0.0)
        return self._now() >= at + RENEW_AFTER

    def _changed_at(self) -> float:
        """0.0 where they cannot be seen now: then the old ones stay."""
        try:
            return max(path.stat().st_mtime for path in self._files or ())
        except (OSError, ValueError):
            return 0.0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise CertificateUnusable(path=path, problem=problem.strerror) from None
