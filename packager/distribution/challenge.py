"""Reads `WWW-Authenticate`: what a registry wants before it answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

# A scheme, or name=value with the value as a token or in quotes (RFC 9110, 11.6.1); the comma between is optional here.
_PART = re.compile(r'\s*,?\s*(?:([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|([A-Za-z][A-Za-z0-9_-]*))')
_LONGEST = 8192


@dataclass(frozen=True)
class Challenge:
    """`scheme` in lower case; names of ``parameters`` in lower case."""

    scheme: str
    parameters: dict[str, str]


def read_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Every challenge of the headers, in their order; what cannot be read ends its header."""
    found: list[Challenge] = []
    for text in headers:
        at, text = 0, text[:_LONGEST]
        while (part := _PART.match(text, at)) and part.end() > at:
            at = part.end()
            name, quoted, token, scheme = part.groups()
            if scheme:
                found.append(Challenge(scheme.lower(), {}))
            elif found:
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
                found[-1].parameters.setdefault(name.lower(), value)
    return found


def token_address(challenge: Challenge, scopes: Sequence[str]) -> str:
    """Where a token for ``scopes`` is asked for, with the query."""
    realm = challenge.parameters.get("realm", "")
    query = [("service", challenge.parameters["service"])] if "service" in challenge.parameters else []
    query += [("scope", scope) for scope in merged(scopes, challenge.parameters.get("scope", "").split())]
    return realm + ("&" if "?" in realm else "?") + urlencode(query)


def exchange_form(challenge: Challenge, scopes: Sequence[str], identity: str) -> bytes:
    """What is sent to the realm in place of a user and a password (OAuth2: a refresh token for an access token)."""
    wanted = merged(scopes, challenge.parameters.get("scope", "").split())
    form = {"grant_type": "refresh_token", "client_id": "hedgerow", "refresh_token": identity, "scope": " ".join(wanted)}
    if "service" in challenge.parameters:
        form["service"] = challenge.parameters["service"]
    return urlencode(form).encode()


def merged(ours: Sequence[str], theirs: Iterable[str]) -> list[str]:
    """Our scopes, and theirs for what ours say nothing of: a registry may call a repository by another name."""
    known = {scope.rpartition(":")[0] for scope in ours}
    return [*ours, *(scope for scope in theirs if scope.rpartition(":")[0] not in known)]
