"""The telemetry protocol: messages, batches, acknowledgements, sessions (DESIGN.md, "Telemetry protocol").

A message's key is (device UUID, epoch, stream, sequence). The **epoch** is a random id made when a buffer file is
created or recovered from damage; sequences count from 1 without holes within (epoch, stream). Each message extends a
hash chain per (epoch, stream): ``chain_n = sha256(chain_{n-1} || message_n)``. The hub remembers, for ever, the
watermark (highest stored sequence) and the chain value there. Any second writer of the same keys (a cloned card, a
restored image) shows as a chain that does not continue, at whatever batch boundaries; it is quarantined and told to
start a new epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Annotated, Literal

import msgspec

from hedgerow.contracts.document import Document
from hedgerow.contracts.names import KnownName

Sequence = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
# What a device counts must fit the hub's columns with room to go on.
Counter = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 2)]
ChainValue = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
CHAIN_START = "0" * 64
# Of one message; the bytes are IoT Hub's limit, names and values together.
PROPERTIES_MAX, PROPERTIES_BYTES_MAX = 128, 65_536
# Of a message's properties these are the protocol's, named as IoT Hub abbreviates them over MQTT.
PROPERTY_OUTPUT, PROPERTY_CONTENT_TYPE = "$.on", "$.ct"

GapReason = Literal["quota", "expired", "damaged", "hub-restored", "downsampled"]


class TelemetryMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a module. ``body`` is its JSON text, kept byte for byte; ``time_ms`` is the device's clock.

    ``properties`` are the application's own; like ``historical`` they are no part of the chain, which a hub of before reads too.
    """

    sequence: Sequence
    time_ms: int
    module: KnownName
    body: str
    historical: bool = False
    properties: dict[str, str] = {}


class TelemetryGap(msgspec.Struct, frozen=True, kw_only=True):
    """Sequences that will never arrive, and why. Closed interval."""

    first_sequence: Sequence
    last_sequence: Sequence
    reason: GapReason


class TelemetryHole(msgspec.Struct, frozen=True, kw_only=True):
    """A gap between two messages of one batch; ``chain`` is the chain value after its last sequence."""

    first_sequence: Sequence
    last_sequence: Sequence
    reason: GapReason
    chain: ChainValue


class TelemetryBatch(Document, frozen=True, kw_only=True):
    """Consecutive messages of one stream.

    ``previous_chain`` is the chain value before ``first_sequence``, ``chain`` after the last message; a batch made of
    ``gap`` alone has no messages and carries the chain across the gap in ``chain``. ``holes`` (in order, each between two
    messages) are sent only to a hub whose welcome says that it reads them.
    """

    device_uuid: str
    session: str
    epoch: str
    stream: KnownName
    first_sequence: Sequence
    previous_chain: ChainValue
    chain: ChainValue
    messages: list[TelemetryMessage] = []
    gap: TelemetryGap | None = None
    holes: list[TelemetryHole] = []


class TelemetryAck(Document, frozen=True, kw_only=True):
    """Sent after the hub's commit. Everything up to ``watermark`` is stored (or lost as a recorded gap)."""

    device_uuid: str
    session: str
    incarnation: str
    epoch: str
    stream: KnownName
    watermark: int
    chain: ChainValue
    refused: Literal["chain-mismatch", "sequence-hole"] | None = None


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub has of one (epoch, stream); 0 and CHAIN_START when nothing."""

    epoch: str
    stream: KnownName
    watermark: int
    chain: ChainValue


class Hello(Document, frozen=True, kw_only=True):
    """A device asks for a session. ``starts`` counts agent starts of this state folder, so a restarted agent takes its
    own session over at once while a copy of the card (same count, other ``instance``) is refused.
    """

    device_uuid: str
    nonce: str
    instance: str
    starts: Counter
    epoch: str
    streams: list[KnownName]
    agent_version: str
    accepted_desired_version: Counter = 0
    time_ms: int


class Welcome(Document, frozen=True, kw_only=True):
    """The hub's answer; ``nonce`` is the hello's. ``session`` is None when the lease is held by another. ``reads_holes``: batches
    may have ``holes``. ``reads_twins``: it takes TwinReports (``contracts/twins.py``). ``revoked``: there will be none."""

    device_uuid: str
    nonce: str
    session: str | None
    incarnation: str
    lease_s: float
    watermarks: list[Watermark] = []
    refused: str = ""
    reads_holes: bool = False
    reads_twins: bool = False
    revoked: bool = False


def properties_problem(properties: Mapping[str, str]) -> str:
    """Why a hub would not take a message with these properties, "" when it would. A device asks before it stores."""
    if len(properties) > PROPERTIES_MAX:
        return f"it has more than {PROPERTIES_MAX} properties"
    if sum(len(name.encode()) + len(value.encode()) for name, value in properties.items()) > PROPERTIES_BYTES_MAX:
        return f"its properties take more than {PROPERTIES_BYTES_MAX} bytes"
    return ""


def extend_chain(chain: str, message: TelemetryMessage) -> str:
    """The chain value after ``message``. ``historical`` (a mark of the transport) and ``properties`` do not count."""
    head = f"{message.sequence}|{message.time_ms}|{message.module}|".encode()
    return sha256(bytes.fromhex(chain) + head + message.body.encode()).hexdigest()


def chain_over(chain: str, messages: Iterable[TelemetryMessage]) -> str:
    """The chain value after all of ``messages``, in order."""
    for message in messages:
        chain = extend_chain(chain, message)
    return chain
