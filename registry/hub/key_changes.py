"""Devices that were heard under another of their keys: the next one becomes the one that holds, an old one is told so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from hedgerow.contracts.document import encode
from hedgerow.contracts.seal import device_key, seal
from hedgerow.contracts.telemetry import Hello, Welcome
from registry.hub import presence, sessions
from registry.hub.device_seals import Opened
from registry.hub.link import Downlink
from registry.store import device_keys
from registry.store.twins import KnownDevice

OLD_KEY = (
    "it speaks with key {found}, and has had key {held} since: an old device.toml or an old copy of its disk was put back. "
    "Give it its newest state folder again, or delete the device and enrol it anew (hedgerow device enroll)"
)


@dataclass
class KeyChanges:
    """Of one group of messages; ``risen`` by device, ``late`` hellos with the generation that sealed them."""

    risen: dict[str, int] = field(default_factory=dict)
    late: list[tuple[Hello, int]] = field(default_factory=list)

    def note(self, device: KnownDevice, opened: Opened) -> str:
        """Why the message is not to be taken, "" when it is."""
        if opened.generation > device.key_generation:
            self.risen[device.uuid] = max(opened.generation, self.risen.get(device.uuid, 0))
        if opened.generation < device.key_generation:
            if isinstance(opened.said, Hello):
                self.late.append((opened.said, opened.generation))
            return OLD_KEY.format(found=opened.generation, held=device.key_generation)
        return ""

    def settle(self, connection: Connection, devices: Mapping[str, KnownDevice], master: bytes, now: datetime) -> None:
        """Write who proved to have a later key. ``devices`` were read for this, and are held."""
        for uuid, generation in sorted(self.risen.items()):
            device = devices.get(uuid)
            if device is None or device.revoked or not device_keys.take_over(connection, uuid, generation, now):
                continue
            # After a restore nobody knows of the token that the device fetched with its key.
            device_keys.token_for(connection, uuid, device.name, generation, master, now)
            presence.tell(connection, "device.key-rotated", device.name, now, generation=str(generation))

    def now_held(self, device: KnownDevice) -> KnownDevice:
        """``device`` as it is after :meth:`settle`."""
        return replace(device, key_generation=max(device.key_generation, self.risen.get(device.uuid, 0)))

    def refusals(self, devices: Mapping[str, KnownDevice], master: bytes, incarnation: str) -> list[Downlink]:
        """Answers to hellos under old keys, readable with those: a refusal promises nothing and helps nobody but its owner."""
        answers = []
        for hello, generation in self.late:
            device = devices[hello.device_uuid]
            reason = OLD_KEY.format(found=generation, held=device.key_generation)
            welcome = Welcome(
                device_uuid=device.uuid,
                nonce=hello.nonce,
                session=None,
                incarnation=incarnation,
                lease_s=sessions.LEASE_S,
                refused=reason,
            )
            key = device_key(master, device.uuid, generation)
            answers.append(Downlink(device.uuid, "welcome", seal(key, device.uuid, "welcome", encode(welcome))))
        return answers
