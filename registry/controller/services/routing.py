"""The routing table that a situation calls for. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from hedgerow.contracts.service import Deployment, Endpoint
from registry.controller.balancer.port import Pool, RoutingTable, Slot
from registry.controller.services.situation import Replica, Situation

# Room for a second set of replicas beside the first (a rolling update) without a reload.
_LEAST_SLOTS = 4


def routes(endpoints: Iterable[Endpoint], situation: Situation) -> RoutingTable:
    """Pools in a stable order; traffic only where an endpoint has any."""
    pools = tuple(_pool(deployment, situation.replicas_of(deployment)) for deployment in situation.deployments)
    return RoutingTable(pools, {endpoint.name: dict(endpoint.traffic) for endpoint in endpoints if endpoint.traffic})


def _pool(deployment: Deployment, replicas: tuple[Replica, ...]) -> Pool:
    settings = deployment.settings
    highest = max((replica.record.slot + 1 for replica in replicas), default=0)
    slots = [Slot()] * slot_count(max(highest, 2 * settings.replicas))
    for replica in replicas:
        slots[replica.record.slot] = _slot(replica)
    return Pool(
        endpoint=deployment.endpoint,
        deployment=deployment.name,
        max_concurrent=settings.max_concurrent_requests,
        queue_wait_ms=settings.max_queue_wait_ms,
        timeout_ms=settings.scoring_timeout_ms,
        slots=tuple(slots),
    )


def slot_count(needed: int) -> int:
    """The next power of two: scaling by one seldom changes the structure."""
    count = _LEAST_SLOTS
    while count < needed:
        count *= 2
    return count


def _slot(replica: Replica) -> Slot:
    if replica.life != "ready" or replica.port is None or replica.record.phase == "stop":
        return Slot()
    return Slot("ready" if replica.record.phase == "run" else "drain", replica.port)
