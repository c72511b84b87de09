"""What topics mean to the local hub, and whose they are."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import MqttProtocolError
from edge_agent.telemetry.mqtt import topics
from edge_agent.telemetry.mqtt.topics import Heartbeat, Identity, MethodAnswer, ReportedTwin, Telemetry, meaning

ME = Identity("scorer", frozenset({"scorer", "scoringmodule"}), frozenset({"porch", "3f1f"}))


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("telemetry", Telemetry()),
        ("telemetry/alarms", Telemetry(stream="alarms")),
        ("outputs/scores", Telemetry(output="scores")),
        ("heartbeat", Heartbeat()),
        ("twin/reported", ReportedTwin(whole=True)),
        ("twin/reported/patch", ReportedTwin(whole=False)),
        ("methods/answers/r1/200", MethodAnswer("r1", 200)),
        ("devices/porch/modules/scorer/messages/events", Telemetry()),
        ("devices/porch/modules/ScoringModule/messages/events/", Telemetry()),
        (
            "devices/Porch/modules/scorer/messages/events/%24.on=scores&%24.mid=7&a%20b=c%26d&%24.xx=1",
            Telemetry(output="scores", properties={"a b": "c&d"}, system={"outputName": "scores", "messageId": "7"}),
        ),
    ],
)
def test_topics_have_a_meaning(topic: str, expected: object) -> None:
    assert meaning(topic, ME) == expected


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("", 0x90),
        ("other", 0x90),
        ("telemetry/a/b", 0x90),
        ("outputs", 0x90),
        ("methods/answers/r1/20x", 0x90),
        ("methods/answers/r1/2000", 0x90),
        ("methods/answers/r1/999", 0x90),
        ("methods/answers/r1/099", 0x90),
        ("twin/desired", 0x90),
        ("devices/porch/modules/other/messages/events/", 0x87),
        ("devices/other/modules/scorer/messages/events/", 0x87),
        ("devices/porch/modules/scorer/inputs/a", 0x90),
        ("devices/porch/messages/events/", 0x90),
        ("telemetry/" + "x" * topics.TOPIC_MAX, 0x90),
        ("devices/porch/modules/scorer/messages/events/" + "&".join(f"k{n}=1" for n in range(65)), 0x90),
    ],
)
def test_other_topics_have_none(topic: str, code: int) -> None:
    with pytest.raises(MqttProtocolError) as refused:
        meaning(topic, ME)
    assert refused.value.fields["code"] == code


@given(st.text())
def test_no_topic_raises_anything_else(topic: str) -> None:
    with contextlib.suppress(MqttProtocolError):
        meaning(topic, ME)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.dictionaries(texts.filter(lambda name: not name.startswith("$.")), texts, max_size=5))
def test_properties_survive_their_way_through_a_topic(properties: dict[str, str]) -> None:
    system = {"messageId": "7&=/", "contentType": "application/json"}
    bag = topics.write_bag(properties, system)
    assert not set(bag) & set("/+#")
    assert topics.read_bag(bag) == (properties, system)


@pytest.mark.parametrize(
    "pattern",
    [
        *("inputs/#", "inputs/+", "inputs/a", "twin/desired", "twin/#", "methods/#", "methods/reset/+"),
        *("devices/porch/modules/scorer/inputs/#", "devices/PORCH/modules/ScoringModule/inputs/a/#"),
    ],
)
def test_a_module_reads_what_is_its_own(pattern: str) -> None:
    assert topics.may_read(pattern, ME) == 0


@pytest.mark.parametrize(
    "pattern",
    [
        *("#", "+", "+/#", "+/desired", "inputs", "telemetry", "telemetry/#", "$SYS/#", "$share/g/inputs/#", "heartbeat/x"),
        *("devices/#", "devices/+/modules/scorer/inputs/#", "devices/porch/modules/+/inputs/#"),
        *("devices/porch/modules/other/inputs/#", "devices/porch/modules/scorer/#", "devices/porch/modules/scorer/inputs"),
        "inputs/" + "x" * topics.TOPIC_MAX,
    ],
)
def test_and_nothing_else(pattern: str) -> None:
    assert topics.may_read(pattern, ME)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({"inputs/#": 1}, ("inputs/a", 1, False)),
        ({"inputs/b": 1}, None),
        ({"inputs/b": 1, "inputs/+": 0}, ("inputs/a", 0, False)),
        ({"twin/#": 1, "methods/#": 1}, None),
        ({"devices/Porch/modules/M/inputs/#": 1}, ("devices/Porch/modules/M/inputs/a", 1, True)),
        ({"devices/porch/modules/m/inputs/a/#": 1}, ("devices/porch/modules/m/inputs/a", 1, True)),
        ({"devices/porch/modules/m/inputs/b/#": 1}, None),
    ],
)
def test_an_input_goes_where_it_was_subscribed(patterns: dict[str, int], expected: object) -> None:
    assert topics.input_topic(patterns, "a") == expected
