"""The port to the hub: topics in, topics out. Adapter: ``link/link_mqtt.py``.

A link keeps no promise of its own: what it takes may be lost, what it brings may come twice. The protocol above it
(``link/uplink.py``) knows, so nothing rests on a broker's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class LinkListener(Protocol):
    """Called by the link's own thread; must return quickly."""

    def on_connected(self) -> None:
        """All topics are subscribed."""
        ...

    def on_disconnected(self, reason: str) -> None:
        """The connection ended, or could not be made."""
        ...

    def on_message(self, topic: str, payload: bytes) -> None:
        """Something arrived on one of the topics."""
        ...


class Link(Protocol):
    """Connects, and connects again for as long as it is open."""

    def open(self, listener: LinkListener, topics: Sequence[str]) -> None:
        """Begin to connect, in the background."""
        ...

    def publish(self, topic: str, payload: bytes) -> bool:
        """Hand a message to the connection; False when there is none or it takes no more now. Never waits."""
        ...

    def close(self) -> None:
        """End the connection and stop."""
        ...
