"""How an image in a registry is named: `HOST[:PORT]/NAME[:TAG][@sha256:…]`. Pure.

Docker Hub's short names are written out (`python:3.11` is `docker.io/library/python:3.11`). Loopback speaks
plain http, everybody else https, unless `http://` or `https://` stands in front.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hedgerow.contracts.names import is_digest
from hedgerow.errors import UserError

_HUB = "docker.io"
# Where Docker Hub answers requests.
DOCKER_HUB = f"registry-1.{_HUB}"
# What Docker calls it where it keeps logins.
HUB_LOGIN_KEY = f"https://index.{_HUB}/v1/"
HUB_NAMES = frozenset({_HUB, f"index.{_HUB}", "registry.hub.docker.com", DOCKER_HUB})
_LOOPBACK = re.compile(r"(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d+)?")
_HOST = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LONGEST_NAME = 255


class RemoteReferenceInvalid(UserError):
    """What was written names no image in a registry."""

    key = "remote_reference_invalid"
    message = "{reference!r} names no image in a registry: {problem}"
    remedy = "Write HOST[:PORT]/NAME:TAG or HOST[:PORT]/NAME@sha256:…, for example registry.example.com/team/churn:3."


@dataclass(frozen=True)
class RemoteImage:
    """``host`` with its port as in an address. ``digest`` wins over ``tag``."""

    scheme: Literal["http", "https"]
    host: str
    repository: str
    tag: str = "latest"
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> RemoteImage:
        """Raises RemoteReferenceInvalid."""
        scheme, _, rest = text.rpartition("://")
        if scheme not in ("", "http", "https"):
            raise _invalid(text, "in front may stand http:// or https:// only")
        rest, _, digest = rest.partition("@")
        if digest and not is_digest(digest):
            raise _invalid(text, "after @ stands a digest (sha256: and 64 of 0-9 and a-f)")
        host, name = _split_host(rest)
        name, _, tag = name.partition(":")
        if not _HOST.fullmatch(host):
            raise _invalid(text, f"{host[:80]!r} is no host")
        if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
            raise _invalid(text, f"{name[:80]!r} is no repository (a-z, 0-9, and single . _ - / between them)")
        if (tag or rest.endswith(":")) and not _TAG.fullmatch(tag):
            raise _invalid(text, f"{tag[:80]!r} is no tag")
        plain = scheme == "http" or (not scheme and _LOOPBACK.fullmatch(host.lower()))
        return cls("http" if plain else "https", host.lower(), name, tag or "latest", digest or None)

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def wanted(self) -> str:
        """What a manifest is asked for by."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


def push_target(text: str) -> RemoteImage:
    """Where a push goes: its registry must be named, and an image is not sent to Docker Hub for a slip of the pen.

    Raises RemoteReferenceInvalid.
    """
    if not names_a_host(text.rpartition("://")[2]):
        raise _invalid(text, "a push names its registry; Docker Hub's is docker.io/USER/NAME:TAG")
    return RemoteImage.parse(text)


def names_a_host(text: str) -> bool:
    """Whether the first part of ``text`` can only be a host (`localhost/x`, `a.b/x`, `a:5000/x`), as Docker decides it."""
    first, slash, _ = text.partition("/")
    return bool(slash and _HOST.fullmatch(first)) and (first == "localhost" or "." in first or ":" in first)


def _split_host(text: str) -> tuple[str, str]:
    host, slash, name = text.partition("/")
    if not slash or not (host == "localhost" or "." in host or ":" in host):
        host, name = DOCKER_HUB, text
    if host.lower() in HUB_NAMES:
        return DOCKER_HUB, name if "/" in name else f"library/{name}"
    return host, name


def _invalid(text: str, problem: str) -> RemoteReferenceInvalid:
    # What stands before an @ may be somebody's password, written where it does not belong.
    shown = text if "@" not in text or "@sha256:" in text else text.rpartition("@")[2]
    return RemoteReferenceInvalid(reference=shown[:200], problem=problem)
