"""Activities: long work that survives its worker. The controller works them off, the server shows them.

Life-cycle::

    queued ──claim──▶ running ──finish──▶ succeeded | failed | cancelled
      │                  │ └─ worker lost (see after_crash) ──▶ queued again, or failed with the reason
      └──cancel──▶ cancelled

Every change is an event with a number; followers read events after the number they have. A worker writes under the
lease of its controller: after a take-over its writes are refused (``LeaseLost``), never mixed in.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection, Row, func, select, update

from hedgerow.contracts.api import ConvertModel
from hedgerow.contracts.api_images import BuildImage
from hedgerow.contracts.names import BLOBS_COLLECT, KnownName
from hedgerow.contracts.work import Activity, ActivityEvent, ActivityState, Problem
from registry.errors import RecordNotFound
from registry.store import blobs, events, leases
from registry.store.leases import Lease
from registry.store.tables import activities, activity_events
from registry.store.time_text import from_text, maybe_from_text, to_text

MAX_ATTEMPTS = 3
# What to do with a running activity whose worker is gone. Builds and deployments only converge towards a stated goal and
# begin again; a training run has side effects of its own and is not repeated unasked.
AFTER_CRASH: dict[str, Literal["again", "fail"]] = {
    "image.build": "again",
    "model.convert": "again",
    "image.push": "again",
    "service.deploy": "again",
    "run": "fail",
    BLOBS_COLLECT: "again",
}

INTERRUPTED = Problem(
    code="interrupted",
    message="The process that did this work was ended before it was done",
    remedy="Start it again.",
)


class BuildTask(BuildImage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request of an ``image.build`` activity: 0.1.0 may have queued it, under a name or with tags not given any more."""

    name: KnownName
    tags: dict[str, str] = {}


