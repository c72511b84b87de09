"""Modules that speak MQTT under a real agent: their messages in the hub's database, inputs between them, their twins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec, Route
from registry.store.tables import messages
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.edge_place import DeviceFile
from tests.hub_parts import HubPlace, hub_place

_CONNECT = """
import json, os, threading, urllib.parse
import paho.mqtt.client as mqtt
address = urllib.parse.urlsplit(os.environ["HEDGEROW_MQTT_URL"])
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="c", protocol=mqtt.MQTTv5)
client.username_pw_set(os.environ["HEDGEROW_MODULE"], os.environ["HEDGEROW_TELEMETRY_TOKEN"])
"""
# Publishes the numbers to 20, then waits.
COUNTER = f"""{_CONNECT}
client.connect(address.hostname, address.port)
client.loop_start()
for number in range(20):
    client.publish("outputs/rows", json.dumps({{"n": number}}), qos=1).wait_for_publish()
threading.Event().wait()
"""
# Multiplies what it gets by the factor of its twin and sends it on.
SCALER = f"""{_CONNECT}
factor, waiting = [], []
def arrived(_client, _data, message):
    if message.topic == "twin/desired":
        factor[:] = [json.loads(message.payload)["factor"]]
    else:
        waiting.append(json.loads(message.payload)["n"])
    while factor and waiting:
        client.publish("outputs/scaled", json.dumps({{"scaled": waiting.pop(0) * factor[0]}}), qos=1)
client.on_message = arrived
client.on_connect = lambda *_: client.subscribe([("inputs/#", 1), ("twin/desired", 1)])
client.connect(address.hostname, address.port)
client.loop_forever()
"""
ROUTES = {
    "rows": Route(route='FROM /messages/modules/counter/outputs/rows INTO BrokeredEndpoint("/modules/scaler/inputs/rows")'),
    "up": Route(route="FROM /messages/modules/scaler/* INTO $upstream"),
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[HubPlace]:
    with hub_place(tmp_path / "hub") as made:
        yield made


def test_from_module_to_module_to_the_hubs_database(place: HubPlace, tmp_path: Path) -> None:
    def bodies() -> list[str]:
        with place.database.read_series() as connection:
            return list(connection.scalars(select(messages.c.body).order_by(messages.c.sequence)))

    modules = {
        "counter": ModuleSpec(command=[sys.executable, "-c", COUNTER]),
        "scaler": ModuleSpec(command=[sys.executable, "-c", SCALER]),
    }
    with AgentProcess(DeviceFile(place, "pump"), tmp_path / "device") as agent:
        place.deploy(EdgeDeployment(name="scaling", target="*", modules=modules, routes=ROUTES, twins={"scaler": {"factor": 3}}))
        wait_for_or_show(agent, lambda: len(bodies()) >= 20, 90, "20 messages in the hub's database")
        assert bodies() == [f'{{"scaled": {number * 3}}}' for number in range(20)]
        assert agent.metric("edgehub_connected_clients") == 2
        assert agent.metric("edgehub_client_connect_success_total") >= 2
        counter, scaler = agent.wait_pid("counter"), agent.wait_pid("scaler")
        agent.kill()
        agent.start()
        wait_for_or_show(agent, lambda: agent.metric("edgehub_connected_clients") == 2, 60, "both clients again")
        assert (agent.pid_of("counter"), agent.pid_of("scaler")) == (counter, scaler)
