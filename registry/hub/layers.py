"""Layered deployments: in which order they lie on the winner, and what becomes of what several of them say. Pure.

Twins are merged as JSON merge patches (RFC 7386): objects key by key, ``null`` takes a key away, everything else replaces. One
that a layer ``replaces`` begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from hedgerow.contracts.edge import EdgeDeployment, TelemetryPolicy

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


def merge_patch(below: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """``below`` with ``patch`` applied; neither is changed."""
    found = dict(below)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            under = found.get(key)
            found[key] = merge_patch(under if isinstance(under, dict) else {}, value)
        else:
            found[key] = value
    return found


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
