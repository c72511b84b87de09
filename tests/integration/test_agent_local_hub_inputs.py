"""What the local hub brings to modules, over real sockets and a real buffer: inputs, twins, direct methods."""

from __future__ import annotations

import json
import threading
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from tests.fixtures.local_hub import MakeStand, Stand
from tests.waiting import wait_for

VERSIONS = pytest.mark.parametrize("version", [mqtt.MQTTv311, mqtt.MQTTv5], ids=["3.1.1", "5"])


@pytest.fixture
def hub(local_hub_stand: MakeStand) -> Stand:
    return local_hub_stand()


@pytest.fixture
def chain(local_hub_stand: MakeStand) -> Stand:
    """A hub where outputs of ``m`` go to the input ``rows`` of ``scorer`` (IoT Edge calls it ScoringModule)."""
    return local_hub_stand(a='FROM /messages/modules/m/outputs/* INTO BrokeredEndpoint("/modules/ScoringModule/inputs/rows")')


def test_iot_edge_topics_bring_output_and_properties(chain: Stand) -> None:
    with chain.client("scorer", client_id="s", user="hub/porch/ScoringModule/?api-version=2021-04-12") as scorer:
        assert scorer.subscribe("devices/porch/modules/ScoringModule/inputs/#")[0].value == 1
        with chain.client() as client:
            client.say("devices/porch/modules/m/messages/events/%24.on=rows&level=a%2Fb&%24.mid=7", '{"x": 1}')
            client.say("devices/porch/modules/m/messages/events/", "2")  # no output: no route fits
        [message] = scorer.wait_messages(1)
    base, _, bag = message.topic.rpartition("/")
    assert base == "devices/porch/modules/ScoringModule/inputs/rows"
    assert set(bag.split("&")) == {
        *("level=a%2Fb", "%24.mid=7", "%24.on=rows", "%24.cdid=porch", "%24.cmid=m"),
    }
    assert message.payload == b'{"x": 1}'


def test_inputs_may_have_names_that_are_none_of_ours(local_hub_stand: MakeStand) -> None:
    hub = local_hub_stand(a='FROM /messages/modules/m/* INTO BrokeredEndpoint("/modules/scorer/inputs/Frame In")')
    with hub.client("scorer", client_id="s") as scorer, hub.client() as client:
        scorer.subscribe("inputs/Frame In")
        client.say("telemetry", "1")
        assert scorer.wait_messages(1)[0].topic == "inputs/Frame In"


def test_mqtt_5_properties_go_from_module_to_module(chain: Stand) -> None:
    with chain.client("scorer", version=mqtt.MQTTv5, client_id="s") as scorer, chain.client(version=mqtt.MQTTv5) as client:
        scorer.subscribe("inputs/rows")
        client.say("outputs/rows", b"\x00\xff", user=[("level", "a/b"), ("$.ct", "image/png")])
        [message] = scorer.wait_messages(1)
    assert (message.topic, message.payload, message.qos) == ("inputs/rows", b"\x00\xff", 1)
    assert message.properties is not None
    pairs = dict(getattr(message.properties, "UserProperty"))  # noqa: B009 - paho makes it at run time
    assert pairs == {"level": "a/b", "$.ct": "image/png", "$.cdid": "porch", "$.cmid": "m", "$.on": "rows"}


def test_inputs_wait_for_their_module_and_come_in_order(chain: Stand) -> None:
    with chain.client() as client:
        for number in range(300):
            client.publish("outputs/rows", str(number))
        wait_for(lambda: len(client.published) == 300, timeout_s=60, what="300 acknowledgements")
    with chain.client("scorer") as scorer:
        scorer.subscribe("inputs/#")
        assert [int(message.payload) for message in scorer.wait_messages(300)] == list(range(300))
        assert not any(message.dup for message in scorer.messages)
        chain.wait_settled()


def test_what_was_not_acknowledged_comes_again_also_after_a_restart_of_the_agent(chain: Stand) -> None:
    with chain.client() as client:
        for number in range(4):
            client.say("outputs/rows", str(number))
    with chain.client("scorer", manual=True) as scorer:
        scorer.subscribe("inputs/#")
        for message in scorer.wait_messages(4)[:2]:
            scorer.mqtt.ack(message.mid, message.qos)
        wait_for(lambda: chain.outbox.totals.local_messages == 2, timeout_s=30, what="two of them to be settled")
    with chain.client("scorer", manual=True) as scorer:
        scorer.subscribe("inputs/#")
        again = scorer.wait_messages(2)
        assert [(message.payload, message.dup) for message in again] == [(b"2", True), (b"3", True)]
    chain.stop()
    chain.start()
    with chain.client("scorer") as scorer:
        scorer.subscribe("inputs/#")
        assert [message.payload for message in scorer.wait_messages(2)] == [b"2", b"3"]


