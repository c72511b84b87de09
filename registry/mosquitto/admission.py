"""Who comes in and what they may do, as Mosquitto reads it: passwords, rules, and the list of revoked certificates.

What it makes of them when they change (found out with 2.0.11; docs/decisions/024-cutting-off-certificates.md): who lost their
password is thrown out; who logged in with a certificate that was revoked since comes in no more, but stays connected. So
devices that are gone are barred by name in the rules, which counts for connections that are there. That does not do where
only one certificate of a device was revoked: its name stays good, and its connections end with a new start only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from registry.identity.revocations import Revocations
from registry.mosquitto.configuration import rules
from registry.mosquitto.files import Files
from registry.mosquitto.logins import Logins
from registry.store import device_certificates
from registry.workspace import Workspace


@dataclass(frozen=True)
class Change:
    """``any``: files were written, Mosquitto has to be told. ``cut``: it has to be started anew."""

    any: bool
    cut: bool


class Admission:
    """Writes the files. ``revocations`` None: no certificates are taken, so nothing is asked about them."""

    def __init__(self, workspace: Workspace, files: Files, revocations: Revocations | None, now: Callable[[], datetime]) -> None:
        self._prefix, self._files, self._revocations, self._now = workspace.topic_prefix, files, revocations, now
        self._logins = Logins(workspace.device_master)
        self._written: dict[str, bytes] = {}
        self._revoked: list[tuple[str, datetime]] = []
        self._barred: set[str] = set()
        self._cut: set[str] | None = None

    def refresh(self, connection: Connection) -> Change:
        """Bring the files up to date with the database."""
        wanted = {"passwords": self._logins.text(connection).encode()}
        alone: set[str] = set()
        if self._revocations is not None:
            now = self._now()
            self._revoked = device_certificates.revoked(connection, now)
            # Never shorter while this Mosquitto runs: a connection may outlive the certificate that it was made with.
            self._barred |= device_certificates.barred(connection)
            alone = device_certificates.revoked_alone(connection, now)
            wanted["revoked.pem"] = self._revocations.current(self._revoked, now)
        wanted["rules"] = rules(self._prefix, self._barred).encode()
        cut = self._cut is not None and bool(alone - self._cut)
        self._cut = alone | (self._cut or set())
        return Change(self._write(wanted), cut)

    def renew(self) -> Change:
        """Without the database: a list of revoked certificates that has ended would keep out everybody."""
        if self._revocations is None:
            return Change(any=False, cut=False)
        return Change(self._write({"revoked.pem": self._revocations.current(self._revoked, self._now())}), cut=False)

    def due_in(self) -> timedelta | None:
        """Until something has to be done of which nobody tells; None: never."""
        return None if self._revocations is None else self._revocations.due_in(self._now())

    def _write(self, wanted: dict[str, bytes]) -> bool:
        fresh = {name: content for name, content in wanted.items() if self._written.get(name) != content}
        for name, content in fresh.items():
            self._files.write(name, content)
        self._written |= fresh
        return bool(fresh)
