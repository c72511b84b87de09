"""Devices: enrol, look, revoke."""

from __future__ import annotations

from collections.abc import Mapping

from hedgerow.contracts.api import Device, EnrollDevice, EnrolledDevice, Page
from hedgerow.sdk.addresses import address
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/devices"


class Devices:
    """``client.devices``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def enroll(self, name: str, tags: Mapping[str, str] | None = None) -> EnrolledDevice:
        """A new device. ``config`` in the answer is its ``device.toml`` and holds its key: it is shown this once."""
        return self._transport.call("POST", _PATH, EnrolledDevice, body=EnrollDevice(name=name, tags=dict(tags or {})))

    def get(self, name: str) -> Device:
        return self._transport.call("GET", address(_PATH, name), Device)

    def list(self, limit: int = 50, after: str | None = None) -> Page[Device]:
        return self._transport.call("GET", _PATH, Page[Device], query={"limit": limit, "after": after})

    def delete(self, name: str) -> None:
        """Revoke the device's credentials and forget it; its telemetry stays."""
        self._transport.delete(address(_PATH, name))
