"""What a desired state means for telemetry: its routes and its policy, put in force in one place."""

from __future__ import annotations

from edge_agent.decisions import DecisionLog
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.router import router_of
from hedgerow.contracts.edge import DesiredState


def put_in_force(state: DesiredState, device: str, reception: Reception, outbox: Outbox, decisions: DecisionLog) -> None:
    """From the next message on, telemetry follows ``state``. A route that cannot be used is told and costs no message."""
    router = router_of(state, device)
    outbox.take_policy(state.telemetry, router.priorities)
    reception.use(router)
    for name, problem in router.problems.items():
        decisions.record(None, "refuse-route", f"route {name}: {problem}")
