"""Direct methods: what was asked of devices, how far each call has come, and the parts of the answers.

The server asks and reads, the hub sends and takes answers; this table is all that passes between the two. A call ends as
``done`` (the device answered, whatever it said) or ``failed`` (with the problem); some time later its row goes.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from hedgerow.contracts.api_fleet import Device
from hedgerow.contracts.api_methods import InvokeMethod
from hedgerow.contracts.methods import MAX_PAYLOAD_BYTES, WINDOW_PARTS, MethodAnswer
from registry.device_errors import MethodPayloadTooLong, TooManyCalls
from registry.errors import RecordNotFound
from registry.store import upsert
from registry.store.tables import device_sessions, devices, method_calls, method_parts
from registry.store.time_text import from_text, maybe_from_text, to_text

# Calls of one device at a time: more would only wait on the device.
MOST_OPEN = 8
# An answer that is not streamed is kept whole until its row goes.
MOST_KEPT_BYTES = 4 * 1024 * 1024
MOST_STREAMED_BYTES = 1024 * 1024 * 1024
KEPT_S = 3600.0
_OPEN = ("waiting", "sent", "answering", "cancelled")


@dataclass(frozen=True)
class Call:
    """A row, with the device's session as it is now (None: offline or revoked)."""

    id: str
    device_uuid: str
    device: str
    module: str | None
    method: str
    payload: str
    timeout_s: float
    streamed: bool
    state: str
    asked_at: datetime
    connect_by: datetime
    moved_at: datetime
    sent_at: datetime | None
    sends: int
    session: str
    parts: int
    told_parts: int
    read_parts: int
    status: int | None
    problem: str
    ended_at: datetime | None
    live_session: str | None

    @property
    def ended(self) -> bool:
        return self.ended_at is not None

    @property
    def room(self) -> bool:
        """Whether more of the answer may come: a streamed one waits for its reader."""
        return not self.streamed or self.parts - self.read_parts < WINDOW_PARTS


def ask(connection: Connection, device: Device, method: str, wanted: InvokeMethod, now: datetime, *, streamed: bool) -> str:
    """Note a call for the hub; returns its id. Raises MethodPayloadTooLong, TooManyCalls."""
    payload = msgspec.json.encode(wanted.payload).decode()
    if len(payload.encode()) > MAX_PAYLOAD_BYTES:
        raise MethodPayloadTooLong(limit=MAX_PAYLOAD_BYTES)
    open_now = select(func.count()).where(method_calls.c.device_uuid == device.uuid, method_calls.c.state.in_(_OPEN))
    if connection.execute(open_now).scalar_one() >= MOST_OPEN:
        raise TooManyCalls(device=device.name, limit=MOST_OPEN)
    call_id = secrets.token_hex(16)
    connection.execute(
        insert(method_calls).values(
            id=call_id,
            device_uuid=device.uuid,
            module=wanted.module,
            method=method,
            payload=payload,
            timeout_s=wanted.timeout_s,
            streamed=int(streamed),
            state="waiting",
            asked_at=to_text(now),
            connect_by=to_text(now + timedelta(seconds=wanted.connect_timeout_s)),
            moved_at=to_text(now),
        )
    )
    return call_id


def get(connection: Connection, call_id: str, now: datetime, *, device: str | None = None, lock: bool = False) -> Call:
    """``device`` (a name): only if it is a call to that one. Raises RecordNotFound."""
    query = _calls(now).where(method_calls.c.id == call_id)
    if device is not None:
        query = query.where(devices.c.name == device)
    row = connection.execute(query.with_for_update(of=method_calls) if lock else query).one_or_none()
    if row is None:
        raise RecordNotFound(kind="call", name=call_id[:80], command="device")
    return _call(row)


def parts_from(connection: Connection, call: Call, first: int) -> list[bytes]:
    """The parts of the answer that are here without a hole, from number ``first`` on."""
    mine = (method_parts.c.call_id == call.id, method_parts.c.part >= first, method_parts.c.part < call.parts)
    query = select(method_parts.c.payload).where(*mine).order_by(method_parts.c.part)
    return list(connection.execute(query).scalars())


def note_read(connection: Connection, call_id: str, read_parts: int, now: datetime) -> None:
    """A stream's reader has the parts below ``read_parts``: they go, and the device may send more."""
    connection.execute(delete(method_parts).where(method_parts.c.call_id == call_id, method_parts.c.part < read_parts))
    connection.execute(
        update(method_calls).where(method_calls.c.id == call_id).values(read_parts=read_parts, moved_at=to_text(now))
    )


def cancel(connection: Connection, call_id: str, problem: str, now: datetime) -> None:
    """Nobody wants the answer any more. One that has ended stays as it is."""
    call = get(connection, call_id, now, lock=True)
    if call.state == "waiting":
        fail(connection, call_id, problem, now)
    elif not call.ended:
        mine = update(method_calls).where(method_calls.c.id == call_id)
        connection.execute(mine.values(state="cancelled", problem=problem, moved_at=to_text(now)))
        connection.execute(delete(method_parts).where(method_parts.c.call_id == call_id))


# --- what the hub does -------------------------------------------------------------------------------------------------


def open_calls(connection: Connection, now: datetime, *, lock: bool = False) -> list[Call]:
    """Every call that has not ended, by id: whoever locks several does so in one order."""
    query = _calls(now).where(method_calls.c.state.in_(_OPEN)).order_by(method_calls.c.id)
    return [_call(row) for row in connection.execute(query.with_for_update(of=method_calls) if lock else query)]


