"""What the controller sees of deployments, told as events: ``deployment.STATE`` and ``deployment.removed``."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from hedgerow.contracts.service import Deployment
from registry.store import events


def tell(connection: Connection, seen: Deployment, verb: str, now: datetime, *, reason: str = "") -> None:
    """Record it in the transaction that writes it."""
    image = f"{seen.image.name}:{seen.image.version}"
    events.record(
        connection,
        kind=f"deployment.{verb}",
        subject=f"deployment/{seen.endpoint}/{seen.name}",
        actor=events.system("controller"),
        now=now,
        details={"image": image, "revision": str(seen.revision)} | ({"reason": reason[:1000]} if reason else {}),
    )
