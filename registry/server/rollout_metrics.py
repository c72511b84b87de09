"""Rollouts at ``/metrics``: the newest one of each edge deployment that had any, and how the devices of those under way do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from hedgerow.contracts.rollout import Rollout, RolloutState
from registry.server.context import ServerContext
from registry.store import rollouts


def collect_rollouts(here: ServerContext) -> Iterable[Metric]:
    """Asked of the database now."""
    with here.database.read() as connection:
        found = list(rollouts.newest_of_each(connection).values())
    return _of_all(found), _of_each(found), _of_devices(found)


def _of_all(found: list[Rollout]) -> Metric:
    states = GaugeMetricFamily("hedgerow_edge_rollouts", "Newest rollouts of edge deployments, by state.", labels=["state"])
    for state in get_args(RolloutState):
        states.add_metric([state], sum(one.state == state for one in found))
    return states


def _of_each(found: list[Rollout]) -> Metric:
    family = GaugeMetricFamily(
        "hedgerow_edge_rollout_state",
        "1 for the state that the newest rollout of the edge deployment is in.",
        labels=["edge_deployment", "state"],
    )
    for one in found:
        family.add_metric([one.edge_deployment, one.state], 1.0)
    return family


def _of_devices(found: list[Rollout]) -> Metric:
    family = GaugeMetricFamily(
        "hedgerow_edge_rollout_devices",
        "Devices of a rollout that is under way, by how they do.",
        labels=["edge_deployment", "state"],
    )
    for one in found:
        if one.state not in rollouts.OPEN:
            continue
        numbers = {state: sum(getattr(group, state) for group in one.groups) for state in ("released", "succeeded", "failed")}
        numbers["waiting"] = sum(group.devices for group in one.groups) - sum(numbers.values())
        for state, number in numbers.items():
            family.add_metric([one.edge_deployment, state], number)
    return family
