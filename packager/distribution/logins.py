"""Who we are to a registry: a user and a password, given with a request or read from a Docker `config.json`.

Of that file only `auths` counts: credential helpers are programs, and are not run.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hedgerow.contracts.remote_image import DOCKER_HUB, HUB_NAMES
from packager.distribution.errors import LoginsUnreadable

_FILE_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Login:
    """Never shown: not in logs, errors or tracebacks."""

    username: str
    password: str = field(repr=False)

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class _Entry(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""


class _DockerConfig(msgspec.Struct, frozen=True):
    auths: dict[str, _Entry] = {}


def read_logins(path: Path) -> dict[str, Login]:
    """By host (with its port, as in a reference). Raises LoginsUnreadable."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as problem:
        raise LoginsUnreadable(path=path, problem=problem.strerror) from problem
    try:
        if len(data) > _FILE_BYTES_MAX:
            raise LoginsUnreadable(path=path, problem=f"it has more than {_FILE_BYTES_MAX} bytes")
        config = msgspec.json.decode(data, type=_DockerConfig)
    except msgspec.MsgspecError:
        # Without the decoder's words, and without what caused it: both may show what stood there.
        raise LoginsUnreadable(path=path, problem="it is no JSON of the form that Docker writes") from None
    found = ((_host(key), _login(entry, key, path)) for key, entry in config.auths.items())
    return {host: login for host, login in found if login is not None}


def _host(key: str) -> str:
    """`https://registry.example.com/v2/` and the like were written by old versions of Docker, and are for its own registry."""
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0].lower()
    return DOCKER_HUB if host in HUB_NAMES else host


def _login(entry: _Entry, key: str, path: Path) -> Login | None:
    if entry.username:
        return Login(entry.username, entry.password)
    if not entry.auth:
        return None  # kept by a credential helper
    try:
        username, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise LoginsUnreadable(path=path, problem=f"what stands for {key[:80]!r} is no user and password")
    # Docker pads what it writes with zero bytes.
    return Login(username, password.rstrip("\0"))
