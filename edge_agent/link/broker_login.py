"""How this device gets into its broker: as the URL says, with a name and password of its own, or with a certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.decisions import DecisionLog
from edge_agent.link.keys import BrokerLogins, DeviceKeys
from edge_agent.link.link_mqtt import MqttLink
from edge_agent.observing.metrics import Sample
from hedgerow.clock import Clock
from hedgerow.contracts.broker_login import Login, device_login
from hedgerow.contracts.device import DeviceConfig

if TYPE_CHECKING:
    from edge_agent.link.certificate import CertificateKeeper


class BrokerLogin:
    """``folder`` is the agent's state folder. Nothing here waits for a network."""

    def __init__(
        self, config: DeviceConfig, folder: Path, clock: Clock, decisions: DecisionLog, keys: DeviceKeys | None = None
    ) -> None:
        """``keys`` None: only that of device.toml."""
        self._config, self._clock, self._keys = config, clock, keys
        self._not_let_in: Callable[[str], object] = lambda reason: decisions.record(None, "login-refused", reason)
        self._keeper: CertificateKeeper | None = None
        if config.broker_login == "certificate":
            # Its part of the library costs memory that only these devices pay.
            from edge_agent.link.certificate import CertificateKeeper

            token, key = (None, None) if keys is None else (lambda: keys.pull_token, lambda: keys.key)
            self._keeper = CertificateKeeper(
                config, folder, clock, lambda action, reason: decisions.record(None, action, reason), token, key
            )

    def start(self) -> None:
        """Before the link is opened."""
        if self._keeper is not None:
            self._keeper.start()

    def close(self) -> None:
        if self._keeper is not None:
            self._keeper.close()

    def link(self) -> MqttLink:
        """A link that is not open yet."""
        config = self._config
        login: Login | BrokerLogins | None = None
        if config.broker_login == "device":
            first = device_login(config.device_uuid, config.key_bytes())
            login = first if self._keys is None else BrokerLogins(self._keys, self._not_let_in)
        return MqttLink(config.broker_url, f"hedgerow-{config.device_uuid}", login, config.broker_ca, self._keeper)

    def samples(self) -> list[Sample]:
        """For ``/metrics``."""
        ends = self._keeper.expires_at if self._keeper is not None else None
        if ends is None:
            return []
        return [Sample("hedgerow_agent_certificate_expiry_seconds", (ends - self._clock.now()).total_seconds())]
