"""Mosquitto's password file: one line ``NAME:$7$ROUNDS$SALT$HASH`` (PBKDF2 with SHA-512, as mosquitto_passwd does). Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from hedgerow.contracts.broker_login import Login

# What mosquitto_passwd takes. Our passwords are 256 random bits: rounds would protect a weaker one.
ROUNDS = 101
SALT_BYTES = 12
_HASH_BYTES = 64


def line(login: Login, salt: Callable[[int], bytes]) -> str:
    """``salt`` gives so many random bytes."""
    random = salt(SALT_BYTES)
    hashed = hashlib.pbkdf2_hmac("sha512", login.password.encode(), random, ROUNDS, _HASH_BYTES)
    return f"{login.user}:$7${ROUNDS}${base64.b64encode(random).decode()}${base64.b64encode(hashed).decode()}"
