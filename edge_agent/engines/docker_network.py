"""The network of a device's containers: modules reach each other by module name, and by the name they have elsewhere.

One bridge network for each device, made when the first module needs it and taken away with the last one. A machine that has no
room for another network (Docker's address pools are finite) costs the modules their names, never their start.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker.errors

from hedgerow.contracts.names import LABEL_OWNER

log = logging.getLogger(__name__)


class DeviceNetwork:
    """``label`` is the one that all containers of the device have."""

    def __init__(self, device_uuid: str, label: str) -> None:
        self.name = f"hedgerow-{device_uuid[:8]}"
        self._owner = device_uuid
        self._label = label
        self._lock = threading.Lock()
        self._starting = 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While a container is being made or started the network is not taken away."""
        with self._lock:
            self._starting += 1
        try:
            yield
        finally:
            with self._lock:
                self._starting -= 1

    def ensure(self, client: Any) -> str | None:  # noqa: ANN401 - the SDK is untyped
        """Name of the network, made when it is not there; None when it cannot be had. Only while ``in_use``."""
        with self._lock:
            try:
                if not self._found(client):
                    client.create_network(self.name, driver="bridge", labels={LABEL_OWNER: self._owner}, check_duplicate=True)
            except docker.errors.APIError as problem:
                log.warning("modules cannot reach each other by name, there is no network %s: %s", self.name, problem.explanation)
                return None
            return self.name

    def remove_when_unused(self, client: Any) -> None:  # noqa: ANN401 - the SDK is untyped
        """Take the network away when no container of this device is left."""
        with self._lock:
            if self._starting or client.containers(all=True, filters={"label": [self._label]}):
                return
            for network in self._found(client):
                try:
                    client.remove_network(network["Id"])
                except docker.errors.APIError as problem:
                    log.debug("network %s stays: %s", self.name, problem.explanation)

    def _found(self, client: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - the SDK is untyped
        # Docker's filter finds parts of names as well.
        filters = {"label": [f"{LABEL_OWNER}={self._owner}"]}
        return [network for network in client.networks(names=[self.name], filters=filters) if network["Name"] == self.name]
