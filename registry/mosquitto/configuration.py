"""What Mosquitto is told: its listeners, no anonymous users, and rules that keep each device to its own topics. Pure.

Devices come to the TLS listeners, with passwords to one and with certificates to the other; the hub and agents on this machine
come to the loopback one. Names and rules are the same for all. ``%u`` in a rule is the user name, which for a device is its
UUID (also in its certificate): no rule has to be written when one is enrolled.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    """Where: the loopback port of the hub, host and port for devices with passwords, and for devices with certificates."""

    loopback_port: int
    passwords: tuple[str, int] | None = None
    certificates: tuple[str, int] | None = None


def rules(topic_prefix: str, barred: Iterable[str] = ()) -> str:
    """The ACL file (mosquitto.conf(5), "acl_file"). ``barred`` users may do nothing, also over connections that they have."""
    own = DeviceTopics(topic_prefix, "%u")
    lines = [f"user {HUB_USER}"]
    lines += [f"topic read {topic}" for topic in DeviceTopics.uplink_filters(topic_prefix)]
    lines += [f"topic write {getattr(DeviceTopics(topic_prefix, '+'), leaf)}" for leaf in _DOWN]
    for user in sorted(barred):
        lines += ["", f"user {user}", "topic deny #"]
    lines += [""]
    lines += [f"pattern write {getattr(own, leaf)}" for leaf in _UP]
    lines += [f"pattern read {getattr(own, leaf)}" for leaf in _DOWN]
    return "\n".join(lines) + "\n"


def configuration(listening: Listening, folder: Path) -> str:
    """``mosquitto.conf`` for the files in ``folder``: ``passwords``, ``rules``, ``server.pem``, ``server.key``, and for
    certificates ``authority.pem`` and ``revoked.pem``."""
    text = f"""\
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
"""
    if listening.passwords is not None:
        text += _listener(listening.passwords, folder)
    if listening.certificates is not None:
        text += _listener(listening.certificates, folder)
        text += f"""\
cafile {folder / "authority.pem"}
crlfile {folder / "revoked.pem"}
require_certificate true
use_identity_as_username true
"""
    return text


def _listener(address: tuple[str, int], folder: Path) -> str:
    return f"""
listener {address[1]} {address[0]}
certfile {folder / "server.pem"}
keyfile {folder / "server.key"}
tls_version tlsv1.2
"""
