"""The agent's ``/metrics`` as Prometheus reads it: IoT Edge's names with right types and labels, and values that are true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.observing.metric_names import AGENT, HUB, NAMES, OURS
from edge_agent.observing.metrics import QUANTILES, Metrics, Sample, exposition
from edge_agent.state_store import StateStore, mqtt_port
from edge_agent.telemetry.tokens import Tokens
from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredModule, ModuleSpec, Route
from hedgerow.contracts.methods import MethodCall
from hedgerow.contracts.names import PAYLOAD_METHOD_CALL
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.signed import sign
from tests.agent_builders import Workspace, command, desired, shell
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.agent_registry import open_registry, tar
from tests.fixtures.brokers import Broker, MosquittoFactory
from tests.fixtures.parts import program
from tests.hub_client import HubClient
from tests.small_hub import SmallHub
from tests.waiting import wait_for

# IoT Edge's built-in metrics (its doc/BuiltInMetrics.md), with the type that the value really has. Dashboards rely on them.
IOT_EDGE = {
    "summary": """edgehub_message_size_bytes edgehub_gettwin_duration_seconds edgehub_message_send_duration_seconds
        edgehub_message_process_duration_seconds edgehub_reported_properties_update_duration_seconds
        edgehub_direct_method_duration_seconds edgehub_offline_duration_seconds edgeAgent_command_latency_seconds""",
    "counter": """edgehub_gettwin_total edgehub_messages_received_total edgehub_messages_sent_total
        edgehub_reported_properties_total edgehub_direct_methods_total edgehub_messages_dropped_total
        edgehub_messages_unack_total edgehub_offline_count_total edgehub_operation_retry_total
        edgehub_client_connect_failed_total edgehub_client_connect_success_total edgehub_client_disconnect_total
        edgeAgent_total_time_running_correctly_seconds edgeAgent_total_time_expected_running_seconds
        edgeAgent_module_start_total edgeAgent_module_stop_total edgeAgent_module_prepare_update_total
        edgeAgent_iothub_syncs_total edgeAgent_unsuccessful_iothub_syncs_total edgeAgent_deployment_time_seconds
        edgeagent_direct_method_invocations_count edgeAgent_total_network_in_bytes edgeAgent_total_network_out_bytes
        edgeAgent_total_disk_read_bytes edgeAgent_total_disk_write_bytes""",
    "gauge": """edgehub_queue_length edgehub_connected_clients edgeAgent_host_uptime_seconds edgeAgent_iotedged_uptime_seconds
        edgeAgent_available_disk_space_bytes edgeAgent_total_disk_space_bytes edgeAgent_used_memory_bytes
        edgeAgent_total_memory_bytes edgeAgent_used_cpu_percent edgeAgent_created_pids_total edgeAgent_metadata""",
}
# Seen on every device with a module that sends; the others need a twin, a method, an outage.
AFTER_A_MESSAGE = """edgehub_message_size_bytes edgehub_message_send_duration_seconds edgehub_message_process_duration_seconds
    edgeAgent_command_latency_seconds edgehub_messages_received edgehub_messages_sent edgehub_queue_length
    edgeAgent_total_time_running_correctly_seconds edgeAgent_total_time_expected_running_seconds edgeAgent_module_start
    edgeAgent_iothub_syncs edgeAgent_deployment_time_seconds edgeAgent_total_network_in_bytes
    edgeAgent_total_network_out_bytes edgeAgent_total_disk_read_bytes edgeAgent_total_disk_write_bytes
    edgeAgent_host_uptime_seconds edgeAgent_iotedged_uptime_seconds edgeAgent_available_disk_space_bytes
    edgeAgent_total_disk_space_bytes edgeAgent_used_memory_bytes edgeAgent_total_memory_bytes edgeAgent_used_cpu_percent
    edgeAgent_created_pids_total edgeAgent_metadata process_resident_memory_bytes process_cpu_seconds"""
POSTER = """
import os, time, urllib.request
for number in range(5):
    request = urllib.request.Request(os.environ["HEDGEROW_TELEMETRY_URL"], data=b'{"n": 1}', method="POST",
        headers={"authorization": "Bearer " + os.environ["HEDGEROW_TELEMETRY_TOKEN"]})
    urllib.request.urlopen(request, timeout=20).read()
