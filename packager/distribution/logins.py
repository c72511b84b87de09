"""Finds who we are to a registry where `docker login` and `podman login` keep it.

Docker's `config.json` and podman's `auth.json` have one form: `auths` holds users and passwords (or identity tokens), by host
or, podman's way, by the beginning of a repository; `credHelpers` and `credsStore` name programs that keep them instead.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hedgerow.contracts.remote_image import DOCKER_HUB, HUB_LOGIN_KEY, HUB_NAMES, RemoteImage
from packager.distribution.credential_helper import CredentialHelpers
from packager.distribution.errors import LoginsUnreadable
from packager.distribution.login import IDENTITY_USER, Login

_FILE_BYTES_MAX = 1 << 20
# Old versions of Docker wrote whole addresses; what stands behind the host there is no repository.
_API_PATHS = frozenset({"v1", "v2"})


class _Entry(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _DockerConfig(msgspec.Struct, frozen=True, rename="camel"):
    auths: dict[str, _Entry] | None = None
    cred_helpers: dict[str, str] | None = None
    creds_store: str | None = None


@dataclass(frozen=True)
class LoginFile:
    """``logins`` by host (with its port, as in a reference) or `HOST/PART/OF/REPOSITORY`; ``helpers`` are names by host.

    ``store`` is the helper of all other hosts, or empty.
    """

    logins: Mapping[str, Login]
    helpers: Mapping[str, str]
    store: str = ""

    def find(self, image: RemoteImage, helpers: CredentialHelpers) -> Login | None:
        """Raises LoginHelperMissing, LoginHelperFailed."""
        asked = HUB_LOGIN_KEY if image.host == DOCKER_HUB else image.host
        if own := self.helpers.get(image.host):
            return helpers.ask(own, asked)
        place = f"{image.host}/{image.repository}"
        while place:
            if place in self.logins:
                return self.logins[place]
            place = place.rpartition("/")[0]
        return helpers.ask(self.store, asked) if self.store else None


def read_logins(path: Path) -> LoginFile:
    """Raises LoginsUnreadable."""
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
    found = ((_place(key), _login(entry, key, path)) for key, entry in (config.auths or {}).items())
    return LoginFile(
        logins={place: login for place, login in found if login is not None},
        helpers={_host(key): name for key, name in (config.cred_helpers or {}).items() if name},
        store=config.creds_store or "",
    )


def places(environment: Mapping[str, str], home: Path) -> list[Path]:
    """Where the person of this environment may have logins: what was named first, then podman's files, then Docker's."""
    named = [environment.get("REGISTRY_AUTH_FILE"), _within(environment.get("DOCKER_CONFIG"), "config.json")]
    podman = [_within(environment.get("XDG_RUNTIME_DIR"), "containers/auth.json")]
    usual = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    return [*(Path(one) for one in (*named, *podman) if one), usual, home / ".docker/config.json"]


def find_login(image: RemoteImage, files: Iterable[Path], helpers: CredentialHelpers) -> Login | None:
    """Of the first file that knows one; files that are not there are passed over.

    Raises LoginsUnreadable, LoginHelperMissing, LoginHelperFailed.
    """
    for path in files:
        found = read_logins(path).find(image, helpers) if path.is_file() else None
        if found is not None:
            return found
    return None


def _within(folder: str | None, name: str) -> str:
    return f"{folder}/{name}" if folder else ""


def _place(key: str) -> str:
    """`https://registry.example.com/v2/` is for the host, `registry.example.com/team` for what is below."""
    rest = key.partition("://")[2] if "://" in key else key
    path = rest.partition("/")[2].strip("/")
    whole = "://" in key or path in _API_PATHS
    return _host(key) if whole or not path else f"{_host(key)}/{path}"


def _host(key: str) -> str:
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0].lower()
    return DOCKER_HUB if host in HUB_NAMES else host


def _login(entry: _Entry, key: str, path: Path) -> Login | None:
    if entry.identitytoken:
        return Login(IDENTITY_USER, entry.identitytoken)
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
