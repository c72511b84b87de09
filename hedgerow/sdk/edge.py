"""Edge deployments: what devices that match a condition should run."""

from __future__ import annotations

from hedgerow.contracts.api import Page
from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.sdk.addresses import address
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/edge-deployments"


class EdgeDeployments:
    """``client.edge``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def deploy(self, deployment: EdgeDeployment) -> EdgeDeployment:
        """Create or replace; devices get it at once, or when they are back. Image references are resolved to digests."""
        return self._transport.call("PUT", address(_PATH, deployment.name), EdgeDeployment, body=deployment)

    def get(self, name: str) -> EdgeDeployment:
        return self._transport.call("GET", address(_PATH, name), EdgeDeployment)

    def list(self, limit: int = 50, after: str | None = None) -> Page[EdgeDeployment]:
        return self._transport.call("GET", _PATH, Page[EdgeDeployment], query={"limit": limit, "after": after})

    def delete(self, name: str) -> None:
        self._transport.delete(address(_PATH, name))