@pytest.mark.parametrize("receive_max", [1, 3])
def test_a_small_window_slows_inputs_down_and_keeps_their_order(local_hub_stand: MakeStand, receive_max: int) -> None:
    source = 'FROM /messages/modules/m/outputs/{0} INTO BrokeredEndpoint("/modules/scorer/inputs/{0}")'
    hub = local_hub_stand(a=source.format("a"), b=source.format("b"))
    hub.twins["scorer"] = {"rate": 1}
    with (
        hub.client() as client,
        hub.client("scorer", client_id="s", version=mqtt.MQTTv5, receive_max=receive_max) as scorer,
    ):
        scorer.subscribe("inputs/#", "twin/desired")
        for number in range(150):
            client.publish("outputs/a" if number % 2 else "outputs/b", str(number))
        got = scorer.wait_messages(151)
        scorer.mqtt.disconnect()
    assert [message.topic for message in got].count("twin/desired") == 1
    for topic, first in (("inputs/b", 0), ("inputs/a", 1)):
        assert [int(message.payload) for message in got if message.topic == topic] == list(range(first, 150, 2))


def test_unsubscribing_loses_nothing(chain: Stand) -> None:
    with chain.client("scorer", client_id="s") as scorer, chain.client() as client:
        for number in range(200):
            if number % 20 == 0:
                scorer.mqtt.unsubscribe("inputs/#")
            elif number % 20 == 10:
                scorer.mqtt.subscribe("inputs/#", qos=1)
            client.publish("outputs/rows", str(number))
        wait_for(lambda: len({message.payload for message in scorer.messages}) == 200, timeout_s=30, what="all of them")
        first = dict.fromkeys(int(message.payload) for message in scorer.messages)
        assert list(first) == list(range(200))


def test_a_module_reads_only_its_own_topics(chain: Stand) -> None:
    with chain.client() as client:
        granted = client.subscribe("#", "inputs/#", "devices/porch/modules/scorer/inputs/#", "twin/desired", "$SYS/#")
        assert [reason.value for reason in granted] == [0x80, 1, 0x80, 1, 0x80]
        client.say("outputs/rows", "1")
    wait_for(lambda: chain.outbox.totals.local_messages == 1, timeout_s=30, what="the message for the other module")


def test_the_newest_connection_gets_the_inputs(chain: Stand) -> None:
    with chain.client("scorer", client_id="old") as old, chain.client() as client:
        old.subscribe("inputs/#")
        client.say("outputs/rows", "1")
        old.wait_messages(1)
        chain.wait_settled()
        with chain.client("scorer", client_id="new") as new:
            new.subscribe("inputs/#")
            client.say("outputs/rows", "2")
            assert new.wait_messages(1)[0].payload == b"2"
            chain.wait_settled()
        client.say("outputs/rows", "3")
        assert [message.payload for message in old.wait_messages(2)] == [b"1", b"3"]


def test_the_twin_is_sent_when_subscribed_and_when_it_changes(hub: Stand) -> None:
    hub.twins["m"] = {"rate": 1}
    with hub.client() as client:
        client.subscribe("twin/desired")
        [first] = client.wait_messages(1)
        hub.twins["m"] = {"rate": 2, "mode": {"a": None}}
        hub.twins["scorer"] = {"not": "ours"}
        hub.hub.twins_changed()
        hub.hub.twins_changed()
        client.wait_messages(2)
        client.say("heartbeat", "")  # whatever was sent twice would be here by now
        assert [(json.loads(message.payload), message.retain) for message in client.messages] == [
            ({"rate": 1}, True),
            ({"rate": 2, "mode": {"a": None}}, False),
        ]
    assert first.topic == "twin/desired"


