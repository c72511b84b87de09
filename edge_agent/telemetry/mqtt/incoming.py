"""What a module published for the buffer, as the message that Reception takes. Pure."""

from __future__ import annotations

from edge_agent.errors import MessageRefused, MessageTooLarge
from edge_agent.telemetry.http_message import OUTPUT_LENGTH_MAX, PROPERTIES_LENGTH_MAX
from edge_agent.telemetry.intake import KEY_LENGTH_MAX
from edge_agent.telemetry.mqtt import topics
from edge_agent.telemetry.mqtt.session import Message
from edge_agent.telemetry.mqtt.topics import Telemetry
from edge_agent.telemetry.routing.message import ModuleMessage, wrapped


def telemetry(module: str, meaning: Telemetry, message: Message, time_ms: int, max_bytes: int) -> ModuleMessage:
    """The message as the buffer takes it. Raises MessageTooLarge, MessageRefused, MqttProtocolError (too many properties)."""
    if len(message.payload) > max_bytes:
        raise MessageTooLarge(size=len(message.payload), limit=max_bytes)
    properties, system, output = meaning.properties, meaning.system, meaning.output
    if message.user:
        if sum(len(name) + len(value) for name, value in message.user) > PROPERTIES_LENGTH_MAX:
            raise MessageRefused(problem=f"it has more than {PROPERTIES_LENGTH_MAX} characters of properties")
        more, protocol = topics.sort_properties(message.user)
        properties, system = {**properties, **more}, {**system, **protocol}
        output = output or protocol.get(topics.OUTPUT)
    key = system.get(topics.MESSAGE_ID) or None
    if key is not None and len(key) > KEY_LENGTH_MAX:
        raise MessageRefused(problem=f"its message id is longer than {KEY_LENGTH_MAX} characters")
    if output is not None and len(output) > OUTPUT_LENGTH_MAX:
        raise MessageRefused(problem=f"its output's name is longer than {OUTPUT_LENGTH_MAX} characters")
    body, encoding = wrapped(message.payload)
    return ModuleMessage(
        module=module,
        body=body,
        time_ms=time_ms,
        output=output,
        properties=properties,
        system=system,
        stream=meaning.stream,
        key=key,
        encoding=encoding,
    )
