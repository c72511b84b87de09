"""Lineage: what something was made from, and what was made from it."""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.contracts.lineage import Direction, Lineage, NodeKind
from hedgerow.sdk.transport import Query, Transport

_PATH = "/api/v1/lineage"


class LineageGraph:
    """``client.lineage``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def of(self, thing: str, direction: Direction = "both", *, depth: int | None = None, limit: int = 500) -> Lineage:
        """Everything within ``depth`` links (None: all) of ``thing``, at most ``limit`` things, the nearest first.

        ``thing`` is ``KIND:NAME``: ``model:iris:3``, ``model:iris@champion``, ``image:iris-image:2``, ``image@sha256:…``,
        ``run:ID``, ``data:sha256:…``, ``data:NAME``, ``commit:4f1c2a9``, ``environment:py:1``, ``deployment:ENDPOINT/NAME``,
        ``edge-deployment:NAME``, ``module:DEVICE/MODULE``, ``device:NAME``.
        """
        asked = {"of": thing, "direction": direction, "depth": depth, "limit": limit}
        return self._transport.call("GET", _PATH, Lineage, query=asked)

    def reach(self, thing: str, direction: Direction, only: Sequence[NodeKind], *, limit: int = 500) -> Lineage:
        """``thing`` and everything of the kinds ``only``, however far away, without the links between.

        ``reach("data:sha256:…", "down", ["device"])``: the devices that run something made from that data set.
        """
        asked: Query = {"of": thing, "direction": direction, "limit": limit, "only": only}
        return self._transport.call("GET", _PATH, Lineage, query=asked)
