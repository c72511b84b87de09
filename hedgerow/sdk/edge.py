"""Edge deployments: what devices that match a condition should run."""

from __future__ import annotations

from collections.abc import Iterator

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_fleet import EdgePlan
from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.sdk.addresses import address
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/edge-deployments"
_DRY_RUN = {"dry_run": True}


class EdgeDeployments:
    """``client.edge``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def deploy(self, deployment: EdgeDeployment) -> EdgeDeployment:
        """Create or replace; devices get it at once, or when they are back. Image references are resolved to digests."""
        return self._transport.call("PUT", address(_PATH, deployment.name), EdgeDeployment, body=deployment)

    def plan(self, deployment: EdgeDeployment) -> EdgePlan:
        """What :meth:`deploy` would change, device by device; nothing is changed."""
        return self._transport.call("PUT", address(_PATH, deployment.name), EdgePlan, body=deployment, query=_DRY_RUN)

    def plan_steps(self, deployment: EdgeDeployment, device: str | None = None) -> EdgePlan:
        """Like :meth:`plan`, with the steps that each device (or only ``device``) would take, in their order."""
        query = {**_DRY_RUN, "steps": True, "device": device}
        return self._transport.call("PUT", address(_PATH, deployment.name), EdgePlan, body=deployment, query=query)

    def get(self, name: str) -> EdgeDeployment:
        return self._transport.call("GET", address(_PATH, name), EdgeDeployment)

    def list(self, limit: int = PAGE_ITEMS, after: str | None = None, *, name: str | None = None) -> Page[EdgeDeployment]:
        """By name; ``name`` may end with a star."""
        query = {"limit": limit, "after": after, "name": name}
        return self._transport.call("GET", _PATH, Page[EdgeDeployment], query=query)

    def iterate(self, *, name: str | None = None) -> Iterator[EdgeDeployment]:
        """Every edge deployment that fits, read page by page."""
        return walk(lambda after: self.list(WALK_ITEMS, after, name=name))

    def delete(self, name: str) -> None:
        """Its devices get the next deployment that matches them, or none."""
        self._transport.delete(address(_PATH, name))

    def plan_delete(self, name: str) -> EdgePlan:
        """What :meth:`delete` would change, device by device; nothing is changed."""
        return self._transport.call("DELETE", address(_PATH, name), EdgePlan, query=_DRY_RUN)
