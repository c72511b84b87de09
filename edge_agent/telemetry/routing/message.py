"""A module's message as every way in hands it over (HTTP, MQTT, stdout, scraping), and the form that travels to another module.

Bodies are JSON text all the way, because that is what the buffer keeps and the hub stores. What is no JSON (MQTT carries any
bytes) becomes JSON text here and is turned back into the very bytes for a module that receives it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from hedgerow.contracts.document import decode

Encoding = Literal["json", "text", "base64"]
# What a route's source begins with.
Origin = Literal["messages", "twinChangeNotifications"]
TWIN_CHANGES: Origin = "twinChangeNotifications"


@dataclass(frozen=True)
class ModuleMessage:
    """One message of module ``module`` (our name for it).

    ``body`` is JSON text; ``encoding`` says how the module's own bytes are in it (``wrapped``). ``output`` is the output that
    it left by, None for none. ``properties`` are the application's, ``system`` those of the protocol by IoT Edge's names
    without the dollar sign (``contentType``, ``messageId``, …). ``stream`` is given by a module that chose one itself, ``key``
    makes the message recognised when it comes again.
    """

    module: str
    body: str
    time_ms: int
    output: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    system: Mapping[str, str] = field(default_factory=dict)
    stream: str | None = None
    key: str | None = None
    encoding: Encoding = "json"
    origin: Origin = "messages"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored for another module's input: the message with all that the receiver may see."""

    source: str
    output: str | None = None
    body: str
    encoding: Encoding = "json"
    properties: dict[str, str] = {}
    system: dict[str, str] = {}

    def payload(self) -> bytes:
        """The bytes that the sending module handed over."""
        return unwrapped(self.body, self.encoding)


def delivery_text(message: ModuleMessage) -> str:
    """The text of a local entry, which ``read_delivery`` reads."""
    delivery = Delivery(
        source=message.module,
        output=message.output,
        body=message.body,
        encoding=message.encoding,
        properties=dict(message.properties),
        system=dict(message.system),
    )
    return msgspec.json.encode(delivery).decode()


def read_delivery(text: str) -> Delivery:
    """A local entry's body. Raises InvalidDocument for what ``delivery_text`` did not write."""
    return decode(text.encode(), Delivery)


def wrapped(payload: bytes) -> tuple[str, Encoding]:
    """JSON text for any bytes: JSON stays as it is, other text becomes a JSON string, anything else base64 in one."""
    try:
        msgspec.json.decode(payload)
        return payload.decode(), "json"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return msgspec.json.encode(payload.decode()).decode(), "text"
    except UnicodeDecodeError:
        return msgspec.json.encode(base64.b64encode(payload).decode()).decode(), "base64"


def unwrapped(body: str, encoding: Encoding) -> bytes:
    """The bytes of which ``wrapped`` made ``body``; a body that does not fit its encoding is given as it is."""
    if encoding == "json":
        return body.encode()
    try:
        text = msgspec.json.decode(body, type=str)
        return text.encode() if encoding == "text" else base64.b64decode(text, validate=True)
    except (msgspec.DecodeError, binascii.Error, UnicodeEncodeError):
        return body.encode()
