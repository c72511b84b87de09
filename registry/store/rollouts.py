"""Rollouts of edge deployments: one row each with its policy and the state of its groups.

Rows of their devices are in ``rollout_devices.py``. Whoever changes a rollout locks its row first; what the hub decides, it
writes under its lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, delete, func, select, update

from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.rollout import Rollout, RolloutGroupStatus, RolloutPolicy, RolloutState
from registry.errors import InvalidPage
from registry.store.tables import devices, edge_rollout_devices, edge_rollouts
from registry.store.time_text import from_text, maybe_from_text, to_text

# The hub looks after these.
OPEN: tuple[RolloutState, ...] = ("running", "paused", "reversing")
# While a rollout is in one of these, some devices have the new revision and some do not.
UNDER_WAY: tuple[RolloutState, ...] = ("running", "paused")
# Of one edge deployment; their devices' rows go with the next rollout.
_KEPT = 50
_LARGEST = 2**31 - 1


def rollout_id(edge_deployment: str, revision: int) -> str:
    """There is one rollout of a revision at most, so its name says which (``line:3``)."""
    return f"{edge_deployment}:{revision}"


def follow(connection: Connection, before: EdgeDeployment | None, stored: EdgeDeployment, now: datetime) -> None:
    """``stored`` took the place of ``before``: what was rolled out until now ends, and ``stored`` begins, if it has a policy.

    A change that no device would notice (of labels, of the policy itself) is not rolled out, unless it replaces a rollout.
    """
    replaced = newest(connection, stored.name, lock=True)
    replaces = replaced is not None and replaced.state in UNDER_WAY
    if replaced is not None and replaced.state in OPEN:
        reason = f"revision {stored.revision} took its place"
        write(connection, msgspec.structs.replace(replaced, state="superseded", reason=reason, ended_at=now))
    if stored.rollout is None or not begins(before, stored, replaced):
        return
    # Devices go back to what the whole fleet had last, not to a revision that only some of them ever saw.
    base = replaced.previous_revision if replaced is not None and replaces else (before.revision if before else None)
    connection.execute(
        edge_rollouts.insert().values(
            id=rollout_id(stored.name, stored.revision),
            edge_deployment=stored.name,
            revision=stored.revision,
            previous_revision=base,
            policy=encode(stored.rollout).decode(),
            state="running",
            created_at=to_text(now),
        )
    )
    oldest = select(edge_rollouts.c.id).where(
        edge_rollouts.c.edge_deployment == stored.name, edge_rollouts.c.revision <= stored.revision - _KEPT
    )
    connection.execute(delete(edge_rollouts).where(edge_rollouts.c.id.in_(oldest)))


def begins(before: EdgeDeployment | None, stored: EdgeDeployment, newest: Rollout | None) -> bool:
    """Whether ``stored`` in the place of ``before`` is rolled out, if ``newest`` was the deployment's rollout until now."""
    if stored.rollout is None:
        return False
    return before is None or _differ(before, stored) or (newest is not None and newest.state in UNDER_WAY)


def newest(connection: Connection, name: str, *, lock: bool = False) -> Rollout | None:
    """The rollout of the highest revision that had one, with today's numbers."""
    query = select(edge_rollouts).where(edge_rollouts.c.edge_deployment == name).order_by(edge_rollouts.c.revision.desc())
    found = _read(connection, query.limit(1), lock=lock)
    return found[0] if found else None


def find(connection: Connection, rollout_id: str, *, lock: bool = False) -> Rollout | None:
    """With today's numbers; None when it is gone with its deployment."""
    found = _read(connection, select(edge_rollouts).where(edge_rollouts.c.id == rollout_id), lock=lock)
    return found[0] if found else None


def in_states(connection: Connection, states: Iterable[RolloutState]) -> list[Rollout]:
    """All rollouts in these states, without numbers of devices."""
    query = select(edge_rollouts).where(edge_rollouts.c.state.in_(sorted(states))).order_by(edge_rollouts.c.id)
    return [_rollout(row) for row in connection.execute(query)]


def newest_of_each(connection: Connection, names: Iterable[str] | None = None) -> dict[str, Rollout]:
    """The newest rollout of each edge deployment that had one (of ``names``), with today's numbers."""
    latest = select(edge_rollouts.c.edge_deployment, func.max(edge_rollouts.c.revision).label("revision"))
    if names is not None:
        latest = latest.where(edge_rollouts.c.edge_deployment.in_(list(names)))
    found = latest.group_by(edge_rollouts.c.edge_deployment).subquery()
    query = select(edge_rollouts).join(
        found,
        (edge_rollouts.c.edge_deployment == found.c.edge_deployment) & (edge_rollouts.c.revision == found.c.revision),
    )
    return {one.edge_deployment: one for one in _read(connection, query)}


