"""Telemetry as it is stored: watermarks that outlive everything, messages, gaps, quarantine; and the questions asked of them.

All of it lies in the series database. Whoever stores messages moves the watermark in the same transaction, so a message
is stored exactly once however often it arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, Select, Table, case, func, select, tuple_

from hedgerow.contracts.telemetry import CHAIN_START, TelemetryMessage
from registry.store.tables import gaps, messages, quarantine, watermarks
from registry.store.upsert import insert

# A device that keeps sending what is refused must not fill the disk with it.
MAX_QUARANTINED_PER_DEVICE = 20
# PostgreSQL's text cannot hold it, and no JSON text contains it.
_NUL, _NUL_SHOWN = "\0", "\N{SYMBOL FOR NULL}"


class StreamKey(NamedTuple):
    """One stream of one buffer file of one device."""

    device_uuid: str
    epoch: str
    stream: str


class Mark(NamedTuple):
    """The highest stored sequence of a stream and the chain value there."""

    watermark: int
    chain: str


NOTHING = Mark(0, CHAIN_START)


class Arrived(NamedTuple):
    """A message about to be stored."""

    key: StreamKey
    message: TelemetryMessage


class GapRow(NamedTuple):
    """Sequences of a stream that will never come. Closed interval."""

    key: StreamKey
    first_sequence: int
    last_sequence: int
    reason: str


class GapCursor(NamedTuple):
    """Where a page of gaps ended."""

    recorded_ms: int
    device_uuid: str
    epoch: str
    stream: str
    first_sequence: int


@dataclass(frozen=True)
class DeviceTotal:
    """What is known of all messages that a device ever sent, whether retention kept them or not."""

    device_uuid: str
    stored: int
    lost: Mapping[str, int]


def marks(connection: Connection, keys: Iterable[StreamKey], *, lock: bool) -> dict[StreamKey, Mark]:
    """The watermark of each of ``keys`` (not empty), NOTHING for new ones. ``lock`` keeps them until the transaction's end."""
    wanted = sorted(set(keys))
    found = _marks_of(connection, wanted, lock=lock)
    missing = [key for key in wanted if key not in found]
    if lock and missing and connection.dialect.name != "sqlite":
        # There is no row to lock yet: without one, two hubs would both begin the stream. SQLite has one writer anyway.
        rows = [{**key._asdict(), "watermark": 0, "chain": CHAIN_START, "updated_ms": 0} for key in missing]
        connection.execute(insert(connection, watermarks).on_conflict_do_nothing(), rows)
        found |= _marks_of(connection, missing, lock=True)
    return {key: found.get(key, NOTHING) for key in wanted}


def _marks_of(connection: Connection, wanted: list[StreamKey], *, lock: bool) -> dict[StreamKey, Mark]:
    columns = tuple_(watermarks.c.device_uuid, watermarks.c.epoch, watermarks.c.stream)
    # Sorted, so that two hubs lock in the same order.
    query = (
        select(watermarks).where(columns.in_(wanted)).order_by(watermarks.c.device_uuid, watermarks.c.epoch, watermarks.c.stream)
    )
    if lock:
        query = query.with_for_update()
    return {
        StreamKey(row.device_uuid, row.epoch, row.stream): Mark(row.watermark, row.chain) for row in connection.execute(query)
    }


def put_marks(connection: Connection, moved: Mapping[StreamKey, Mark], now_ms: int) -> None:
    """Move watermarks; only ever in the transaction that stores what lies below them."""
    if not moved:
        return
    statement = insert(connection, watermarks)
    statement = statement.on_conflict_do_update(
        index_elements=[watermarks.c.device_uuid, watermarks.c.epoch, watermarks.c.stream],
        set_={
            "watermark": statement.excluded.watermark,
            "chain": statement.excluded.chain,
            "updated_ms": statement.excluded.updated_ms,
        },
    )
    rows = [
        {**key._asdict(), "watermark": mark.watermark, "chain": mark.chain, "updated_ms": now_ms} for key, mark in moved.items()
    ]
    connection.execute(statement, rows)


def add_messages(connection: Connection, arrived: Sequence[Arrived], now_ms: int) -> None:
    """Store messages that are above their watermark."""
    rows: list[dict[str, object]] = [
        {
            "device_uuid": key.device_uuid,
            "epoch": key.epoch,
            "stream": key.stream,
            "sequence": message.sequence,
            "module": message.module,
            "time_ms": message.time_ms,
            "received_ms": now_ms,
            "historical": int(message.historical),
            "body": message.body.replace(_NUL, _NUL_SHOWN) if _NUL in message.body else message.body,
        }
        for key, message in arrived
    ]
    if any(message.properties for _, message in arrived):
        # A column more for every row: where none has any, it is left out.
        for row, (_, message) in zip(rows, arrived, strict=True):
            row["properties"] = msgspec.json.encode(message.properties).decode() if message.properties else None
    if rows:
        connection.execute(messages.insert(), rows)


def add_gaps(connection: Connection, found: Iterable[GapRow], now_ms: int) -> None:
    """Record messages that will never come."""
    rows = [
        {
            **gap.key._asdict(),
            "first_sequence": gap.first_sequence,
            "last_sequence": gap.last_sequence,
            "reason": gap.reason,
            "recorded_ms": now_ms,
        }
        for gap in found
    ]
    if rows:
        connection.execute(gaps.insert(), rows)


