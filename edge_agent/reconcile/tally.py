"""Counts what the supervisor does, under IoT Edge's names: starts and stops, how long they took, availability, deployments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile.hands import Outcome
from edge_agent.reconcile.situation import Wanted
from edge_agent.reconcile.steps import Pull, Start, Step, Stop
from hedgerow.contracts.status import DesiredOutcome, ModuleStatus

_APPLIED = 200


class Tally:
    """Used by the supervisor's thread, but for ``accepted`` and ``refused``, which are of the link's. Times are monotonic."""

    def __init__(self, metrics: Metrics, now_s: float) -> None:
        self._metrics = metrics
        self._looked_at_s = now_s
        self._ran: frozenset[str] = frozenset()
        self._deploying: tuple[int, float] | None = None

    def accepted(self, version: int, now_s: float, *, changed: bool) -> None:
        """A desired state came and is in force."""
        self._metrics.count("edgeAgent_iothub_syncs_total")
        if changed:
            self._deploying = (version, now_s)

    def refused(self, key: str) -> None:
        """A desired state came and was refused."""
        self._metrics.count("edgeAgent_unsuccessful_iothub_syncs_total")
        self._metrics.count("hedgerow_agent_desired_refused_total", key=key)

    def ended(self, outcome: Outcome) -> None:
        """An action has ended, well or not."""
        kind = type(outcome.step).__name__.lower()
        self._metrics.observe("edgeAgent_command_latency_seconds", outcome.took_s, command=kind)
        if outcome.problem is None and isinstance(outcome.step, Start | Stop):
            self._metrics.count(f"edgeAgent_module_{kind}_total", module_name=outcome.step.module)

    def began(self, steps: Iterable[Step]) -> None:
        """Steps are about to be carried out."""
        for step in steps:
            if isinstance(step, Pull) and step.fetch:
                self._metrics.count("edgeAgent_module_prepare_update_total", module_name=step.module)

    def looked(self, modules: Mapping[str, ModuleStatus], wanted: Mapping[str, Wanted], now_s: float) -> None:
        """Availability as IoT Edge counts it: time expected to run, and time of it that it ran."""
        elapsed_s, self._looked_at_s = now_s - self._looked_at_s, now_s
        for name, module in wanted.items():
            if module.spec.status == "running":
                self._metrics.count("edgeAgent_total_time_expected_running_seconds", elapsed_s, module_name=name)
                ran_s = elapsed_s if name in self._ran else 0.0
                self._metrics.count("edgeAgent_total_time_running_correctly_seconds", ran_s, module_name=name)
        self._ran = frozenset(name for name, status in modules.items() if status.state == "running")

    def outcome(self, outcome: DesiredOutcome, now_s: float) -> None:
        """How the desired state in force stands now; the time that applying it took counts once."""
        deploying = self._deploying
        if deploying is not None and outcome.code == _APPLIED and outcome.version >= deploying[0]:
            self._deploying = None
            self._metrics.count("edgeAgent_deployment_time_seconds", now_s - deploying[1])
