"""Which of a device's keys a message was sealed with: the one that holds, the next one, or one of before. Pure.

    the key that holds       taken
    the next one             taken, if the device should have it: from now on only that holds (the device proved that it has it)
    a later one              a hello only: this database was restored from a time before, the device was not
    an earlier one           never taken: what was on its way during the change, or an old copy of the device.toml, which is
                             told so in the answer to its hello

Everything else is forged. Keys of other generations are tried on short messages only, so that forgeries stay cheap to refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hedgerow.contracts.seal import SealRefused, device_key
from registry.hub.link import Uplink
from registry.hub.uplinks import Said, open_uplink
from registry.store.twins import KnownDevice

# So many generations a restored database may lie behind its devices, and so many old ones get an answer.
_AHEAD, _BEHIND = 8, 8
_HELLO_BYTES_MAX = 64 * 1024


@dataclass(frozen=True)
class Opened:
    """What a device said, the exact bytes, and the generation of the key that sealed them."""

    said: Said
    payload: bytes
    generation: int


def open_sealed(uplink: Uplink, device: KnownDevice, master: bytes) -> Opened:
    """Raises SealRefused for what no key of the device sealed, InvalidDocument or DocumentTooNew for what it should not say."""
    for generation in _candidates(uplink, device):
        try:
            said, payload = open_uplink(uplink, device_key(master, device.uuid, generation))
        except SealRefused:
            continue
        return Opened(said, payload, generation)
    raise SealRefused(purpose=uplink.leaf, device_uuid=device.uuid)


def _candidates(uplink: Uplink, device: KnownDevice) -> Iterator[int]:
    held = device.key_generation
    yield held
    if uplink.leaf == "hello" and len(uplink.payload) <= _HELLO_BYTES_MAX:
        yield from range(held + 1, held + 1 + _AHEAD)
        yield from range(held - 1, max(0, held - 1 - _BEHIND), -1)
    else:
        if device.wanted_key_generation > held:
            yield device.wanted_key_generation
        if held > 1:
            yield held - 1
