"""Endpoint and Deployment: a URL with a traffic split over deployments of images, each with replicas.

Defaults are those of Azure ML's ``deploymentconfig.json`` (reference: how-to-deploy-azure-kubernetes-service).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.image import ImageKind
from hedgerow.contracts.names import Digest, KnownName, Version

Target = Literal["process", "docker", "kubernetes"]
DeploymentState = Literal["starting", "ready", "degraded", "failed", "deleting"]
ReplicaState = Literal["starting", "ready", "backoff", "draining", "stopped"]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]


class DeploymentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a deployment's replicas are run and protected."""

    replicas: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1
    target: Target = "process"
    max_concurrent_requests: Annotated[int, msgspec.Meta(ge=1)] = 8
    max_queue_wait_ms: Annotated[int, msgspec.Meta(ge=0)] = 500
    scoring_timeout_ms: Annotated[int, msgspec.Meta(ge=1)] = 60_000
    variables: dict[str, str] = {}


class ImagePin(msgspec.Struct, frozen=True, kw_only=True):
    """An image as a deployment or a device uses it: always by digest, with the name kept for people.

    ``reference`` is set for one of somebody else's registry (``mcr.microsoft.com/team/app:1.4``): it is pulled from there, by
    ``digest`` and with the device's own login. Its ``name`` is then the last part of that, and its ``version`` 1.
    """

    name: KnownName
    version: Version
    digest: Digest
    kind: ImageKind
    reference: str | None = None


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as the controller last saw it."""

    name: str
    state: ReplicaState
    address: str | None = None
    pid: int | None = None
    restarts: int = 0
    reason: str = ""


class Deployment(Document, frozen=True, kw_only=True):
    """Image + settings under an endpoint. ``revision`` grows with every change; the controller works towards it."""

    endpoint: KnownName
    name: KnownName
    revision: int
    image: ImagePin
    settings: DeploymentSettings
    state: DeploymentState
    reason: str = ""
    replicas: list[ReplicaStatus] = []
    created_at: Instant


class Endpoint(Document, frozen=True, kw_only=True):
    """A URL with a traffic split (deployment name to percent, summing to 100 once anything is deployed)."""

    name: KnownName
    revision: int
    traffic: dict[str, Percent]
    scoring_url: str | None = None
    deployments: list[Deployment] = []
    created_at: Instant
