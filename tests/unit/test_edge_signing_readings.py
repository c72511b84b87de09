"""What somebody reads who signs with a key that is kept elsewhere."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import AgentRelease, DesiredState, TelemetryPolicy
from hedgerow.contracts.signing import UnsignedState
from hedgerow.sdk.edge_signing import readings


def first_reading(**fields: Any) -> tuple[str, ...]:
    """Of a desired state for a device of which nothing is known."""
    at = datetime(2026, 11, 22, tzinfo=UTC)
    state = DesiredState(device_uuid="u", version=1, incarnation="i", issued_at=at, edge_deployment="base", modules={}, **fields)
    waiting = UnsignedState(device="porch", device_uuid="u", version=1, payload=base64.b64encode(encode(state)).decode())
    (group,) = readings([waiting], Ed25519PrivateKey.generate())
    return group.reading.lines[1:]


def test_a_first_state_that_wants_another_agent_can_be_read() -> None:
    assert first_reading() == ()
    assert first_reading(agent=AgentRelease(version="1.2")) == ('* agent: {"version":"1.2","wheel":null}',)
    assert first_reading(telemetry=TelemetryPolicy(time_to_live_s=7))[0].startswith("* telemetry: ")
    assert first_reading(key_generation=2) == ("* key_generation: 2",)
