"""Telemetry policies of a deployment in a real agent: from the desired state to what a module is answered, and over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.telemetry.tokens import Tokens
from hedgerow.contracts.edge import StreamPolicy, TelemetryPolicy
from tests.agent_builders import Workspace, desired
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.fixtures.brokers import Broker
from tests.small_hub import SmallHub

POLICY = TelemetryPolicy(
    streams={
        "probe": StreamPolicy(quota_bytes=4096, overflow="drop-newest"),
        "tiny": StreamPolicy(quota_bytes=6000, overflow="drop-newest"),
        "thin": StreamPolicy(quota_bytes=40_000, overflow="downsample"),
        "brief": StreamPolicy(time_to_live_s=1),
    }
)


@pytest.fixture
def workspace(embedded_broker: Broker) -> Workspace:
    return Workspace(broker_url=embedded_broker.url)


@pytest.fixture
def hub(workspace: Workspace, embedded_broker: Broker) -> Iterator[SmallHub]:
    with SmallHub(workspace, embedded_broker.port) as made:
        yield made


@pytest.fixture
def agent(workspace: Workspace, hub: SmallHub, tmp_path: Path) -> Iterator[AgentProcess]:
    hub.drop = 1 << 30  # it stores nothing, so everything stays in the buffer
    with AgentProcess(workspace, tmp_path / "device") as made:
        wait_for_or_show(made, lambda: made.metric("hedgerow_agent_session") == 1, 60, "the session")
        state = msgspec.structs.replace(desired({}), telemetry=POLICY)
        hub.send("desired", workspace.signed(state))
        wait_for_or_show(made, lambda: statuses(made, workspace, "probe", 1) == [507], 60, "the policy being in force")
        yield made


def statuses(agent: AgentProcess, workspace: Workspace, stream: str, count: int) -> list[int]:
    token = Tokens(workspace.device_key).of("m")
    return [agent.post("x" * 1000, token=token, stream=stream)[0] for _ in range(count)]


def test_policies_hold_also_for_the_agent_that_is_started_next(agent: AgentProcess, workspace: Workspace) -> None:
    assert statuses(agent, workspace, "tiny", 6) == [201] * 4 + [507] * 2
    assert statuses(agent, workspace, "other", 3) == [201] * 3
    agent.kill()
    agent.start()
    assert statuses(agent, workspace, "tiny", 1) == [507]


def test_what_leaves_is_counted_by_its_reason(agent: AgentProcess, workspace: Workspace) -> None:
    assert statuses(agent, workspace, "thin", 60) == [201] * 60
    assert statuses(agent, workspace, "brief", 2) == [201] * 2
    wait_for_or_show(agent, lambda: dropped(agent, "ttl_expiry") == 2, 60, "the expiry")
    assert dropped(agent, "downsampled") >= 20
    assert agent.metric("hedgerow_agent_outbox_dropped_total") == dropped(agent, "downsampled") + 2


def dropped(agent: AgentProcess, reason: str) -> float:
    lines = [line for line in agent.get("/metrics")[1].splitlines() if line.startswith("edgehub_messages_dropped_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if f'reason="{reason}"' in line)
