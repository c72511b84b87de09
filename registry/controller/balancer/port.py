"""What the services want of a balancer: a table of pools with slots, made true again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

SlotState = Literal["ready", "drain", "off"]


@dataclass(frozen=True)
class Slot:
    """A place for one replica. Slots are declared ahead of replicas, so that a replica comes and goes without a reload."""

    state: SlotState = "off"
    port: int | None = None  # on loopback; None when nothing stands there


@dataclass(frozen=True)
class Pool:
    """The replicas of one deployment. At most ``max_concurrent`` requests are inside each; others wait ``queue_wait_ms``."""

    endpoint: str
    deployment: str
    max_concurrent: int
    queue_wait_ms: int
    timeout_ms: int
    slots: tuple[Slot, ...]

    @property
    def ready(self) -> int:
        return sum(slot.state == "ready" for slot in self.slots)


@dataclass(frozen=True)
class RoutingTable:
    """All pools, and for each endpoint which percentage of its requests goes to which deployment."""

    pools: tuple[Pool, ...] = ()
    traffic: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Routed:
    """How far the table is true; ``settled`` says that it is, ``stale`` that requests may go by an older one meanwhile.

    ``urls``: where an endpoint can be scored now (None: nowhere); one that is not named keeps the URL it has. ``problem``
    says why requests are not routed (``lasting``: it will not go away by itself), ``note`` what people should know although
    they are. ``again_s``: apply again then.
    """

    urls: Mapping[str, str | None] = field(default_factory=dict)
    settled: bool = False
    stale: bool = False
    problem: str = ""
    lasting: bool = False
    note: str = ""
    again_s: float | None = None


class Balancer(Protocol):
    """Calls never block for long and never raise for reasons outside of this program: those come back as ``problem``."""

    @property
    def single_replica(self) -> str:
        """Why an endpoint can have only one replica in one deployment; "" when it can have any number."""
        ...

    def apply(self, table: RoutingTable) -> Routed:
        """Make ``table`` true, or come nearer to it; applying it again when it is true changes nothing."""
        ...

    def stop(self, grace_s: float) -> None:
        """End it, with requests inside given ``grace_s``."""
        ...


def scoring_url(base: str) -> str:
    """What is announced of a replica or endpoint at ``base``; its Open Inference Protocol lies beside it, below ``/v2/``."""
    return f"{base}/score"


def served(table: RoutingTable) -> list[str]:
    """Endpoints that have a ready replica in a deployment with traffic."""
    ready = {
        pool.endpoint for pool in table.pools if pool.ready and table.traffic.get(pool.endpoint, {}).get(pool.deployment, 0) > 0
    }
    return sorted(ready)