def contents(connection: Connection, key: StreamKey, first: int, last: int) -> dict[int, tuple[str, int, str]]:
    """(module, time_ms, body) of the stored messages among ``first`` … ``last``, by sequence."""
    query = _of_stream(select(messages.c.sequence, messages.c.module, messages.c.time_ms, messages.c.body), messages, key)
    query = query.where(messages.c.sequence.between(first, last))
    return {row.sequence: (row.module, row.time_ms, row.body) for row in connection.execute(query)}


def content_of(message: TelemetryMessage) -> tuple[str, int, str]:
    """What :func:`contents` gives for ``message`` once it is stored."""
    return message.module, message.time_ms, message.body.replace(_NUL, _NUL_SHOWN)


def properties_of(row: Row[Any]) -> dict[str, str]:
    """The application's properties of a row of ``tables.messages``."""
    return msgspec.json.decode(row.properties, type=dict[str, str]) if row.properties else {}


def gap_between(connection: Connection, key: StreamKey, first: int, last: int) -> bool:
    """Whether any of ``first`` … ``last`` was recorded as lost."""
    query = _of_stream(select(gaps.c.first_sequence), gaps, key)
    query = query.where(gaps.c.first_sequence <= last, gaps.c.last_sequence >= first).limit(1)
    return connection.execute(query).first() is not None


def add_to_quarantine(connection: Connection, device_uuid: str, reason: str, payload: bytes, now_ms: int) -> bool:
    """Keep what was refused for a person to look at; False when this device has enough there already."""
    count = connection.execute(select(func.count()).where(quarantine.c.device_uuid == device_uuid)).scalar_one()
    if count >= MAX_QUARANTINED_PER_DEVICE:
        return False
    connection.execute(quarantine.insert().values(device_uuid=device_uuid, received_ms=now_ms, reason=reason, payload=payload))
    return True


def after(
    connection: Connection, limit: int, after_id: int, *, device_uuid: str | None = None, module: str | None = None
) -> list[Row[Any]]:
    """Messages with a higher id than ``after_id``, in order of arrival (rows of ``tables.messages``)."""
    query = _filtered(device_uuid, module).where(messages.c.id > after_id)
    return list(connection.execute(query.order_by(messages.c.id).limit(limit)))


def newest(connection: Connection, limit: int, *, device_uuid: str | None = None, module: str | None = None) -> list[Row[Any]]:
    """The last messages, in order of arrival."""
    query = _filtered(device_uuid, module).order_by(messages.c.id.desc()).limit(limit)
    return list(connection.execute(query))[::-1]


def recorded_gaps(
    connection: Connection, limit: int, before: GapCursor | None = None, device_uuid: str | None = None
) -> list[Row[Any]]:
    """Gaps, the newest first (rows of ``tables.gaps``); ``before`` is the last one seen."""
    order = (gaps.c.recorded_ms, gaps.c.device_uuid, gaps.c.epoch, gaps.c.stream, gaps.c.first_sequence)
    query = select(gaps).order_by(*(column.desc() for column in order)).limit(limit)
    if before is not None:
        query = query.where(tuple_(*order) < tuple_(*before))
    return list(connection.execute(query if device_uuid is None else query.where(gaps.c.device_uuid == device_uuid)))


def totals(connection: Connection) -> list[DeviceTotal]:
    """Per device: messages stored and lost since its enrolment. Counts watermarks and gaps, never messages."""
    span = func.sum(gaps.c.last_sequence - gaps.c.first_sequence + 1)
    lost: dict[str, dict[str, int]] = {}
    for row in connection.execute(
        select(gaps.c.device_uuid, gaps.c.reason, span.label("lost")).group_by(gaps.c.device_uuid, gaps.c.reason)
    ):
        lost.setdefault(row.device_uuid, {})[row.reason] = int(row.lost)
    sent = connection.execute(
        select(watermarks.c.device_uuid, func.sum(watermarks.c.watermark).label("sent")).group_by(watermarks.c.device_uuid)
    )
    return [
        DeviceTotal(row.device_uuid, int(row.sent) - sum(lost.get(row.device_uuid, {}).values()), lost.get(row.device_uuid, {}))
        for row in sent
    ]


def last_of_modules(connection: Connection, device_uuid: str, within: int, max_body_chars: int) -> list[Row[Any]]:
    """The newest message of each module among the device's last ``within``: (module, received_ms, body or None if longer)."""
    recent = connection.execute(
        select(messages.c.id, messages.c.module)
        .where(messages.c.device_uuid == device_uuid)
        .order_by(messages.c.id.desc())
        .limit(within)
    )
    ids: dict[str, int] = {}
    for row in recent:
        ids.setdefault(row.module, row.id)
    if not ids:
        return []
    short = func.length(messages.c.body) <= max_body_chars
    query = select(messages.c.module, messages.c.received_ms, case((short, messages.c.body), else_=None).label("body"))
    return list(connection.execute(query.where(messages.c.id.in_(ids.values())).order_by(messages.c.id)))


def _filtered(device_uuid: str | None, module: str | None) -> Select[Any]:
    query = select(messages)
    if device_uuid is not None:
        query = query.where(messages.c.device_uuid == device_uuid)
    return query if module is None else query.where(messages.c.module == module)


def _of_stream(query: Select[Any], table: Table, key: StreamKey) -> Select[Any]:
    return query.where(table.c.device_uuid == key.device_uuid, table.c.epoch == key.epoch, table.c.stream == key.stream)