def test_changes_of_the_twin_come_as_patches_for_those_who_ask(hub: Stand) -> None:
    hub.twins["m"] = {"rate": 1, "mode": {"a": 1, "b": 2}, "$version": 1}
    with hub.client() as client:
        client.subscribe("twin/desired/patch")
        hub.hub.twins_changed()
        hub.twins["m"] = {"mode": {"a": 1, "c": True}, "$version": 2}
        hub.hub.twins_changed()
        [patch] = client.wait_messages(1)
        client.subscribe("twin/#")
        client.wait_messages(2)
        hub.twins["m"] = {"mode": {"a": 1}, "$version": 3}
        hub.hub.twins_changed()
        got = client.wait_messages(4)
    assert (patch.topic, patch.retain) == ("twin/desired/patch", False)
    assert json.loads(patch.payload) == {"rate": None, "mode": {"b": None, "c": True}, "$version": 2}
    assert [(message.topic, json.loads(message.payload)) for message in got[1:]] == [
        ("twin/desired", {"mode": {"a": 1, "c": True}, "$version": 2}),
        ("twin/desired", {"mode": {"a": 1}, "$version": 3}),
        ("twin/desired/patch", {"mode": {"c": None}, "$version": 3}),
    ]


def test_reported_properties_are_merged_or_replaced_by_topic(hub: Stand) -> None:
    with hub.client() as client:
        client.say("twin/reported", '{"a": 1, "b": 2}')
        client.say("twin/reported/patch", '{"b": null, "c": {"d": 3}}')
        assert hub.kept.held()["m"].properties == {"a": 1, "c": {"d": 3}}
        client.say("twin/reported", '{"e": 4}')
        assert hub.kept.held()["m"].properties == {"e": 4}
    assert hub.kept.held()["m"].version == 3


def test_a_module_whose_report_cannot_be_written_is_not_told_that_it_was(hub: Stand) -> None:
    with hub.client() as client:
        client.say("twin/reported", '{"a": 1}')
        hub.path.with_name("twins").rename(hub.path.with_name("elsewhere"))
        hub.path.with_name("twins").write_text("no folder")
        client.mqtt.publish("twin/reported", '{"a": 2}', qos=1)
        wait_for(lambda: client.ended, timeout_s=30, what="the end of the connection")
        assert len(client.published) == 1
    hub.path.with_name("twins").unlink()
    with hub.client() as client:
        client.say("twin/reported", '{"a": 2}')
    assert hub.kept.held()["m"].properties == {"a": 2}


def test_reported_properties_and_heartbeats_reach_the_agent(hub: Stand) -> None:
    with hub.client(version=mqtt.MQTTv5) as client:
        client.say("twin/reported", '{"rate": 2}')
        client.say("heartbeat", "")
        client.say("twin/reported", "[]")
        assert client.published[-1][1].value == 0x99
    hub.kept.close()
    assert hub.reported == [("m", '{"rate":2}', 1)]
    assert hub.heartbeats == ["m"]
    assert {module: held.properties for module, held in hub.kept.held().items()} == {"m": {"rate": 2}}


@VERSIONS
def test_a_method_of_a_module_is_called_and_answered(hub: Stand, version: Any) -> None:
    with hub.client(version=version) as client:
        client.subscribe("methods/#")

        def answer(_client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
            _, name, request = message.topic.split("/")
            if name != "silent":
                client.mqtt.publish(f"methods/answers/{request}/201", json.dumps({"got": json.loads(message.payload)}), qos=1)

        client.mqtt.on_message = answer
        status, text = hub.hub.call("m", "reset", '{"deep": true}', 30.0)
        assert (status, json.loads(text)) == (201, {"got": {"deep": True}})
        assert hub.hub.call("m", "silent", "null", 0.2)[0] == 408
        assert hub.hub.call("scorer", "reset", "null", 30.0)[0] == 404
        assert hub.hub.call("m", "reset", '"' + "x" * 200_000 + '"', 30.0)[0] == 413
    wait_for(lambda: hub.hub.connected == 0, timeout_s=30, what="the end of the connection")
    assert hub.hub.call("m", "reset", "null", 30.0)[0] == 404


def test_only_the_module_that_was_asked_can_answer(hub: Stand) -> None:
    with hub.client() as client, hub.client("scorer", client_id="s") as other:
        client.subscribe("methods/reset/+")
        answers: list[tuple[int, str]] = []
        caller = threading.Thread(target=lambda: answers.append(hub.hub.call("m", "reset", "null", 30.0)))
        caller.start()
        request = client.wait_messages(1)[0].topic.rpartition("/")[2]
        other.say(f"methods/answers/{request}/200", '"forged"')
        client.say(f"methods/answers/{request}/200", '"true"')
        caller.join()
        assert answers == [(200, '"true"')]
