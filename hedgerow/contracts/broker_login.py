"""Logins at a broker that asks for them, derived from keys that both sides have: nothing more to store, to send or to lose.

The password says nothing about the key it comes from (HMAC-SHA256), and with it alone nothing can be signed or sealed:
who steals it can connect, and touch that device's topics.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256

HUB_USER = "hub"


@dataclass(frozen=True)
class Login:
    """User name and password."""

    user: str
    password: str


def device_login(device_uuid: str, key: bytes) -> Login:
    """Of a device with this key (``contracts/seal.py``): the name is its UUID, which the broker's rules speak of."""
    return Login(device_uuid, hmac.new(key, b"hedgerow-broker-login-v1|" + device_uuid.encode(), sha256).hexdigest())


def hub_login(device_master: bytes) -> Login:
    """Of the workspace's hub."""
    return Login(HUB_USER, hmac.new(device_master, b"hedgerow-broker-hub-v1", sha256).hexdigest())
