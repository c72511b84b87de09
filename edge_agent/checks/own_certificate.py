"""The certificate by which this device logs in at the broker, where it has one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from edge_agent.checks.check import Check
from edge_agent.device_config import others_can_read
from hedgerow.contracts.device import DeviceConfig

_NAME = "certificate of this device"
_ASK = "Start the agent, and see that the registry is reachable: it asks for another one by itself (hedgerow agent events)."


def own_certificate(config: DeviceConfig, folder: Path, now: datetime) -> Iterator[Check]:
    """Nothing for a device that logs in with a password."""
    if config.broker_login != "certificate":
        return
    try:
        # Only here: without the extra `edge` the other checks still work.
        from edge_agent.link.certificate import FILE_NAME, read_certificate
    except ImportError:
        return  # among the libraries already
    path = folder / FILE_NAME
    try:
        held = read_certificate(path.read_bytes(), config.device_uuid)
    except FileNotFoundError:
        yield Check(_NAME, ok=True, warning=True, detail="there is none yet", remedy=_ASK)
        return
    except (OSError, ValueError) as problem:
        yield Check(_NAME, ok=False, detail=f"{path.name}: {problem}", remedy=_ASK)
        return
    if others_can_read(path):
        remedy = f"Run: chmod 600 {path}"
        yield Check(_NAME, ok=False, detail=f"other users can read {path}, which holds its key", remedy=remedy)
        return
    left_s, ends = (held.validity.ends - now).total_seconds(), f"{held.validity.ends:%Y-%m-%d %H:%M:%S} UTC"
    if left_s <= 0:
        yield Check(_NAME, ok=False, detail=f"it ended at {ends}", remedy=_ASK)
        return
    life_s = (held.validity.ends - held.validity.begins).total_seconds()
    late = left_s < (life_s - held.validity.renewed_after_s) / 2
    yield Check(_NAME, ok=True, warning=late, detail=f"good until {ends}", remedy=_ASK if late else "")