time.sleep(1000)
"""


def test_iot_edges_names_have_their_right_types() -> None:
    expected = {name: kind for kind, names in IOT_EDGE.items() for name in names.split()}
    assert {name: kind for name, (kind, _) in {**AGENT, **HUB}.items()} == expected
    assert not OURS.keys() & expected.keys()
    assert all(text for _, text in NAMES.values())


def families(page: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(page)}


def test_a_page_of_odd_values_is_read_back_as_it_was() -> None:
    metrics = Metrics()
    odd = 'a "quoted"\nback\\slash'
    metrics.count("edgehub_messages_received_total", 3, id=odd)
    for value in range(1, 1001):
        metrics.observe("edgehub_message_size_bytes", value, id="m")
    page = families(exposition([*metrics.samples(), Sample("edgehub_queue_length", 7)], {"edge_device": "porch"}))
    (received,) = page["edgehub_messages_received"].samples
    assert (received.value, received.labels) == (3, {"edge_device": "porch", "id": odd})
    sizes = page["edgehub_message_size_bytes"]
    assert sizes.type == "summary"
    values = {sample.labels.get("quantile", sample.name.rpartition("_")[2]): sample.value for sample in sizes.samples}
    assert (values["count"], values["sum"]) == (1000, 500_500)
    # Quantiles are of the newest values.
    assert values["0.5"] == 901
    assert set(values) == {"count", "sum", *map(str, QUANTILES)}


def test_label_values_without_end_do_not_take_the_memory() -> None:
    metrics = Metrics()
    for number in range(20_000):
        metrics.count("edgehub_messages_received_total", id=str(number))
        metrics.observe("edgehub_message_size_bytes", 1, id=str(number))
    assert len(metrics.samples()) < 10_000
    metrics.count("edgehub_messages_received_total", id="0")
    assert next(sample.value for sample in metrics.samples() if sample.labels == {"id": "0"}) == 2


@pytest.fixture
def broker(mosquitto: MosquittoFactory) -> Iterator[Broker]:
    with mosquitto() as made:
        yield made


def test_the_page_of_a_real_agent(broker: Broker, tmp_path: Path) -> None:
    workspace = Workspace(broker_url=broker.url, uuid=os.urandom(16).hex())
    with SmallHub(workspace, broker.port) as hub, AgentProcess(workspace, tmp_path / "device") as agent:
        hub.deploy({"m": command(sys.executable, "-c", POSTER), "idle": shell("exec sleep 1000")})
        agent.wait_state("m", "running")
        wait_for(lambda: len(hub.bodies()) == 5, timeout_s=60, what="the telemetry")
        # Rates, and what the last look cannot know yet, are there with the next one.
        page = wait_for_or_show(agent, lambda: _complete(agent), 60, "a complete page")
        assert page
        text = agent.get("/metrics")[1]
        assert {name: family.type for name, family in page.items() if name in NAMES} == {
            name: NAMES[name][0] for name in page if name in NAMES
        }
        for family in page.values():
            for sample in family.samples:
                assert sample.labels["edge_device"] == "porch"
                assert sample.labels["iothub"] == "ws-1"
                assert len(sample.labels["instance_number"]) == 32
        assert _value(page, "edgehub_messages_received", id="m") == 5
        assert _value(page, "edgehub_messages_sent", to="upstream") == 5
        assert _value(page, "edgeAgent_module_start", module_name="idle") == 1
        assert _value(page, "edgeAgent_created_pids_total", module_name="idle") == 1
        assert 0 < _value(page, "edgeAgent_used_memory_bytes", module_name="idle") < 20e6
        own = _value(page, "edgeAgent_used_memory_bytes", module_name="edgeAgent")
        assert own == _value(page, "process_resident_memory_bytes") > 10e6
        assert 0 <= _value(page, "edgeAgent_used_cpu_percent", module_name="idle") <= 100
        hub.deploy({"m": command(sys.executable, "-c", POSTER)})
        wait_for(lambda: agent.pid_of("idle") is None, timeout_s=30, what="the end of a module")
        _check_with_promtool(text)


def _complete(agent: AgentProcess) -> dict[str, Metric] | None:
    page = families(agent.get("/metrics")[1])
    if set(AFTER_A_MESSAGE.split()) - page.keys() or _sum(page, "edgehub_messages_sent") < 5:
        return None
    names = {sample.labels["module_name"] for sample in page["edgeAgent_used_cpu_percent"].samples}
    return page if names >= {"m", "idle", "edgeAgent", "host"} else None


def _sum(page: dict[str, Metric], name: str) -> float:
    return sum(sample.value for sample in page[name].samples)


def _value(page: dict[str, Metric], name: str, **labels: str) -> float:
    (found,) = (sample.value for sample in page[name].samples if labels.items() <= sample.labels.items())
    return float(found)


def _check_with_promtool(text: str) -> None:
    """promtool reads it all; what it says about names is said about IoT Edge's."""
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith(("edgeAgent_", "edgeagent_"))]
    assert complaints == [], "\n".join(complaints)