class ConvertTask(ConvertModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request of a ``model.convert`` activity: ``source`` is pinned to a version, ``name`` is given."""

    source: str


def create(connection: Connection, *, kind: str, subject: str, request: msgspec.Struct, now: datetime) -> str:
    """Queue work; returns its id (sortable by creation). Wake the controller after the commit."""
    activity_id = new_id(now)
    connection.execute(
        activities.insert().values(
            id=activity_id,
            kind=kind,
            subject=subject,
            state="queued",
            request=msgspec.json.encode(request).decode(),
            created_at=to_text(now),
        )
    )
    _record(connection, activity_id, now, "queued", 0.0, "queued", "")
    return activity_id


def new_id(now: datetime) -> str:
    """An id of the name grammar that sorts by creation."""
    return f"{int(now.timestamp() * 1000):012x}-{secrets.token_hex(4)}"


def claim(connection: Connection, lease: Lease, kinds: Iterable[str], now: datetime) -> tuple[Activity, bytes] | None:
    """Take the oldest queued activity of ``kinds``: it is running under ``lease`` now. Returns it with its request."""
    leases.check(connection, lease)
    row = connection.execute(
        select(activities)
        .where(activities.c.state == "queued", activities.c.kind.in_(list(kinds)))
        .order_by(activities.c.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    connection.execute(
        update(activities)
        .where(activities.c.id == row.id)
        .values(state="running", attempt=row.attempt + 1, lease_token=lease.token, started_at=to_text(now))
    )
    _record(connection, row.id, now, "running", 0.0, "started", "")
    return get(connection, row.id), row.request.encode()


def report(
    connection: Connection, lease: Lease, activity_id: str, *, progress: float, step: str, log: str = "", now: datetime
) -> bool:
    """Add progress; returns False when somebody asked to cancel. Raises LeaseLost after a take-over."""
    leases.check(connection, lease)
    row = _row(connection, activity_id, lock=True)
    connection.execute(update(activities).where(activities.c.id == activity_id).values(progress=progress, step=step))
    _record(connection, activity_id, now, row.state, progress, step, log)
    return not row.cancel_requested


def finish(
    connection: Connection,
    lease: Lease,
    activity_id: str,
    *,
    state: Literal["succeeded", "failed", "cancelled"],
    result: dict[str, str] | None = None,
    problem: Problem | None = None,
    now: datetime,
) -> None:
    """End an activity, once; a second end is ignored. Raises LeaseLost after a take-over."""
    leases.check(connection, lease)
    _end(connection, activity_id, state, result or {}, problem, now)


def cancel(connection: Connection, activity_id: str, now: datetime) -> Activity:
    """Queued work is cancelled at once; running work is asked to stop; ended work stays as it is. The caller tells of it."""
    row = _row(connection, activity_id, lock=True)
    if row.state == "queued":
        _end(connection, activity_id, "cancelled", {}, None, now, told=False)
    elif row.state == "running":
        connection.execute(update(activities).where(activities.c.id == activity_id).values(cancel_requested=1))
    return get(connection, activity_id)


def cancel_requested(connection: Connection) -> set[str]:
    """Ids of running activities that somebody asked to stop."""
    query = select(activities.c.id).where(activities.c.state == "running", activities.c.cancel_requested == 1)
    return {row.id for row in connection.execute(query)}


def recover(connection: Connection, lease: Lease, now: datetime, *, adopted: Iterable[str] = ()) -> list[str]:
    """After a new controller took the lease: settle what earlier ones left running, except what it ``adopted``.

    Returns the ids that were settled. Nothing is ever left "running" without a worker.
    """
    leases.check(connection, lease)
    kept = set(adopted)
    rows = connection.execute(select(activities).where(activities.c.state == "running")).all()
    settled = [row for row in rows if row.id not in kept and row.lease_token != lease.token]
    for row in settled:
        _settle(connection, row, now)
    for activity_id in kept:
        connection.execute(update(activities).where(activities.c.id == activity_id).values(lease_token=lease.token))
    return [row.id for row in settled]


def give_back(connection: Connection, lease: Lease, now: datetime) -> None:
    """Before a controller stops: settle what it has under way, as :func:`recover` of a later one would."""
    leases.check(connection, lease)
    query = select(activities).where(activities.c.state == "running", activities.c.lease_token == lease.token)
    for row in connection.execute(query).all():
        _settle(connection, row, now)


def interrupt_all(connection: Connection, problem: Problem, now: datetime) -> list[str]:
    """End everything that waits or runs as failed, before any worker looks (a restored workspace); returns the ids."""
    query = select(activities.c.id).where(activities.c.state.in_(["queued", "running"]))
    found = [row.id for row in connection.execute(query)]
    for activity_id in found:
        _end(connection, activity_id, "failed", {}, problem, now)
    return found


def get(connection: Connection, activity_id: str) -> Activity:
    """Raises RecordNotFound."""
    return _activity(_row(connection, activity_id))


def newest(
    connection: Connection,
    limit: int,
    after: str | None = None,
    *,
    kind: str | None = None,
    state: str | None = None,
    subject: str | None = None,
) -> list[Activity]:
    """Newest first; ``after`` is the id of the last one seen (ids sort by creation)."""
    query = select(activities).order_by(activities.c.id.desc()).limit(limit)
    wanted = ((activities.c.kind, kind), (activities.c.state, state), (activities.c.subject, subject))
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    if after:
        query = query.where(activities.c.id < after)
    return [_activity(row) for row in connection.execute(query)]


def events_after(connection: Connection, activity_id: str, number: int, limit: int = 500) -> list[ActivityEvent]:
    """What happened since event ``number`` (0 for all), oldest first."""
    query = (
        select(activity_events)
        .where(activity_events.c.activity_id == activity_id, activity_events.c.number > number)
        .order_by(activity_events.c.number)
        .limit(limit)
    )
    return [
        ActivityEvent(number=row.number, at=from_text(row.at), state=row.state, progress=row.progress, step=row.step, log=row.log)
        for row in connection.execute(query)
    ]


def _settle(connection: Connection, row: Row[tuple[object, ...]], now: datetime) -> None:
    """What becomes of a running activity that nobody works on any more."""
    if AFTER_CRASH.get(row.kind, "fail") == "again" and row.attempt < MAX_ATTEMPTS and not row.cancel_requested:
        connection.execute(update(activities).where(activities.c.id == row.id).values(state="queued", lease_token=None))
        _record(connection, row.id, now, "queued", row.progress, "queued again after an interruption", "")
    else:
        _end(connection, row.id, "cancelled" if row.cancel_requested else "failed", {}, INTERRUPTED, now)


def _end(
    connection: Connection,
    activity_id: str,
    state: ActivityState,
    result: dict[str, str],
    problem: Problem | None,
    now: datetime,
    *,
    told: bool = True,
) -> None:
    row = _row(connection, activity_id, lock=True)
    if row.ended_at is not None:
        return
    if told:
        events.record(
            connection,
            kind=f"activity.{state}",
            subject=f"activity/{activity_id}",
            actor=events.system("controller"),
            now=now,
            details={"work": row.kind, "of": row.subject} | ({"problem": problem.message[:1000]} if problem else {}),
        )
    progress = 1.0 if state == "succeeded" else row.progress
    connection.execute(
        update(activities)
        .where(activities.c.id == activity_id)
        .values(
            state=state,
            progress=progress,
            result=msgspec.json.encode(result).decode(),
            problem=msgspec.json.encode(problem).decode() if problem else None,
            ended_at=to_text(now),
        )
    )
    blobs.release_activity(connection, activity_id)
    _record(connection, activity_id, now, state, progress, state, problem.message if problem else "")


def _record(
    connection: Connection, activity_id: str, now: datetime, state: ActivityState, progress: float, step: str, log: str
) -> None:
    last = connection.execute(
        select(func.max(activity_events.c.number)).where(activity_events.c.activity_id == activity_id)
    ).scalar()
    connection.execute(
        activity_events.insert().values(
            activity_id=activity_id,
            number=(last or 0) + 1,
            at=to_text(now),
            state=state,
            progress=progress,
            step=step,
            log=log,
        )
    )


def _row(connection: Connection, activity_id: str, *, lock: bool = False) -> Row[tuple[object, ...]]:
    """``lock`` for whoever decides by what it reads: nobody changes the row before this transaction ends."""
    query = select(activities).where(activities.c.id == activity_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise RecordNotFound(kind="activity", name=activity_id, command="activity")
    return row


def _activity(row: Row[tuple[object, ...]]) -> Activity:
    return Activity(
        id=row.id,
        kind=row.kind,
        subject=row.subject,
        state=row.state,
        progress=row.progress,
        step=row.step,
        attempt=row.attempt,
        result=msgspec.json.decode(row.result, type=dict[str, str]),
        problem=msgspec.json.decode(row.problem, type=Problem) if row.problem else None,
        created_at=from_text(row.created_at),
        started_at=maybe_from_text(row.started_at),
        ended_at=maybe_from_text(row.ended_at),
    )
