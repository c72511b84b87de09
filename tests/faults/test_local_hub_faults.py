"""The agent killed (kill -9) under MQTT load: what a module's PUBACK said was stored is stored, and once."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.process import Supervised
from tests.agent_builders import Workspace, command
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.fixtures.brokers import MosquittoFactory
from tests.small_hub import SmallHub
from tests.waiting import wait_for

KILLS = 5
# Publishes numbered messages, hundreds on their way at once, and writes each number to a file when its PUBACK has come. The
# client library sends again what was not acknowledged when it is connected again; the message ids make that harmless.
STEADY_PUBLISHER = """
import os, threading, urllib.parse
import paho.mqtt.client as mqtt
address = urllib.parse.urlsplit(os.environ["HEDGEROW_MQTT_URL"])
me = os.environ["HEDGEROW_MODULE"]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="steady")
client.username_pw_set(me, os.environ["HEDGEROW_TELEMETRY_TOKEN"])
client.reconnect_delay_set(1, 1)
client.max_inflight_messages_set(200)
room, told, numbers = threading.Semaphore(400), open("told", "a"), {}
def acknowledged(_client, _data, mid, _reason, _properties):
    told.write(f"{numbers.pop(mid)}\\n"); told.flush()
    room.release()
client.on_publish = acknowledged
client.connect(address.hostname, address.port, keepalive=20)
lock = client._out_message_mutex
client.loop_start()
number = 0
while True:
    room.acquire()
    with lock:
        sent = client.publish(f"devices/porch/modules/{me}/messages/events/%24.mid=k{number}", str(number), qos=1)
        numbers[sent.mid] = number
    number += 1
"""


@pytest.fixture
def hub(mosquitto: MosquittoFactory) -> Iterator[SmallHub]:
    with (
        mosquitto() as broker,
        SmallHub(Workspace(broker_url=broker.url, uuid=os.urandom(16).hex()), broker.port) as made,
    ):
        yield made


def test_killed_again_and_again_under_mqtt_it_loses_and_doubles_nothing(hub: SmallHub, tmp_path: Path) -> None:
    with AgentProcess(hub.workspace, tmp_path / "device") as agent:
        hub.deploy({"m": command(sys.executable, "-c", STEADY_PUBLISHER)})
        pid = agent.wait_pid("m")
        told = agent.state / "modules/m/work/told"
        chance = random.Random(7)
        for _ in range(KILLS):
            enough = (told.stat().st_size if told.exists() else 0) + chance.randrange(200, 4000)
            wait_for(lambda enough=enough: told.exists() and told.stat().st_size > enough, timeout_s=60, what="more PUBACKs")  # type: ignore[misc]  # bound for this round
            agent.kill()
            agent.start()
        assert agent.pid_of("m") == pid, "the module was restarted"
        Supervised(agent.state / "modules/m/process").signal(signal.SIGSTOP)
        acknowledged = {int(line) for line in told.read_text().split("\n")[:-1]}
        assert len(acknowledged) > 100
        wait_for_or_show(agent, lambda: acknowledged <= {int(body) for body in hub.bodies()}, 90, "everything at the hub")
        wait_for_or_show(agent, lambda: agent.metric("edgehub_queue_length") == 0, 60, "the acknowledgements")
        arrived = [int(body) for body in hub.bodies()]
        # What the library sends before it has sent the old ones again may overtake them; nothing comes twice.
        assert len(arrived) == len(set(arrived))
