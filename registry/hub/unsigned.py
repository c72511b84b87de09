"""Desired states that wait for a signature: what is kept in ``twins.unsigned``, and whether it is still what is wanted. Pure.

First the column holds the payload; when somebody has brought its signature (``hedgerow edge sign --import``) the server puts
the whole envelope there, checked, and the hub publishes it if nothing else is wanted by then.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from hedgerow.contracts.document import decode
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.signed import SignedEnvelope
from hedgerow.errors import InvalidDocument


@dataclass(frozen=True)
class Waiting:
    """``envelope`` is there when it was signed meanwhile."""

    state: DesiredState
    payload: bytes
    envelope: bytes | None = None


def read_waiting(data: bytes | None) -> Waiting | None:
    """What ``twins.unsigned`` holds."""
    if data is None:
        return None
    try:
        payload = base64.b64decode(decode(data, SignedEnvelope).payload, validate=True)
    except InvalidDocument:
        return Waiting(decode(data, DesiredState), data)
    return Waiting(decode(payload, DesiredState), payload, data)