def page(connection: Connection, name: str, limit: int, after: str | None) -> tuple[list[Rollout], str | None]:
    """Newest first; ``after`` is a revision."""
    query = select(edge_rollouts).where(edge_rollouts.c.edge_deployment == name)
    if after is not None:
        if not (after.isascii() and after.isdigit() and len(after) <= 10 and int(after) <= _LARGEST):
            raise InvalidPage(value=after[:80])
        query = query.where(edge_rollouts.c.revision < int(after))
    found = _read(connection, query.order_by(edge_rollouts.c.revision.desc()).limit(limit + 1))
    return found[:limit], str(found[limit - 1].revision) if len(found) > limit else None


def replaced_by(connection: Connection, rollout: Rollout) -> Rollout | None:
    """The rollout whose devices' rows say what devices have that ``rollout`` did not tell yet; None: all have the same."""
    base = edge_rollouts.c.previous_revision
    query = select(edge_rollouts).where(
        edge_rollouts.c.edge_deployment == rollout.edge_deployment,
        edge_rollouts.c.revision < rollout.revision,
        edge_rollouts.c.state == "superseded",
        edge_rollouts.c.groups != "[]",
        base.is_(None) if rollout.previous_revision is None else base == rollout.previous_revision,
    )
    row = connection.execute(query.order_by(edge_rollouts.c.revision.desc()).limit(1)).one_or_none()
    return None if row is None else _rollout(row)


def write(connection: Connection, rollout: Rollout) -> None:
    """Store state, groups and end of a rollout whose row the caller locked."""
    connection.execute(
        update(edge_rollouts)
        .where(edge_rollouts.c.id == rollout.id)
        .values(
            state=rollout.state,
            reason=rollout.reason[:2000],
            groups=msgspec.json.encode(rollout.groups).decode(),
            ended_at=None if rollout.ended_at is None else to_text(rollout.ended_at),
        )
    )


def _read(connection: Connection, query: Select[Any], *, lock: bool = False) -> list[Rollout]:
    rows = connection.execute(query.with_for_update(of=edge_rollouts) if lock else query).all()
    return counted(connection, [_rollout(row) for row in rows])


def counted(connection: Connection, found: Sequence[Rollout]) -> list[Rollout]:
    """With the numbers of devices as they are; those that are over keep the ones of their end."""
    ids = [one.id for one in found if one.state in OPEN]
    if not ids:
        return list(found)
    state, number = edge_rollout_devices.c.state, edge_rollout_devices.c.group_number
    query = (
        select(edge_rollout_devices.c.rollout_id, number, state, func.count().label("devices"))
        .join(devices, devices.c.uuid == edge_rollout_devices.c.device_uuid)
        .where(edge_rollout_devices.c.rollout_id.in_(ids), devices.c.revoked_at.is_(None))
        .group_by(edge_rollout_devices.c.rollout_id, number, state)
    )
    numbers: dict[tuple[str, int], dict[str, int]] = {}
    for row in connection.execute(query):
        numbers.setdefault((row.rollout_id, row.group_number), {})[row.state] = row.devices
    return [one if one.state not in OPEN else _with_numbers(one, numbers) for one in found]


def _with_numbers(rollout: Rollout, numbers: dict[tuple[str, int], dict[str, int]]) -> Rollout:
    groups = []
    for number, group in enumerate(rollout.groups):
        of = numbers.get((rollout.id, number), {})
        groups.append(
            msgspec.structs.replace(
                group,
                devices=sum(of.values()),
                released=of.get("released", 0),
                succeeded=of.get("succeeded", 0),
                failed=of.get("failed", 0) + of.get("timed-out", 0),
            )
        )
    return msgspec.structs.replace(rollout, groups=groups)


def _rollout(row: Row[Any]) -> Rollout:
    return Rollout(
        id=row.id,
        edge_deployment=row.edge_deployment,
        revision=row.revision,
        previous_revision=row.previous_revision,
        policy=msgspec.json.decode(row.policy, type=RolloutPolicy),
        state=row.state,
        reason=row.reason,
        groups=msgspec.json.decode(row.groups, type=list[RolloutGroupStatus]),
        created_at=from_text(row.created_at),
        ended_at=maybe_from_text(row.ended_at),
    )


def _differ(before: EdgeDeployment, stored: EdgeDeployment) -> bool:
    """Whether a device could notice."""
    blank: dict[str, Any] = {"revision": 0, "created_at": None, "rollout": None, "labels": {}}
    return msgspec.structs.replace(before, **blank) != msgspec.structs.replace(stored, **blank)
