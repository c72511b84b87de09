"""What other threads want of the supervisor: restarts, another try, and the news that the network is back."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.reconcile.situation import Running, Situation
from edge_agent.reconcile.steps import Step, Stop

# A link that comes and goes every few seconds must not take the delays of a crashing module away.
NETWORK_RESET_SPACING_S = 60.0


@dataclass(frozen=True)
class Taken:
    """What was wished since the last round: ``restart`` with the reason, ``again`` by module, ``network`` for all."""

    restart: Mapping[str, str] = field(default_factory=dict)
    again: frozenset[str] = frozenset()
    network: bool = False


class Wishes:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._restart: dict[str, str] = {}
        self._again: set[str] = set()
        self._network = False
        self._network_at_s: float | None = None

    def restart(self, module: str, reason: str) -> None:
        """Stop and start a module, or start it now when it waits."""
        with self._lock:
            self._restart[module] = reason

    def again(self, module: str) -> None:
        """Forget what went wrong with a module."""
        with self._lock:
            self._again.add(module)

    def network_back(self, now_s: float) -> None:
        """Whatever failed for want of a network may work now."""
        with self._lock:
            if self._network_at_s is None or now_s >= self._network_at_s + NETWORK_RESET_SPACING_S:
                self._network, self._network_at_s = True, now_s

    def take(self) -> Taken:
        """What was wished since the last call."""
        with self._lock:
            taken = Taken(self._restart, frozenset(self._again), self._network)
            self._restart, self._again, self._network = {}, set(), False
            return taken


def still_to_restart(situation: Situation, steps: list[Step]) -> dict[str, str]:
    """The wishes for restarts that the plan could not begin with: an action is under way, or nobody can see the module."""
    begun = {step.module for step in steps if isinstance(step, Stop)}
    return {name: reason for name, reason in situation.restart.items() if name not in begun and _has_to_wait(name, situation)}


def _has_to_wait(name: str, situation: Situation) -> bool:
    wanted = (situation.wanted or {}).get(name)
    if wanted is None:
        return False
    return wanted.spec.kind in situation.blind or name in situation.busy or isinstance(situation.seen.get(name), Running)
