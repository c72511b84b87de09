"""Registry tokens: what `docker`, `podman` and `containerd` get at ``/v2/token`` for their credential, and send from then on.

Form: ``hrb_PAYLOAD.MAC``. Nothing is stored about one: the payload names the token that it was made from, and that one must
still be good, so revoking it, its role and its scopes hold at once. What is added are the grants: the repositories and
actions that were asked for, beyond which this token opens nothing. The MAC's key is derived from a key of the workspace that
never leaves it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

import msgspec
from flask import Request, request

from hedgerow.errors import HedgerowError
from registry.errors import TokenRefused
from registry.server.context import Caller
from registry.server.errors import GrantMissing
from registry.workspace import Workspace

PREFIX = "hrb_"
LASTS_S = 900
TOKEN_PATH = "/v2/token"  # noqa: S105 - an address, not a secret
PULL, PUSH = "pull", "push"
CATALOG = ("registry:catalog", "*")
_READS = frozenset({"GET", "HEAD"})
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


class Payload(msgspec.Struct, frozen=True):
    """What a registry token says. ``expires`` in seconds since 1970; ``grants`` are (repository, action)."""

    token_id: str
    expires: int
    grants: list[tuple[str, str]]


@dataclass(frozen=True)
class Asked:
    """One scope of the token flow: ``repository:NAME:pull,push`` or ``registry:catalog:*``."""

    repository: str
    actions: tuple[str, ...]


def is_one(text: str) -> bool:
    """Whether ``text`` looks like a registry token."""
    return text.startswith(PREFIX)


def issue(workspace: Workspace, token_id: str, expires: datetime, grants: Iterable[tuple[str, str]]) -> str:
    """A registry token made from the token ``token_id``."""
    payload = msgspec.json.encode(Payload(token_id, int(expires.timestamp()), sorted(set(grants))))
    return f"{PREFIX}{_text(payload)}.{_text(_mac(workspace, payload))}"


def read(workspace: Workspace, text: str, now: datetime) -> Payload:
    """Raises TokenRefused for what was not issued here, and for what has expired."""
    payload, _, mac = text.removeprefix(PREFIX).partition(".")
    try:
        data, found = base64.urlsafe_b64decode(payload + "=="), base64.urlsafe_b64decode(mac + "==")
    except (binascii.Error, ValueError):
        raise TokenRefused(problem="it is not one of this workspace's") from None
    if not hmac.compare_digest(found, _mac(workspace, data)):
        raise TokenRefused(problem="it is not one of this workspace's")
    says = msgspec.json.decode(data, type=Payload)
    if datetime.fromtimestamp(says.expires, UTC) <= now:
        raise TokenRefused(problem="it is a registry token that has expired; ask for a new one")
    return says


def parse(scopes: Iterable[str]) -> list[Asked]:
    """The scopes of a request for a token; what nobody here grants is left out, as the protocol wants it."""
    found = []
    for text in (one for several in scopes for one in several.split()):
        kind, _, rest = text.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind == "repository" and name:
            found.append(Asked(name, tuple(action for action in actions.split(",") if action in (PULL, PUSH))))
        elif text == ":".join(CATALOG):
            found.append(Asked(CATALOG[0], (CATALOG[1],)))
    return found


def check_route(who: Caller, asked: Request) -> None:
    """A registry token reaches only what it grants. Raises GrantMissing (401, upon which tools ask for another token)."""
    if who.grants is None or asked.path == "/v2/":
        return
    wanted = _wanted(asked)
    if wanted is None or wanted not in who.grants:
        name, action = wanted or (asked.path[:80], "reach")
        raise GrantMissing(name=name, action=action)


def may_pull(who: Caller, repository: str) -> bool:
    """For a second repository in one request (a mount)."""
    return who.grants is None or (repository, PULL) in who.grants


def challenge(error: HedgerowError) -> str:
    """The WWW-Authenticate of a 401 below ``/v2/``: where to get a token, and for what."""
    if request.path == TOKEN_PATH:
        return 'Basic realm="hedgerow"'
    parts = [f'realm="{request.host_url.rstrip("/")}{TOKEN_PATH}"', f'service="{request.host}"']
    if (wanted := _wanted(request)) is not None:
        name, action = wanted
        actions = f"{PULL},{PUSH}" if action == PUSH else action
        asked = f"{name}:{actions}" if wanted == CATALOG else f"repository:{name}:{actions}"
        parts.append(f'scope="{asked}{_of_source(action)}"')
    if isinstance(error, GrantMissing):
        parts.append('error="insufficient_scope"')
    return f"Bearer {','.join(parts)}"


def _of_source(action: str) -> str:
    """A second scope, for what is to be mounted from next door: with the first alone it would have to be uploaded."""
    source = request.args.get("from", "")
    return f" repository:{source}:{PULL}" if action == PUSH and "mount" in request.args and _is_name(source) else ""


def _wanted(asked: Request) -> tuple[str, str] | None:
    """(repository, action) of a request below ``/v2/``; None when its address names no repository."""
    rule, name = asked.url_rule.rule if asked.url_rule else "", (asked.view_args or {}).get("name", "")
    if rule == "/v2/_catalog":
        return CATALOG
    if not _is_name(name):
        return None
    repository = f"models/{name}" if rule.startswith("/v2/models/<name>") else name
    return repository, PULL if asked.method in _READS else PUSH


def _is_name(name: str) -> bool:
    """It goes into a header between quotes."""
    return bool(name) and _NAME_CHARACTERS.issuperset(name)


def _mac(workspace: Workspace, payload: bytes) -> bytes:
    key = hmac.digest(workspace.device_master, b"hedgerow-registry-token-v1", sha256)
    return hmac.digest(key, payload, sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
