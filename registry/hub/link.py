"""What the hub needs of a message broker, and what passes between the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Uplink:
    """A message from a device's topic, as it came: nothing of it is to be believed yet."""

    device_uuid: str
    leaf: str
    payload: bytes


@dataclass(frozen=True)
class Downlink:
    """A message for one device, sealed or signed. A retained one with no payload takes the retained one away."""

    device_uuid: str
    leaf: Literal["welcome", "desired", "acks", "methods", "twin-acks"]
    payload: bytes
    retain: bool = False


class Link(Protocol):
    """A connection that mends itself. Uplinks go into the inbox it was made with."""

    def publish(self, downlink: Downlink) -> None:
        """Hand over for delivery; dropped while the broker is away, for devices ask again."""
        ...

    def close(self) -> None: ...
