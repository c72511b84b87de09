"""Takes a port; runs rumqttd (from the iotcore wheel) in this process, with memory that is bounded.

rumqttd keeps a log per subscription filter in memory and drops its oldest segment when it is full. Its defaults keep up
to 1 GB per filter; ours keep a few MB of telemetry and some KB of everything else. A subscriber that falls further
behind loses messages, which is fine: no promise rests on a broker's memory, devices send again.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Protocol, cast

from hedgerow.contracts.names import MAX_MQTT_PAYLOAD_BYTES
from hedgerow.errors import MissingExtra
from registry.broker.errors import NotLoopback

# Room for topic and headers beside the largest payload.
MAX_PACKET_BYTES = MAX_MQTT_PAYLOAD_BYTES + 4096
_CONFIGURATION = """\
# Written by the broker at each start; changes are lost.
id = 0

[router]
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 65536
max_segment_count = 4

[router.custom_segment."hedgerow/+/v1/devices/+/telemetry"]
max_segment_size = 1048576
max_segment_count = 8

[v4.1]
name = "loopback"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = {max_packet_bytes}
max_inflight_count = 100
dynamic_filters = true
"""


class Native(Protocol):
    """The broker object of the extension module."""

    def check_ports(self) -> None:
        """Raises OSError when the port is taken."""
        ...

    def run_forever(self) -> None:
        """Listen; returns only by an OSError."""
        ...


def check_loopback(host: str) -> str:
    """Raises NotLoopback for anything but a loopback address."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise NotLoopback(host=host) from None
    if not address.is_loopback:
        raise NotLoopback(host=host)
    return f"[{address}]" if address.version == 6 else str(address)


def configuration(host: str, port: int) -> str:
    """The text of rumqttd's configuration file; ``host`` as :func:`check_loopback` returns it."""
    return _CONFIGURATION.format(host=host, port=port, max_packet_bytes=MAX_PACKET_BYTES)


def native_broker(configuration_file: Path) -> Native:
    """Raises MissingExtra when iotcore is not installed."""
    # Every packet passes rumqttd's tracing spans, which arrive here as ERROR records.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    # The extension alone: `import iotcore` brings asyncio and subprocess with it, as much memory again as the broker.
    package = PathFinder.find_spec("iotcore")
    folder = Path(package.origin).parent if package and package.origin else None
    library = next((path for suffix in EXTENSION_SUFFIXES if folder and (path := folder / f"iotcore{suffix}").is_file()), None)
    spec = library and spec_from_file_location("iotcore.iotcore", library)
    if not spec or spec.loader is None:
        raise MissingExtra(what="The embedded broker", module="iotcore", extra="server")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(Native, module.IotCoreBroker(config_path=str(configuration_file)))


def listening_port() -> int | None:
    """The port of this process's only listening TCP socket; with port 0 nobody else knows it."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            copy = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue  # closed meanwhile, or no socket
        with copy:
            if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return int(copy.getsockname()[1])
    return None