def test_labels_that_a_module_invents_leave_room_for_other_counters() -> None:
    metrics = Metrics()
    for number in range(6000):
        metrics.count("edgehub_messages_sent_total", from_route_output=str(number))
    metrics.count("hedgerow_agent_intake_refused_total", key="message_too_large")
    counted = [sample.name for sample in metrics.samples()]
    assert counted.count("hedgerow_agent_intake_refused_total") == 1
    assert len(counted) < 6000


class _Everything:
    """A device on which everything happens that IoT Edge has a metric for."""

    def __init__(self, workspace: Workspace, hub: SmallHub, agent: AgentProcess) -> None:
        self.workspace, self.hub, self.agent = workspace, hub, agent
        self.token = Tokens(workspace.device_key).of("m")

    def deploy(self, **images: ImagePin) -> None:
        modules = {"m": shell("exec sleep 1000")}
        modules |= {
            name: DesiredModule(spec=ModuleSpec(image="shuttle:1", restart_policy="never"), image=image)
            for name, image in images.items()
        }
        routes = {
            "up": Route(route="FROM /messages/modules/m/outputs/up INTO $upstream"),
            "twins": Route(route="FROM /twinChangeNotifications INTO $upstream"),
        }
        self._send(modules, routes)

    def withdraw(self) -> None:
        self._send({}, {})

    def _send(self, modules: dict[str, DesiredModule], routes: dict[str, Route]) -> None:
        self.hub.version += 1
        state = desired(modules, version=self.hub.version, incarnation=self.hub.model.incarnation, uuid=self.workspace.uuid)
        self.hub.send("desired", self.workspace.signed(msgspec.structs.replace(state, routes=routes)))

    def talk(self) -> None:
        """A client with its twin, messages for the hub and for nobody, a method; and one that is not let in."""
        port = mqtt_port(StateStore(self.agent.state))
        with HubClient(port, "m", self.token) as client:
            client.mqtt.on_message = lambda _c, _d, message: self._answer(client, message)
            client.subscribe("twin/desired", "methods/#")
            client.say("twin/reported", '{"rate": 5}')
            client.say("outputs/up", "1")
            client.say("outputs/nowhere", "2")
            self.call(None, "ping")
            self.call("m", "echo")
            wait_for(
                lambda: self.agent.metric("edgehub_direct_method_duration_seconds_count") > 0, timeout_s=60, what="the answer"
            )
        stranger = HubClient(port, "m", "wrong")
        stranger.start()
        wait_for(lambda: self.agent.metric("edgehub_client_connect_failed_total") > 0, timeout_s=60, what="the refusal")
        stranger.mqtt.loop_stop()

    def call(self, module: str | None, name: str) -> None:
        session = wait_for(lambda: self.hub.model.session, timeout_s=60, what="a session")
        made = MethodCall(
            device_uuid=self.workspace.uuid,
            incarnation=self.hub.model.incarnation,
            session=str(session),
            id=f"call-{name}",
            module=module,
            name=name,
            expires_at=datetime.now(UTC) + timedelta(minutes=5),
        )
        self.hub.send("methods", sign(PAYLOAD_METHOD_CALL, encode(made), {"k1": self.workspace.key.sign}))

    def fill(self) -> None:
        """Until the buffer is full: the hub says nothing, so that the agent sends again."""
        self.hub.mute = True
        refused = wait_for(lambda: self._post() == 507, timeout_s=120, what="a full buffer")
        assert refused
        wait_for(lambda: self.agent.metric("edgehub_operation_retry_total") > 0, timeout_s=60, what="another try")
        self.hub.mute = False

    def _post(self) -> int:
        return self.agent.post({"x": "y" * 8000}, token=self.token, stream="telemetry&output=up")[0]

    @staticmethod
    def _answer(client: HubClient, message: Any) -> None:
        levels = message.topic.split("/")
        if levels[0] == "methods":
            client.publish(f"methods/answers/{levels[-1]}/200", "{}")


