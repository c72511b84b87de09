"""One device's connection to the broker: asyncio below, the packets of ``wire.py`` between, a :class:`SimDevice` above."""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
from urllib.parse import unquote, urlsplit

from hedgerow.backoff import Backoff
from hedgerow.contracts.broker_login import device_login
from hedgerow.errors import HedgerowError
from loadtests.fleet_sim import wire
from loadtests.fleet_sim.device import SimDevice
from loadtests.fleet_sim.tally import Tally

KEEPALIVE_S = 60
READY_TIMEOUT_S = 10.0
_DOWN = ("welcome", "acks", "desired")
_PORTS = {"mqtt": 1883, "mqtts": 8883}
# As an agent's (edge_agent/link/link_mqtt.py).
RETRY = Backoff(first_s=1.0, factor=2.0, cap_s=25.0, immediate_s=0.2)


class DeviceConnection(asyncio.Protocol):
    """Lives as long as one connection."""

    def __init__(self, device: SimDevice, client_id: str, username: str | None, password: str | None) -> None:
        self._device = device
        self._hello = wire.connect(client_id, KEEPALIVE_S, username, password)
        self._reader = wire.Reader()
        self._packet_id = 0
        self._ready = False
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()
        topics = device.topics
        self._up = {leaf: str(getattr(topics, leaf)).encode() for leaf in ("hello", "telemetry", "status")}
        self._down = {str(getattr(topics, leaf)): leaf for leaf in _DOWN}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._hello)
        self._loop.call_later(READY_TIMEOUT_S, self._cut_unless_ready)

    def data_received(self, data: bytes) -> None:
        try:
            for heard in self._reader.feed(data):
                self._take(heard)
        except (ValueError, IndexError, HedgerowError):
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._device.disconnected()
        if not self.ended.done():
            self.ended.set_result(None)

    def cut(self) -> None:
        """Like a cable: nothing is said to the broker."""
        if self._transport is not None:
            self._transport.abort()

    def _cut_unless_ready(self) -> None:
        if not self._ready:
            self.cut()

    def leave(self) -> None:
        """End politely."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.DISCONNECT)
            self._transport.close()

    def ping(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.PING)

    def _take(self, heard: wire.Heard) -> None:
        assert self._transport is not None
        match heard:
            case wire.Connected(code=0):
                self._transport.write(wire.subscribe(1, list(self._down)))
            case wire.Subscribed(granted=True):
                self._ready = True
                self._device.send = self._send
                self._device.connected(self._loop.time(), random.uniform(1.0, 30.0))
            case wire.Connected() | wire.Subscribed():
                self.cut()
            case wire.Published(topic, payload, packet_id):
                if packet_id:
                    self._transport.write(wire.puback(packet_id))
                self._device.heard(self._down.get(topic, ""), payload, self._loop.time())

    def _send(self, leaf: str, payload: bytes) -> None:
        if self._transport is not None:
            self._packet_id = self._packet_id % 65_535 + 1
            self._transport.write(wire.publish(self._packet_id, self._up[leaf], payload))


class Line:
    """Keeps one device connected until it is closed, as an agent's link does."""

    def __init__(self, device: SimDevice, tally: Tally) -> None:
        self.device, self._tally = device, tally
        self._url = urlsplit(device.config.broker_url)
        self._client_id = f"{device.config.device_uuid}-{secrets.token_hex(4)}"
        self._now: DeviceConnection | None = None
        self._closed = False

    async def stay_connected(self, start_in_s: float) -> None:
        failures = 0
        await asyncio.sleep(start_in_s)
        while not self._closed:
            try:
                self._now = await self._connect()
            except OSError:
                failures += 1
            else:
                await self._now.ended
                failures = 0 if self.device.made else failures + 1
            if not self._closed:
                self._tally.reconnects += 1
                await asyncio.sleep(RETRY.delay_s(failures, random.random))

    def cut(self) -> None:
        if self._now is not None:
            self._now.cut()

    def ping(self) -> None:
        if self._now is not None:
            self._now.ping()

    def close(self) -> None:
        self._closed = True
        if self._now is not None:
            self._now.leave()

    async def _connect(self) -> DeviceConnection:
        url = self._url
        username = unquote(url.username) if url.username else None
        password = unquote(url.password) if url.password else None
        config = self.device.config
        if config.broker_login == "device":
            own = device_login(config.device_uuid, config.key_bytes())
            username, password = own.user, own.password
        tls = ssl.create_default_context(cadata=config.broker_ca or None) if url.scheme == "mqtts" else None
        _, protocol = await asyncio.get_running_loop().create_connection(
            lambda: DeviceConnection(self.device, self._client_id, username, password),
            url.hostname or "localhost",
            url.port or _PORTS[url.scheme],
            ssl=tls,
        )
        return protocol
