"""Lineage: what something was made from and what was made from it, as one graph. Answer of ``GET /api/v1/lineage``."""

from __future__ import annotations

from typing import Literal

import msgspec

from hedgerow.contracts.document import Document

NodeKind = Literal["data", "commit", "run", "model", "environment", "image", "deployment", "edge-deployment", "module", "device"]
Direction = Literal["up", "down", "both"]


class LineageNode(msgspec.Struct, frozen=True, kw_only=True):
    """One thing. ``id`` is ``KIND:NAME``, for example ``model:iris:3``, ``data:sha256:…``, ``module:press-1/scorer``.

    ``facts`` are what a reader asks first: a run's metrics, a model's digest, a module's desired version.
    """

    id: str
    kind: NodeKind
    name: str
    facts: dict[str, str] = {}
    deleted: bool = False


class LineageEdge(msgspec.Struct, frozen=True, kw_only=True):
    """``source`` went into ``target``: data into a run, a run into a model, a model into an image, an image onto a device."""

    source: str
    target: str


class Lineage(Document, frozen=True, kw_only=True):
    """Everything reachable from ``root``; ``truncated`` when the limit was reached and more follows."""

    root: str
    nodes: list[LineageNode]
    edges: list[LineageEdge]
    truncated: bool = False
