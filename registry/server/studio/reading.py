"""What the overview shows, gathered from the store in one look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Table, func, select

from hedgerow.contracts.api_fleet import Device
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.lineage import Lineage
from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.rollout import Rollout
from hedgerow.contracts.service import Endpoint
from hedgerow.contracts.work import Activity, Run
from registry.server.context import ServerContext
from registry.store import activities, fleet, images, lineage, models, rollouts, runs, services, telemetry
from registry.store import tables as stored
from registry.store.versions import count_there

SHOWN = 6
# Enough for a page; whoever wants all of it asks the command line.
_MOST_THINGS = 60
SHOWN_TELEMETRY = 8


@dataclass(frozen=True)
class Message:
    """One telemetry message with the name of its device."""

    device: str
    module: str
    time_ms: int
    body: str


@dataclass(frozen=True)
class Overview:
    """The newest of everything, and how many there are."""

    counts: dict[str, int]
    endpoints: list[Endpoint]
    devices: list[Device]
    models: list[ModelManifest]
    images: list[ImageRecord]
    runs: list[Run]
    activities: list[Activity]
    messages: list[Message]


def overview(here: ServerContext) -> Overview:
    """One consistent look at the records, one at the series."""
    with here.database.read() as connection:
        names = fleet.names_by_uuid(connection)
        seen = Overview(
            counts=_counts(connection),
            endpoints=services.newest(connection, SHOWN)[0],
            devices=fleet.page(connection, SHOWN, None, here.clock.now())[0],
            models=models.newest(connection, SHOWN)[0],
            images=images.newest(connection, SHOWN)[0],
            runs=runs.newest(connection, SHOWN)[0],
            activities=activities.newest(connection, SHOWN),
            messages=[],
        )
    with here.database.read_series() as connection:
        rows = telemetry.newest(connection, SHOWN_TELEMETRY)
    seen.messages.extend(messages_of(rows, names))
    return seen


def rollouts_of_interest(connection: Connection) -> list[Rollout]:
    """The newest of each edge deployment, if it goes on, or did not go well; those that need somebody first."""
    order = ["paused", "reversing", "running", "reversed"]
    found = [one for one in rollouts.newest_of_each(connection).values() if one.state in order]
    return sorted(found, key=lambda one: (order.index(one.state), one.edge_deployment))[:_MOST_THINGS]


def lineage_of(connection: Connection, of: str, now: datetime) -> tuple[Lineage, Lineage]:
    """What it was made from, and what was made from it."""
    above = lineage.walk(connection, of, direction="up", limit=_MOST_THINGS, now=now)
    return above, lineage.walk(connection, of, direction="down", limit=_MOST_THINGS, now=now)


def messages_of(rows: Sequence[Row[Any]], names: dict[str, str]) -> list[Message]:
    """Rows of the series database with names instead of uuids, newest first."""
    return [
        Message(names.get(row.device_uuid, row.device_uuid), row.module, row.time_ms, row.body)
        for row in sorted(rows, key=lambda row: row.id, reverse=True)
    ]


def _counts(connection: Connection) -> dict[str, int]:
    counted: dict[str, Table] = {
        "runs": stored.runs,
        "models": stored.model_versions,
        "images": stored.image_versions,
        "services": stored.endpoints,
        "devices": stored.devices,
    }
    return {name: _count(connection, table) for name, table in counted.items()}


def _count(connection: Connection, table: Table) -> int:
    # What an owner deleted by force is there for lineage only.
    if "deleted_at" in table.c:
        return count_there(connection, table)
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
