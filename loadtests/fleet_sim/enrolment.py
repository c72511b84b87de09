"""Simulated devices in the registry: enrolled through the API, several at a time, and taken away again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from hedgerow.contracts.device import DeviceConfig
from hedgerow.sdk.client import Client

TAG = "fleet-sim"
_AT_ONCE = 4


@contextmanager
def enrolled(client: Client, count: int, prefix: str, *, keep: bool = False) -> Iterator[list[DeviceConfig]]:
    """``count`` new devices ``PREFIX-00000``…; deleted at the end unless ``keep`` (their telemetry stays)."""
    names = [f"{prefix}-{number:05}" for number in range(count)]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="enrol") as pool:
        try:
            yield list(pool.map(lambda name: client.devices.enroll(name, {TAG: prefix}).config, names))
        finally:
            if not keep:
                there = [device.name for device in client.devices.iterate(tags={TAG: prefix})]
                list(pool.map(client.devices.delete, there))
