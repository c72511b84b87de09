"""What Mosquitto is told: two listeners, no anonymous users, and rules that keep each device to its own topics. Pure.

Devices come to the TLS listener, the hub and agents on this machine to the loopback one; names and rules are the same for
both. ``%u`` in a rule is the user name, which for a device is its UUID: no rule has to be written when one is enrolled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.broker_login import HUB_USER
from hedgerow.contracts.names import MAX_MQTT_PAYLOAD_BYTES, UPLINK_LEAVES, DeviceTopics

_UP = UPLINK_LEAVES
_DOWN = ("welcome", "desired", "acks", "methods", "twin_acks")
# For a device that is slow to read; what is dropped then is asked for again.
_QUEUED_MESSAGES, _QUEUED_BYTES = 1000, 8 * 1024 * 1024


@dataclass(frozen=True)
class Listening:
    """Where: the loopback port of the hub, and host and port for devices."""

    loopback_port: int
    host: str
    port: int


def rules(topic_prefix: str) -> str:
    """The ACL file (mosquitto.conf(5), "acl_file")."""
    own = DeviceTopics(topic_prefix, "%u")
    lines = [f"user {HUB_USER}"]
    lines += [f"topic read {topic}" for topic in DeviceTopics.uplink_filters(topic_prefix)]
    lines += [f"topic write {getattr(DeviceTopics(topic_prefix, '+'), leaf)}" for leaf in _DOWN]
    lines += [""]
    lines += [f"pattern write {getattr(own, leaf)}" for leaf in _UP]
    lines += [f"pattern read {getattr(own, leaf)}" for leaf in _DOWN]
    return "\n".join(lines) + "\n"


def configuration(listening: Listening, folder: Path) -> str:
    """``mosquitto.conf`` for the files ``passwords``, ``rules``, ``server.pem`` and ``server.key`` in ``folder``."""
    return f"""\
# Written by the broker's process at each start; changes are lost.
per_listener_settings false
allow_anonymous false
password_file {folder / "passwords"}
acl_file {folder / "rules"}
persistence false
log_dest stdout
log_type error
log_type warning
message_size_limit {MAX_MQTT_PAYLOAD_BYTES}
max_queued_messages {_QUEUED_MESSAGES}
max_queued_bytes {_QUEUED_BYTES}

listener {listening.loopback_port} 127.0.0.1

listener {listening.port} {listening.host}
certfile {folder / "server.pem"}
keyfile {folder / "server.key"}
tls_version tlsv1.2
"""
