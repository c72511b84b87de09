"""Environments: the Python packages that a scoring script needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hedgerow.contracts.api import CreateEnvironment, Page
from hedgerow.contracts.environment import Environment
from hedgerow.sdk.addresses import address
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/environments"


class Environments:
    """``client.environments``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str,
        requirements: Sequence[str],
        *,
        python_version: str = "3.11",
        variables: Mapping[str, str] | None = None,
    ) -> Environment:
        """A new version of ``name``; ``requirements`` are lines as in requirements.txt."""
        request = CreateEnvironment(
            name=name, requirements=list(requirements), python_version=python_version, variables=dict(variables or {})
        )
        return self._transport.call("POST", _PATH, Environment, body=request)

    def get(self, reference: str) -> Environment:
        return self._transport.call("GET", address(_PATH, reference), Environment)

    def list(self, limit: int = 50, after: str | None = None) -> Page[Environment]:
        return self._transport.call("GET", _PATH, Page[Environment], query={"limit": limit, "after": after})
