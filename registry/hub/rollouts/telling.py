"""Writes down by which desired state each device was told of a rollout, in the transaction that issues it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from hedgerow.contracts.rollout import DeviceOutcome, Rollout
from registry.store import rollout_devices, rollouts
from registry.store.rollout_devices import NOTHING_TO_TELL, UNTOLD, Member, Outcome


@dataclass(frozen=True)
class Settled:
    """A device whose desired state was looked at: its ``version`` now (0: it never had one), ``issued`` just now or before.

    ``stuck``: why it cannot get what it should.
    """

    version: int
    issued: bool = False
    stuck: str = ""


def write_told(connection: Connection, settled: Mapping[str, Settled], now: datetime) -> set[str]:
    """For every open rollout that one of these devices belongs to. Returns those that were told of one."""
    told: set[str] = set()
    for rollout in rollouts.in_states(connection, rollouts.OPEN):
        versions: dict[str, int] = {}
        outcomes: list[Outcome] = []
        for member in rollout_devices.members(connection, rollout.id, settled):
            found = settled[member.uuid]
            if member.state == "waiting":
                continue
            if found.stuck:
                outcomes += _stuck(rollout, member, found.stuck, now)
            elif member.desired_version == UNTOLD and found.version == 0:
                versions[member.uuid] = NOTHING_TO_TELL
                outcomes.append(Outcome(rollout.id, member.uuid, member.state, _well(rollout, member), "nothing to change", now))
            elif member.desired_version == UNTOLD or (found.issued and member.state == "released"):
                # Issued again before it answered: after a restore, older versions may be those of a life that is lost.
                versions[member.uuid] = found.version
        rollout_devices.put_versions(connection, rollout.id, versions)
        rollout_devices.put_outcomes(connection, outcomes)
        told |= versions.keys()
    return told


def _well(rollout: Rollout, member: Member) -> DeviceOutcome:
    return member.state if rollout.state == "reversing" else "succeeded"


def _stuck(rollout: Rollout, member: Member, reason: str, now: datetime) -> list[Outcome]:
    if rollout.state == "reversing" or member.state != "released":
        return []
    return [Outcome(rollout.id, member.uuid, "released", "failed", reason[:500], now)]
