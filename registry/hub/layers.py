"""Layered deployments: in which order they lie on the winner, and what becomes of what several of them say. Pure.

Twins are merged as JSON merge patches (RFC 7386): objects key by key, ``null`` takes a key away, everything else replaces. One
that a layer ``replaces`` begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from hedgerow.contracts.edge import EdgeDeployment, TelemetryPolicy
from hedgerow.contracts.merge_patch import merge_patch

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def pile_up(winner: EdgeDeployment, layers: Iterable[EdgeDeployment]) -> list[EdgeDeployment]:
    """Lowest first: by priority, then layers above the winner, then by age."""
    return sorted([winner, *layers], key=lambda one: (one.priority, one.layered, one.created_at or _BEGINNING, one.name))


def merged_twins(pile: Sequence[EdgeDeployment]) -> dict[str, dict[str, object]]:
    """Desired properties by module."""
    twins: dict[str, dict[str, object]] = {}
    for deployment in pile:
        for name, patch in deployment.twins.items():
            below = {} if name in deployment.replaced_twins else twins.get(name, {})
            twins[name] = merge_patch(below, patch)
    return twins


def merged_telemetry(pile: Sequence[EdgeDeployment]) -> TelemetryPolicy:
    """Streams of all; the time to live of the uppermost that says one. A winner without one means for ever."""
    found = TelemetryPolicy()
    for deployment in pile:
        policy = deployment.telemetry
        keeps = policy.time_to_live_s is None and deployment.layered
        found = msgspec.structs.replace(
            found,
            time_to_live_s=found.time_to_live_s if keeps else policy.time_to_live_s,
            streams={**found.streams, **policy.streams},
        )
    return found
