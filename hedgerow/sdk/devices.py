"""Devices: enrol, look, tag, revoke."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_fleet import ChangeDevice, Device, DeviceTwin, EnrollDevice, EnrolledDevice, FleetEvent
from hedgerow.contracts.enrollment import DeviceCertificate
from hedgerow.sdk.addresses import address
from hedgerow.sdk.device_methods import DeviceMethods
from hedgerow.sdk.filters import label_filters
from hedgerow.sdk.module_twins import ModuleTwins
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Query

_PATH = "/api/v1/devices"
Presence = Literal["online", "offline", "revoked"]


class Devices(DeviceMethods, ModuleTwins):
    """``client.devices``. Methods, logs and restarts are in ``device_methods.py``, twins of modules in ``module_twins.py``."""

    def enroll(self, name: str, tags: Mapping[str, str] | None = None) -> EnrolledDevice:
        """A new device. ``config`` in the answer is its ``device.toml`` and holds its key: it is shown this once."""
        return self._transport.call("POST", _PATH, EnrolledDevice, body=EnrollDevice(name=name, tags=dict(tags or {})))

    def get(self, name: str) -> Device:
        return self._transport.call("GET", address(_PATH, name), Device)

    def list(
        self,
        limit: int = PAGE_ITEMS,
        after: str | None = None,
        *,
        name: str | None = None,
        state: Presence | None = None,
        tags: Mapping[str, str | None] | None = None,
        edge_deployment: str | None = None,
    ) -> Page[Device]:
        """By name. ``name`` may end with a star; ``tags`` must all be there, None stands for any value.

        >>> _ = client.devices.enroll("press-1", {"site": "north"})
        >>> [device.name for device in client.devices.list(name="press-*", tags={"site": "north"}).items]
        ['press-1']
        """
        narrowed = {"name": name, "state": state, "tag": label_filters(tags), "edge_deployment": edge_deployment}
        query: Query = {"limit": limit, "after": after, **narrowed}
        return self._transport.call("GET", _PATH, Page[Device], query=query)

    def iterate(
        self,
        *,
        name: str | None = None,
        state: Presence | None = None,
        tags: Mapping[str, str | None] | None = None,
        edge_deployment: str | None = None,
    ) -> Iterator[Device]:
        """Every device that fits, read page by page."""
        return walk(
            lambda after: self.list(WALK_ITEMS, after, name=name, state=state, tags=tags, edge_deployment=edge_deployment)
        )

    def change_tags(self, name: str, tags: Mapping[str, str | None]) -> Device:
        """Set tags; those with the value None are taken away. Edge deployments aim by them, so its modules may change.

        >>> _ = client.devices.enroll("lathe-1", {"site": "north", "old": "yes"})
        >>> client.devices.change_tags("lathe-1", {"site": "south", "old": None}).tags
        {'site': 'south'}
        """
        return self._transport.call("PATCH", address(_PATH, name), Device, body=ChangeDevice(tags=dict(tags)))

    def twin(self, name: str) -> DeviceTwin:
        """What the device should run beside what it says of itself."""
        return self._transport.call("GET", address(_PATH, name, "twin"), DeviceTwin)

    def revoke(self, name: str) -> Device:
        """Refuse the device's credentials for ever; its record stays."""
        return self._transport.call("POST", address(_PATH, name, "revoke"), Device)

    def certificates(self, name: str, limit: int = PAGE_ITEMS, after: str | None = None) -> Page[DeviceCertificate]:
        """The device's certificates for the broker, newest first; empty for one that logs in otherwise."""
        query: Query = {"limit": limit, "after": after}
        return self._transport.call("GET", address(_PATH, name, "certificates"), Page[DeviceCertificate], query=query)

    def iterate_certificates(self, name: str) -> Iterator[DeviceCertificate]:
        """All of them, read page by page."""
        return walk(lambda after: self.certificates(name, WALK_ITEMS, after))

    def revoke_certificate(self, name: str, serial: str) -> DeviceCertificate:
        """Refuse this one certificate from now on; the device asks for another. Revoking the device revokes all of them."""
        return self._transport.call("POST", address(_PATH, name, "certificates", serial, "revoke"), DeviceCertificate)

    def rotate_key(self, name: str) -> Device:
        """The device should fetch its next key; the one of before is good until it uses that.

        >>> _ = client.devices.enroll("mill-1")
        >>> client.devices.rotate_key("mill-1").wanted_key_generation
        2
        """
        return self._transport.call("POST", address(_PATH, name, "rotate-key"), Device)

    def events(self, device: str | None = None, limit: int = PAGE_ITEMS, after: str | None = None) -> Page[FleetEvent]:
        """What happened to one device or to all, newest first."""
        query = {"device": device, "limit": limit, "after": after}
        return self._transport.call("GET", "/api/v1/fleet/events", Page[FleetEvent], query=query)

    def iterate_events(self, device: str | None = None) -> Iterator[FleetEvent]:
        """All of it that is kept, read page by page."""
        return walk(lambda after: self.events(device, WALK_ITEMS, after))

    def delete(self, name: str) -> None:
        """Revoke the device's credentials and forget it; its telemetry stays."""
        self._transport.delete(address(_PATH, name))
