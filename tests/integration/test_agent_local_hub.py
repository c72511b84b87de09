"""The local hub over real sockets on a real buffer, spoken to by paho (3.1.1 and 5), Mosquitto's tools and hostile bytes."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from edge_agent.telemetry.mqtt import codec
from edge_agent.telemetry.mqtt import local_hub as hub_module
from edge_agent.telemetry.mqtt import server as server_module
from tests import mqtt_packets as packets
from tests.fixtures.local_hub import LIMIT, MakeStand, Stand
from tests.fixtures.parts import program
from tests.waiting import wait_for

VERSIONS = pytest.mark.parametrize("version", [mqtt.MQTTv311, mqtt.MQTTv5], ids=["3.1.1", "5"])


@pytest.fixture
def hub(local_hub_stand: MakeStand) -> Stand:
    return local_hub_stand()


@pytest.fixture
def chain(local_hub_stand: MakeStand) -> Stand:
    """A hub where outputs of ``m`` go to the input ``rows`` of ``scorer`` (IoT Edge calls it ScoringModule)."""
    return local_hub_stand(a='FROM /messages/modules/m/outputs/* INTO BrokeredEndpoint("/modules/ScoringModule/inputs/rows")')


def read_all(sock: socket.socket) -> bytes:
    """Everything until the other side ends the connection."""
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return data


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
def test_an_acknowledged_message_is_on_the_disk(hub: Stand, version: Any, qos: int) -> None:
    with hub.client(version=version) as client:
        client.say("telemetry", '{"t": 1.50}', qos=qos)
        client.say("telemetry/alarms", "2", qos=qos)
        client.say("telemetry", b"\x00\xff", qos=qos)
        assert hub.rows() == [("telemetry", "m", '{"t": 1.50}'), ("alarms", "m", "2"), ("telemetry", "m", '"AP8="')]


def test_qos_0_is_taken_as_well(hub: Stand) -> None:
    with hub.client() as client:
        client.publish("telemetry", "1", qos=0)
        client.say("telemetry", "2")
    assert [body for _, _, body in hub.rows()] == ["1", "2"]


@VERSIONS
def test_thousands_at_once_arrive_whole_and_in_order(hub: Stand, version: Any) -> None:
    with hub.client(version=version) as client:
        for number in range(3000):
            client.publish("telemetry", str(number))
        wait_for(lambda: len(client.published) == 3000, timeout_s=60, what="3000 acknowledgements")
    assert [int(body) for _, _, body in hub.rows()] == list(range(3000))


@pytest.mark.parametrize(
    ("user", "module", "allowed"),
    [
        ("m", "m", True),
        ("scorer", "scorer", True),
        ("ScoringModule", "scorer", True),
        ("hub.example/porch/ScoringModule/?api-version=2021-04-12", "scorer", True),
        ("hub.example/other/ScoringModule/?api-version=2021-04-12", "scorer", False),
        ("hub.example/porch/m/?api-version=2021-04-12", "scorer", False),
        ("m", "scorer", False),
        ("", "m", False),
    ],
)
def test_a_module_is_who_its_token_says(hub: Stand, user: str, module: str, allowed: bool) -> None:
    client = hub.client(module, user=user)
    client.start()
    wait_for(lambda: client.connected, timeout_s=30, what="CONNACK")
    assert client.connected[0].is_failure is not allowed
    client.mqtt.disconnect()
    client.mqtt.loop_stop()


@pytest.mark.parametrize("password", ["", "m", "m.0000", "other." + "0" * 64])
def test_wrong_passwords_are_refused(hub: Stand, password: str) -> None:
    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as sock:
        sock.sendall(packets.connect("m", password) + packets.publish("telemetry", b"1"))
        assert read_all(sock) == b"\x20\x02\x00\x04"
    assert hub.rows() == []


def test_the_tools_of_mosquitto_are_understood(chain: Stand) -> None:
    login = ["-h", "127.0.0.1", "-p", str(chain.port)]
    publisher = [program("mosquitto_pub"), *login, "-u", "m", "-P", chain.tokens.of("m"), "-t", "outputs/rows", "-q", "1"]
    for version in ("311", "5"):
        subprocess.run([*publisher, "-m", f'"{version}"', "-V", version], check=True, timeout=60)
    subscriber = [program("mosquitto_sub"), *login, "-u", "ScoringModule", "-P", chain.tokens.of("scorer"), "-q", "1"]
    got = subprocess.run([*subscriber, "-t", "inputs/#", "-C", "2", "-W", "60"], check=True, timeout=90, capture_output=True)
    assert got.stdout.split() == [b'"311"', b'"5"']


def test_a_message_id_that_comes_again_is_stored_once(hub: Stand) -> None:
    with hub.client(version=mqtt.MQTTv5) as client:
        for _ in range(2):
            client.say("telemetry", "1", user=[("$.mid", "a")])
        client.say("telemetry", "2", user=[("$.mid", "b")])
    assert [body for _, _, body in hub.rows()] == ["1", "2"]


def test_a_connection_with_the_same_client_id_ends_the_first(hub: Stand) -> None:
    with hub.client(client_id="one") as first, hub.client(client_id="one") as second:
        wait_for(lambda: first.ended, timeout_s=30, what="the end of the first connection")
        second.say("telemetry", "1")
        with hub.client("scorer", client_id="one"):  # another module's is another
            second.say("telemetry", "2")
        assert not second.ended


def test_what_can_never_be_taken_is_refused_in_mqtt_5(hub: Stand) -> None:
    with hub.client(version=mqtt.MQTTv5) as client:
        for topic, payload, code in [
            ("telemetry", "x" * (LIMIT + 1), 0x83),
            ("telemetry/" + "x" * 200, "1", 0x90),
            ("telemetry/input.m.a", "1", 0x90),
            ("elsewhere", "1", 0x90),
            ("devices/porch/modules/scorer/messages/events/", "1", 0x87),
        ]:
            client.say(topic, payload)
            assert client.published[-1][1].value == code, topic
        client.say("telemetry", "1")
        assert not client.published[-1][1].is_failure
    assert [body for _, _, body in hub.rows()] == ["1"]


def test_in_3_1_1_only_the_end_of_the_connection_is_no_acknowledgement(hub: Stand) -> None:
    with hub.raw() as sock:
        sock.sendall(
            packets.publish("telemetry", b"1", packet_id=1)
            + packets.publish("elsewhere", b"2", packet_id=2)
            + packets.publish("telemetry", b"3", packet_id=3)
        )
        assert read_all(sock) == b"\x40\x02\x00\x01"
    assert [body for _, _, body in hub.rows()] == ["1"]


@VERSIONS
def test_a_full_buffer_acknowledges_only_what_it_took(local_hub_stand: MakeStand, version: Any) -> None:
    hub = local_hub_stand(quota=100_000, overflow="drop-newest")
    with hub.client(version=version) as client:
        for number in range(200):
            client.publish("telemetry", json.dumps([number, "x" * 1000]))
        wait_for(lambda: client.ended, timeout_s=60, what="the end of the connection")
        acknowledged = [mid for mid, reason in client.published if not reason.is_failure]
    stored = len(hub.rows())
    assert 0 < len(acknowledged) <= stored < 200
    assert [json.loads(body)[0] for _, _, body in hub.rows()][: len(acknowledged)] == list(range(len(acknowledged)))


def test_nothing_overtakes_a_message_that_found_no_room(local_hub_stand: MakeStand) -> None:
    hub = local_hub_stand(quota=100_000, overflow="drop-newest")
    large = [packets.publish("telemetry", json.dumps("x" * 15_000).encode(), packet_id=number) for number in range(1, 7)]
    with hub.raw() as sock:
        sock.sendall(b"".join(large) + packets.publish("telemetry", b"1", packet_id=7))
        assert read_all(sock) == b"".join(packets.ack(codec.PUBACK, number) for number in range(1, 6))
    assert len(hub.rows()) == 5


def test_the_port_is_kept_and_everybody_is_told_good_bye(hub: Stand) -> None:
    with hub.client(version=mqtt.MQTTv5) as client:
        port = hub.port
        hub.stop()
        wait_for(lambda: client.ended, timeout_s=30, what="the end of the connection")
        assert client.ended[0].value == 0x8B
    hub.start()
    assert hub.port == port


def test_another_address_of_this_machine_is_listened_at_too(hub: Stand) -> None:
    hub.hub.also_listen("127.0.0.2")
    hub.hub.also_listen("127.0.0.2")
    hub.hub.also_listen("192.0.2.1")  # not ours: said in the log, and no harm
    with socket.create_connection(("127.0.0.2", hub.port), timeout=30) as sock:
        sock.sendall(packets.connect("m", hub.tokens.of("m")))
        assert sock.recv(4, socket.MSG_WAITALL) == b"\x20\x02\x00\x00"


def test_connections_are_counted(hub: Stand) -> None:
    with hub.client(), hub.client("scorer", client_id="s"):
        wait_for(lambda: hub.hub.connected == 2, timeout_s=30, what="two clients")
    wait_for(lambda: hub.hub.connected == 0, timeout_s=30, what="no client")
    counts = {(sample.name, sample.labels.get("id")): sample.value for sample in hub.metrics.samples()}
    assert counts[("edgehub_client_connect_success_total", "m")] == 1
    assert counts[("edgehub_client_disconnect_total", "scorer")] == 1


def test_one_module_cannot_take_all_connections(hub: Stand) -> None:
    own = [hub.raw() for _ in range(hub_module.CONNECTIONS_MAX)]
    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as sock:
        sock.sendall(packets.connect("m", hub.tokens.of("m"), client_id="more"))
        assert read_all(sock) == b"\x20\x02\x00\x03"
    with hub.client("scorer") as other:
        other.say("telemetry", "1")
    for each in own:
        each.close()


def test_strangers_who_say_nothing_lock_nobody_out(hub: Stand) -> None:
    silent = [socket.create_connection(("127.0.0.1", hub.port)) for _ in range(server_module.STRANGERS_MAX * 4)]
    with hub.client() as client:
        client.say("telemetry", "1")
    for each in silent:
        each.close()


def test_garbage_ends_a_connection_and_nothing_else(hub: Stand) -> None:
    with hub.client() as client:
        for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x10\xff\xff\xff\x7f", b"\x16\x03\x01\x02\x00", b"\x00" * 100):
            with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as sock:
                sock.sendall(data)
                assert len(read_all(sock)) <= 4
        for data in (b"\x30\xff\xff\xff\x7f", b"\xf0\x00", packets.connect(), b"\x32\x05\x00\x03a\x00b"):
            with hub.raw() as sock:
                sock.sendall(data)
                assert read_all(sock) == b""
        client.say("telemetry", "1")
    assert [body for _, _, body in hub.rows()] == ["1"]


def test_a_client_that_does_not_read_takes_no_memory_and_stops_nobody(chain: Stand) -> None:
    with chain.raw(room=16_384) as deaf, chain.client(client_id="ears") as client:
        deaf.settimeout(1.0)
        sent = 0
        try:
            while sent < 50_000_000:
                sent += deaf.send(packets.PING * 10_000)
        except TimeoutError:
            pass
        assert sent < 50_000_000
        client.say("telemetry", "1")
        held = max(len(connection.output) for connection in chain.hub._server._connections)
        assert held < server_module.OUTPUT_BYTES + server_module.READ_BYTES


def test_a_keep_alive_that_ran_out_ends_the_connection(hub: Stand) -> None:
    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as sock:
        sock.sendall(packets.connect("m", hub.tokens.of("m"), keep_alive_s=1, will=("telemetry", b'"gone"')))
        assert read_all(sock) == b"\x20\x02\x00\x00"
    wait_for(lambda: [body for _, _, body in hub.rows()] == ['"gone"'], timeout_s=30, what="the will")


def test_refused_clients_that_do_not_go_keep_nobody_out(hub: Stand) -> None:
    stubborn: list[socket.socket] = []
    try:
        for number in range(server_module.CONNECTIONS_MAX + 20):
            refused = socket.create_connection(("127.0.0.1", hub.port), timeout=30)
            stubborn.append(refused)
            refused.sendall(packets.connect("m", "wrong", client_id=f"c{number}"))
            assert refused.recv(4, socket.MSG_WAITALL)[:2] == b"\x20\x02"
        hub.raw().close()
    finally:
        for refused in stubborn:
            refused.close()
