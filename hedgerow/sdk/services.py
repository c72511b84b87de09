"""Services: endpoints and their deployments; and scoring through them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Literal

import httpx

from hedgerow.contracts.api import DeployImage, Page, SetTraffic
from hedgerow.contracts.service import DeploymentSettings, Endpoint
from hedgerow.contracts.work import Activity
from hedgerow.errors import UnavailableError
from hedgerow.sdk.addresses import address
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/endpoints"
ServiceState = Literal["starting", "ready", "degraded", "failed"]


class NoScoringUrl(UnavailableError):
    """An endpoint without a ready deployment."""

    key = "no_scoring_url"
    message = "Endpoint {name} cannot be scored now: {reason}"
    remedy = "See `hedgerow service show {name}`; it answers once a deployment is ready."


class ScoringRefused(UnavailableError):
    """The endpoint answered with an error."""

    key = "scoring_refused"
    message = "{url} answered {status}: {text}"
    remedy = "Check the input against the model's inputs; `hedgerow service show` tells whether the replicas are well."


class Services:
    """``client.services``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def deploy(
        self, endpoint: str, image: str, *, deployment: str = "blue", settings: DeploymentSettings | None = None
    ) -> Activity:
        """Start a deployment; its activity succeeds when the replicas are ready and requests reach them."""
        request = DeployImage(image=image, settings=settings or DeploymentSettings())
        return self._transport.call("PUT", address(_PATH, endpoint, "deployments", deployment), Activity, body=request)

    def get(self, endpoint: str) -> Endpoint:
        return self._transport.call("GET", address(_PATH, endpoint), Endpoint)

    def list(
        self,
        limit: int = PAGE_ITEMS,
        after: str | None = None,
        *,
        name: str | None = None,
        state: ServiceState | None = None,
    ) -> Page[Endpoint]:
        """By name. ``name`` may end with a star; ``state``: with a deployment in that state."""
        query = {"limit": limit, "after": after, "name": name, "state": state}
        return self._transport.call("GET", _PATH, Page[Endpoint], query=query)

    def iterate(self, *, name: str | None = None, state: ServiceState | None = None) -> Iterator[Endpoint]:
        """Every endpoint that fits, read page by page."""
        return walk(lambda after: self.list(WALK_ITEMS, after, name=name, state=state))

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int]) -> Endpoint:
        """Percentages by deployment, summing to 100. Raises ApiError ``revision_conflict`` when somebody was quicker."""
        request = SetTraffic(traffic=dict(traffic), revision=self.get(endpoint).revision)
        return self._transport.call("PUT", address(_PATH, endpoint, "traffic"), Endpoint, body=request)

    def delete(self, endpoint: str) -> None:
        """Stops every replica and forgets the endpoint."""
        self._transport.delete(address(_PATH, endpoint))

    def delete_deployment(self, endpoint: str, deployment: str) -> None:
        """One that gets no traffic (``still_serving`` otherwise), or the last one: the endpoint goes with it."""
        self._transport.delete(address(_PATH, endpoint, "deployments", deployment))

    def score(self, endpoint: str, data: object) -> object:
        """POST ``data`` as JSON to the endpoint's scoring URL; returns the decoded answer."""
        found = self.get(endpoint)
        if not found.scoring_url:
            reasons = [f"{d.name} is {d.state} {d.reason}".strip() for d in found.deployments]
            raise NoScoringUrl(name=endpoint, reason="; ".join(reasons) or "it has no deployment")
        try:
            response = httpx.post(
                found.scoring_url, content=json.dumps(data), headers={"content-type": "application/json"}, timeout=60
            )
        except httpx.TransportError as problem:
            raise NoScoringUrl(name=endpoint, reason=f"nothing answers at {found.scoring_url} ({problem})") from problem
        if response.is_error:
            raise ScoringRefused(url=found.scoring_url, status=response.status_code, text=response.text[:500])
        try:
            answer: object = json.loads(response.content)
        except (ValueError, RecursionError):
            text = f"an answer that is no JSON: {response.text[:500]}"
            raise ScoringRefused(url=found.scoring_url, status=response.status_code, text=text) from None
        return answer
