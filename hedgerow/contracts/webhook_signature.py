"""The signature of a webhook delivery: ``t=UNIX,v1=HEX``, HMAC-SHA256 under the webhook's secret over ``UNIX.BODY``.

The time is signed with the body, so that a delivery that somebody recorded is refused later on.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime

HEADER_EVENT = "Hedgerow-Event"
HEADER_DELIVERY = "Hedgerow-Delivery"
HEADER_SIGNATURE = "Hedgerow-Signature"
TOLERANCE_S = 300.0
_PREFIX = "whsec_"
_DIGITS = 12


def new_secret() -> str:
    """``whsec_`` and 256 random bits."""
    return f"{_PREFIX}{secrets.token_urlsafe(32)}"


def sign(secret: str, body: bytes, now: datetime) -> str:
    """The value of the header ``Hedgerow-Signature``."""
    moment = str(int(now.timestamp()))
    return f"t={moment},v1={_digest(secret, moment, body)}"


def is_genuine(secret: str, header: str, body: bytes, now: datetime, tolerance_s: float = TOLERANCE_S) -> bool:
    """Whether ``body`` (the exact bytes) was signed with ``secret`` less than ``tolerance_s`` ago, by our clock."""
    fields = [part.strip().partition("=")[::2] for part in header.split(",")]
    moment = next((value for name, value in fields if name == "t"), "")
    if not (moment.isascii() and moment.isdigit() and len(moment) <= _DIGITS):
        return False
    if abs(now.timestamp() - int(moment)) > tolerance_s:
        return False
    expected = _digest(secret, moment, body).encode()
    found = [value.encode() for name, value in fields if name == "v1"]
    # No shortcut at the first that fits.
    return sum(hmac.compare_digest(expected, value) for value in found) > 0


def _digest(secret: str, moment: str, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
