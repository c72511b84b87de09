"""A stored message for an input, as the PUBLISH that its subscriber asked for. Pure."""

from __future__ import annotations

from typing import TypeVar

from edge_agent.telemetry.mqtt import topics
from edge_agent.telemetry.mqtt.codec import Publish
from edge_agent.telemetry.mqtt.inputs import Item

# Who sent it, in IoT Edge's abbreviations.
_DEVICE, _MODULE = "$.cdid", "$.cmid"
_TOPIC_BYTES = 65_535
S = TypeVar("S")


def input_message(place: tuple[str, int, bool], item: Item[S], device: str) -> Publish:
    """``inputs/NAME`` with user properties (which only MQTT 5 carries), or IoT Edge's topic with the properties in it.

    ``place`` is what ``topics.input_topic`` gave. Properties that do not fit into a topic are left out.
    """
    topic, qos, in_topic = place
    delivery = item.delivery
    dup = item.repeated and qos > 0
    system = {**delivery.system, _DEVICE: device, _MODULE: delivery.source}
    if delivery.output is not None:
        system[topics.OUTPUT] = delivery.output
    if in_topic:
        long = f"{topic}/{topics.write_bag(delivery.properties, system)}"
        fits = len(long.encode()) <= _TOPIC_BYTES
        return Publish(long if fits else f"{topic}/", delivery.payload(), qos, dup=dup)
    user = (*delivery.properties.items(), *((topics.abbreviated(name), value) for name, value in system.items()))
    return Publish(topic, delivery.payload(), qos, dup=dup, user=user)
