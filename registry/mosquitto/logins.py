"""Who may log in: the hub, and every device that is enrolled and not revoked; as the text of the password file."""

from __future__ import annotations

import secrets

from sqlalchemy import Connection

from hedgerow.contracts.broker_login import device_login, hub_login
from hedgerow.contracts.seal import device_key
from registry.mosquitto.passwords import line
from registry.store import fleet


class Logins:
    """Keeps the lines it made: hashing is what takes time, and a fleet changes by one device at a time."""

    def __init__(self, device_master: bytes) -> None:
        self._master = device_master
        self._hub = line(hub_login(device_master), secrets.token_bytes)
        self._lines: dict[tuple[str, int], str] = {}

    def text(self, connection: Connection) -> str:
        """The file as it should be now."""
        current = {(uuid, generation) for uuid, generation in fleet.key_generations(connection)}
        self._lines = {who: kept for who, kept in self._lines.items() if who in current}
        for uuid, generation in sorted(current - self._lines.keys()):
            login = device_login(uuid, device_key(self._master, uuid, generation))
            self._lines[uuid, generation] = line(login, secrets.token_bytes)
        return "\n".join([self._hub, *(self._lines[who] for who in sorted(self._lines))]) + "\n"
