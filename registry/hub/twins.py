"""Reported properties of modules: taken in their order or not at all, answered with what the hub has after the commit.

    report ──▶ applied (pure) ──▶ row of the module, while the device's row is held ──▶ commit ──▶ TwinAck

A patch is applied only to the version it was made from; everything else changes nothing, and the ack says where the hub stands.
Several hubs at once take turns by the lock on the device's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.merge_patch import json_text, merge_patch
from hedgerow.contracts.plain_values import UnboundedValue, check_bounds
from hedgerow.contracts.twins import MAX_REPORTED_BYTES, TwinAck, TwinReport
from registry.hub.desired import read_envelope
from registry.hub.notes import Notes
from registry.store import module_twins, twins
from registry.store.database import Database
from registry.store.module_twins import Key


@dataclass(frozen=True)
class Stored:
    """What the hub has of one module."""

    epoch: str
    version: int
    reported: dict[str, Any]


@dataclass(frozen=True)
class Impossible:
    """A report that no honest device makes."""

    problem: str


def applied(stored: Stored | None, report: TwinReport) -> Stored | Impossible | None:
    """What the hub has after ``report``; None when that is what it had before."""
    same_epoch = stored is not None and stored.epoch == report.epoch
    if stored is not None and same_epoch and report.version <= stored.version:
        return None
    if report.base_version is None:
        below: dict[str, Any] = {}
    elif stored is not None and same_epoch and stored.version == report.base_version:
        below = stored.reported
    else:
        return None
    after = merge_patch(below, report.reported)
    size = len(json_text(after))
    if size > MAX_REPORTED_BYTES:
        return Impossible(f"module {report.module} would report {size} bytes, the limit is {MAX_REPORTED_BYTES}")
    try:
        check_bounds(after)
    except UnboundedValue as problem:
        return Impossible(f"what module {report.module} reports cannot be kept: {problem}")
    return Stored(report.epoch, report.version, after)


def ack_of(report: TwinReport, stored: Stored | None) -> TwinAck:
    """Where the hub stands, for the device that sent ``report``."""
    found = stored if stored is not None and stored.epoch == report.epoch else Stored(report.epoch, 0, {})
    return TwinAck(
        device_uuid=report.device_uuid,
        session=report.session,
        epoch=report.epoch,
        module=report.module,
        version=found.version,
        digest=digest_of(json_text(found.reported)),
    )


class ModuleTwins:
    """Takes what devices report of their modules. One thread at a time."""

    def __init__(self, database: Database, notes: Notes) -> None:
        self._database = database
        self._notes = notes

    def take(self, reports: Sequence[TwinReport], now: datetime, now_s: float) -> list[TwinAck]:
        """Acks of reports (of any device) in their order. Raises DatabaseUnavailable with nothing acknowledged.

        A report of a session that is over by now, or of a module that its device should not have, gets none.
        """
        if not reports:
            return []
        with self._database.write() as connection:
            known = twins.known_devices(connection, {report.device_uuid for report in reports}, lock=True)
            spoken = [
                report
                for report in reports
                if (device := known.get(report.device_uuid)) is not None
                and not device.revoked
                and device.session is not None
                and device.session.session == report.session
            ]
            return self._settle(connection, spoken, {uuid: device.name for uuid, device in known.items()}, now, now_s)

    def _settle(
        self, connection: Connection, reports: Sequence[TwinReport], names: dict[str, str], now: datetime, now_s: float
    ) -> list[TwinAck]:
        rows = module_twins.reported_of(connection, {(report.device_uuid, report.module) for report in reports})
        held: dict[Key, Stored] = {
            key: Stored(row.epoch, row.reported_version, row.reported) for key, row in rows.items() if row.epoch
        }
        changed: dict[Key, Stored] = {}
        acks: list[TwinAck] = []
        strangers = _strangers(connection, {(report.device_uuid, report.module) for report in reports} - held.keys())
        for report in reports:
            key = (report.device_uuid, report.module)
            if key in strangers:
                self._notes.count("foreign-twin", f"Module {report.module} of no desired state reports", now_s)
                continue
            after = applied(held.get(key), report)
            if isinstance(after, Impossible):
                self._notes.event("malformed", report.device_uuid, names[report.device_uuid], after.problem, now_s)
                continue
            if after is not None:
                held[key] = changed[key] = after
            acks.append(ack_of(report, held.get(key)))
        for key, stored in changed.items():
            module_twins.put_reported(
                connection, key, epoch=stored.epoch, version=stored.version, reported=stored.reported, now=now
            )
        self._notes.counts["twin-reports"] += len(changed)
        return acks


def _strangers(connection: Connection, keys: set[Key]) -> set[Key]:
    """Those of ``keys`` that are no module of their device's desired state: it goes before its module does."""
    envelopes = twins.desired_envelopes(connection, {uuid for uuid, _ in keys}) if keys else {}
    modules = {uuid: read_envelope(envelope).modules.keys() for uuid, envelope in envelopes.items()}
    return {(uuid, module) for uuid, module in keys if module not in modules.get(uuid, ())}