def note_sent(connection: Connection, call: Call, session: str, now: datetime) -> None:
    """It is published once more, to ``session``, with all parts that are here acknowledged."""
    state = "sent" if call.state == "waiting" else call.state
    first = {"moved_at": to_text(now)} if call.state == "waiting" else {}
    # News of parts is no repetition, after which the next one would wait for longer.
    sends = 1 if call.parts > call.told_parts else call.sends + 1
    connection.execute(
        update(method_calls)
        .where(method_calls.c.id == call.id)
        .values(state=state, session=session, sent_at=to_text(now), sends=sends, told_parts=call.parts, **first)
    )


def fail(connection: Connection, call_id: str, problem: str, now: datetime) -> None:
    """The call ends without an answer."""
    connection.execute(
        update(method_calls)
        .where(method_calls.c.id == call_id)
        .values(state="failed", problem=problem, payload="", ended_at=to_text(now))
    )
    connection.execute(delete(method_parts).where(method_parts.c.call_id == call_id))


def take_answers(connection: Connection, answers: Sequence[MethodAnswer], now: datetime) -> bool:
    """Keep parts of answers, in whatever order they come; returns whether a call got on. Repeated parts are left alone.

    ``answers`` are unsealed and of the sessions that their devices hold. Several hubs may have a part each.
    """
    moved = False
    for answer in sorted(answers, key=lambda answer: answer.id):
        row = connection.execute(select(method_calls).where(method_calls.c.id == answer.id).with_for_update()).one_or_none()
        if row is None or (row.device_uuid, row.session) != (answer.device_uuid, answer.session):
            continue
        # A device keeps to its window; what is beyond is not kept for it.
        if row.state in ("sent", "answering") and row.parts <= answer.part < row.parts + 2 * WINDOW_PARTS:
            moved = _keep(connection, row, answer, now) or moved
    return moved


def _keep(connection: Connection, row: Row[Any], answer: MethodAnswer, now: datetime) -> bool:
    values = {"last": int(answer.last), "status": answer.status, "payload": answer.payload.encode()}
    added = upsert.insert(connection, method_parts).values(call_id=answer.id, part=answer.part, **values)
    connection.execute(added.on_conflict_do_nothing(index_elements=[method_parts.c.call_id, method_parts.c.part]))
    return answer.part == row.parts and _advance(connection, row, now)


def _advance(connection: Connection, row: Row[Any], now: datetime) -> bool:
    """Count the parts that follow each other without a hole; the last of them ends the call."""
    size = func.length(method_parts.c.payload).label("size")
    query = select(method_parts.c.part, method_parts.c.last, method_parts.c.status, size)
    query = query.where(method_parts.c.call_id == row.id, method_parts.c.part >= row.parts).order_by(method_parts.c.part)
    parts, total = row.parts, row.answer_bytes
    values: dict[str, Any] = {"state": "answering", "moved_at": to_text(now), "sends": 1}
    for part in connection.execute(query).all():
        if part.part != parts:
            break
        parts, total = parts + 1, total + part.size
        values |= {"status": part.status}
        if part.last:
            values |= {"state": "done", "payload": "", "ended_at": to_text(now)}
            break
    most = MOST_STREAMED_BYTES if row.streamed else MOST_KEPT_BYTES
    if total > most:
        problem = f"its answer has more than {most} bytes" + ("" if row.streamed else "; ask for it as a stream")
        values |= {"state": "cancelled", "problem": problem, "ended_at": None}
    mine = update(method_calls).where(method_calls.c.id == row.id)
    connection.execute(mine.values(parts=parts, answer_bytes=total, **values))
    return bool(parts > row.parts)


def forget_old(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to ``limit`` calls that ended before then, with their answers."""
    old = select(method_calls.c.id).where(method_calls.c.ended_at < to_text(before)).limit(limit)
    return connection.execute(delete(method_calls).where(method_calls.c.id.in_(old.scalar_subquery()))).rowcount


def _calls(now: datetime) -> Any:  # noqa: ANN401 - a Select of more columns than its type has
    live = (device_sessions.c.expires_at > to_text(now)) & devices.c.revoked_at.is_(None)
    return (
        select(method_calls, devices.c.name.label("device"), device_sessions.c.session.label("live_session"))
        .join(devices, devices.c.uuid == method_calls.c.device_uuid)
        .outerjoin(device_sessions, (device_sessions.c.device_uuid == devices.c.uuid) & live)
    )


def _call(row: Row[Any]) -> Call:
    return Call(
        id=row.id,
        device_uuid=row.device_uuid,
        device=row.device,
        module=row.module,
        method=row.method,
        payload=row.payload,
        timeout_s=row.timeout_s,
        streamed=bool(row.streamed),
        state=row.state,
        asked_at=from_text(row.asked_at),
        connect_by=from_text(row.connect_by),
        moved_at=from_text(row.moved_at),
        sent_at=from_text(row.sent_at) if row.sent_at else None,
        sends=row.sends,
        session=row.session,
        parts=row.parts,
        told_parts=row.told_parts,
        read_parts=row.read_parts,
        status=row.status,
        problem=row.problem,
        ended_at=maybe_from_text(row.ended_at),
        live_session=row.live_session,
    )
