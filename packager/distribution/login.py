"""Who we are to a registry. Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

# The user of whom Docker and its credential helpers say so: the password is an identity token.
IDENTITY_USER = "<token>"


@dataclass(frozen=True)
class Login:
    """Never shown: not in logs, errors or tracebacks. With the user `<token>` the password is an identity token (OAuth2)."""

    username: str
    password: str = field(repr=False)

    @property
    def is_identity(self) -> bool:
        return self.username == IDENTITY_USER

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
