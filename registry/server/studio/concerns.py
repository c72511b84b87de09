"""What on a fleet needs a person: devices that fell silent, modules that do not run as wanted, and why. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from hedgerow.contracts.api_fleet import Device
from hedgerow.contracts.status import Decision, ModuleStatus
from registry.store import fleet
from registry.store.fleet import Presence, Wanted

# Reports are read one by one, and a page must not take longer with every device: above this the metrics tell.
SCANNED = 2000
SHOWN = 12
_PAGE = 500
_WELL = 200
_ON_ITS_WAY = 202
_BAD_STATES = ("unhealthy", "backoff", "failed")


@dataclass(frozen=True)
class Concern:
    """One device with what is wrong; ``decision`` is the last thing that its agent decided about it."""

    device: str
    what: str
    state: str
    reason: str
    since: datetime | None
    decision: Decision | None = None


@dataclass(frozen=True)
class FleetHealth:
    """``counts`` by presence of all devices; ``concerns`` the worst first; ``scanned`` devices were looked at for them."""

    counts: dict[Presence, int]
    concerns: list[Concern]
    more: int
    scanned: int


def fleet_health(connection: Connection, now: datetime) -> FleetHealth:
    """One look at the fleet."""
    found: list[Concern] = []
    scanned, after = 0, None
    while scanned < SCANNED:
        page, after = fleet.page(connection, _PAGE, after, now, Wanted())
        scanned += len(page)
        for device in page:
            found += _concerns_of(device)
        if after is None:
            break
    # What is broken comes before what is away; of the same the newest first.
    found.sort(key=lambda one: (one.state == "offline", -(one.since.timestamp() if one.since else 0.0)))
    return FleetHealth(fleet.presence_counts(connection, now), found[:SHOWN], max(0, len(found) - SHOWN), scanned)


def _concerns_of(device: Device) -> list[Concern]:
    if device.revoked_at is not None:
        return []
    if not device.online:
        reason = "it has not been heard yet" if device.seen_at is None else "it fell silent"
        return [Concern(device.name, "device", "offline", reason, device.seen_at)]
    report = device.reported
    if report is None:
        return []
    found = [
        Concern(device.name, name, state, module.reason, module.exited_at or module.started_at, _about(device, name))
        for name, module in sorted(report.modules.items())
        if (state := _bad_state(module)) is not None
    ]
    if not found and report.desired.code not in (_WELL, _ON_ITS_WAY):
        reason = f"{report.desired.code}: {report.desired.message}"
        found.append(Concern(device.name, "desired state", "refused", reason, report.reported_at, _about(device, None)))
    return found


def _bad_state(module: ModuleStatus) -> str | None:
    """``rolled back`` is a module that runs well, but not in the version that is wanted."""
    if module.state in _BAD_STATES:
        return module.state
    return None if module.rollback_reason is None else "rolled back"


def _about(device: Device, module: str | None) -> Decision | None:
    decisions = device.reported.decisions if device.reported else []
    return next((decision for decision in reversed(decisions) if decision.module == module), None)
