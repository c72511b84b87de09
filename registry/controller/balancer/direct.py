"""No balancer on this machine: an endpoint's URL is its one replica's own address (docs/decisions/002)."""

from __future__ import annotations

from registry.controller.balancer.port import Routed, RoutingTable, scoring_url

MISSING = "no balancer: haproxy is not installed (apt install haproxy)"


class NoBalancer:
    """Routes nothing, and says so."""

    @property
    def single_replica(self) -> str:
        return MISSING

    def apply(self, table: RoutingTable) -> Routed:
        urls: dict[str, str | None] = {pool.endpoint: None for pool in table.pools}
        for pool in table.pools:
            ports = [slot.port for slot in pool.slots if slot.state == "ready"]
            if ports and table.traffic.get(pool.endpoint, {}).get(pool.deployment, 0) > 0:
                urls[pool.endpoint] = scoring_url(f"http://127.0.0.1:{ports[0]}")
        return Routed(urls, settled=True, note=MISSING)

    def stop(self, grace_s: float) -> None:
        """Nothing runs."""