def test_every_name_of_iot_edge_is_there_once_everything_has_happened(broker: Broker, tmp_path: Path) -> None:
    with open_registry() as registry:
        workspace = Workspace(broker_url=broker.url, uuid=os.urandom(16).hex(), registry_url=registry.url)
        options = ("--quota-bytes", "150000", "--overflow", "drop-newest")
        with SmallHub(workspace, broker.port) as hub, AgentProcess(workspace, tmp_path / "device", *options) as agent:
            device = _Everything(workspace, hub, agent)
            device.deploy()
            wait_for_or_show(agent, lambda: agent.metric("edgeAgent_deployment_time_seconds") > 0, 60, "an applied state")
            device.deploy(scorer=registry.image(tar(("model.onnx", b"x"))))
            device.talk()
            wait_for(lambda: len(hub.bodies()) == 2, timeout_s=60, what="a message and a change of a twin")
            assert {"version": 1, "properties": {"reported": {"rate": 5, "$version": 1}}} in map(json.loads, hub.bodies())
            hub.send("desired", b"no desired state")
            device.fill()
            broker.stop()
            wait_for_or_show(agent, lambda: agent.metric("edgehub_offline_count_total") > 0, 60, "the loss of the session")
            broker.start()
            wait_for_or_show(agent, lambda: agent.metric("edgehub_offline_duration_seconds_count") > 0, 60, "another session")
            # Rates, and what the last look cannot know yet, are there with the next one.
            wait_for_or_show(agent, lambda: not _names_missing(agent), 60, "every name")
            page = families(agent.get("/metrics")[1])
            assert _value(page, "edgehub_messages_unack", reason="storage_failure") >= 1
            assert _value(page, "edgehub_messages_dropped", reason="no_route") == 1
            device.withdraw()
            wait_for_or_show(agent, lambda: agent.metric("edgeAgent_module_stop_total") >= 1, 60, "the end of a module")


def _names_missing(agent: AgentProcess) -> set[str]:
    """Of IoT Edge's, but for the end of a module, which comes last."""
    page = families(agent.get("/metrics")[1])
    wanted = {name for names in IOT_EDGE.values() for name in names.split()} - {"edgeAgent_module_stop_total"}
    return {name for name in wanted if not (page.get(name) or page.get(name.removesuffix("_total")))}
