"""What a device's report says about a revision that it was told to run. Pure.

Well: it has accepted the desired state by which it was told (or a later one of this hub), applied it, and none of its modules is
on trial, taken back, failed or unhealthy. Failed: it took a module back, or refused its desired state. What it cannot apply
now (a module that ends, an image that cannot be pulled) it tries again, so that is trouble first, and a failure when it lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import msgspec

from hedgerow.contracts.status import DesiredOutcome

APPLIED, BEING_APPLIED, FAILED = 200, 202, 500
# A module that starts again at once, a pull over a bad line: both are over by then, or they are no accident.
TROUBLE_LASTS = timedelta(seconds=60)
_ILL = frozenset({"failed", "unhealthy"})


class SeenModule(msgspec.Struct):
    """Of a ModuleStatus, what counts here."""

    state: str
    trial: bool = False
    rolled_back_from: str | None = None
    rollback_reason: str | None = None


class SeenReport(msgspec.Struct):
    """Of a StatusReport, what counts here: a group may be a hundred thousand of them."""

    desired: DesiredOutcome
    modules: dict[str, SeenModule] = {}


@dataclass(frozen=True)
class Health:
    """``none``: nothing can be said yet."""

    what: Literal["none", "well", "troubled", "failed"]
    reason: str = ""


def health_of(report: SeenReport | None, told: int, issued: int) -> Health:
    """``told`` is the version by which it was told, ``issued`` the newest that it was sent.

    A report on a version that this hub never issued is of another life of the database (before a restore).
    """
    if report is None or not 0 < told <= report.desired.version <= issued:
        return Health("none")
    for name, module in sorted(report.modules.items()):
        if module.rolled_back_from is not None:
            return Health("failed", f"{name} was taken back: {module.rollback_reason or 'it was not well'}"[:500])
    outcome = report.desired
    if 400 <= outcome.code < FAILED:
        return Health("failed", f"refused with {outcome.code}: {outcome.message}"[:500])
    if outcome.code >= FAILED:
        return Health("troubled", f"{outcome.code}: {outcome.message}"[:500])
    ill = [name for name, module in sorted(report.modules.items()) if module.state in _ILL]
    if ill:
        return Health("troubled", f"{ill[0]} is {report.modules[ill[0]].state}")
    if outcome.code == APPLIED and not any(module.trial for module in report.modules.values()):
        return Health("well")
    return Health("none")


def has_answered(report: SeenReport | None, told: int, issued: int) -> bool:
    """Whether it has done with a desired state, well or not."""
    return report is not None and 0 < told <= report.desired.version <= issued and report.desired.code != BEING_APPLIED


def read_seen(stored: str | None) -> SeenReport | None:
    """Out of the report as the store keeps it."""
    return None if stored is None else msgspec.json.decode(stored, type=SeenReport)
