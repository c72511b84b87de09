"""``/api/v1/telemetry``: what devices sent, and what is known to be missing."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Row

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_fleet import RecordedGap, StoredTelemetry
from hedgerow.contracts.names import check_known_name
from registry.errors import RecordNotFound
from registry.server import arguments
from registry.server.errors import InvalidArgument
from registry.server.http import answer, context, page_arguments
from registry.server.operation import PAGE, QueryField, operation
from registry.store import fleet, telemetry
from registry.store.telemetry import GapCursor

_MAX_ID = 2**63 - 1
_DEVICE = QueryField("device", "of this device only")


def add_routes(blueprint: Blueprint) -> None:
    """Put this module's routes below ``blueprint``'s prefix."""
    blueprint.get("/telemetry")(list_telemetry)
    blueprint.get("/telemetry/gaps")(list_gaps)


@operation(
    "List telemetry",
    "reader",
    scope="telemetry",
    result=Page[StoredTelemetry],
    query=(*PAGE, _DEVICE, QueryField("module", "of this module only")),
    errors=(RecordNotFound,),
)
def list_telemetry() -> Response:
    """In order of arrival.

    Without `after` the newest `limit` messages; `after=0` begins with the oldest. `next` is always where to go on, now
    or when more has come.
    """
    limit, after = page_arguments()
    names, device_uuid = _device()
    module = arguments.text("module")
    if module is not None:
        check_known_name(module, "module")
    with context().database.read_series() as connection:
        if after is None:
            rows = telemetry.newest(connection, limit, device_uuid=device_uuid, module=module)
        else:
            rows = telemetry.after(connection, limit, _number(after), device_uuid=device_uuid, module=module)
    return answer(Page(items=[_message(row, names) for row in rows], next=str(rows[-1].id) if rows else after))


@operation(
    "List gaps in telemetry",
    "reader",
    scope="telemetry",
    result=Page[RecordedGap],
    query=(*PAGE, _DEVICE),
    errors=(RecordNotFound,),
)
def list_gaps() -> Response:
    """Messages that will never arrive, with the reason; newest first."""
    limit, after = page_arguments()
    names, device_uuid = _device()
    with context().database.read_series() as connection:
        rows = telemetry.recorded_gaps(connection, limit + 1, _cursor(after), device_uuid)
    following = _cursor_text(rows[limit - 1]) if len(rows) > limit else None
    return answer(Page(items=[_gap(row, names) for row in rows[:limit]], next=following))


def _device() -> tuple[dict[str, str], str | None]:
    """Names of all devices by uuid, and the uuid that ``?device=`` means. Raises RecordNotFound."""
    here = context()
    with here.database.read() as connection:
        name = arguments.text("device")
        wanted = None if name is None else fleet.get(connection, check_known_name(name, "device"), here.clock.now()).uuid
        return fleet.names_by_uuid(connection), wanted


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= _MAX_ID):
        raise InvalidArgument(name="after", value=text[:80], hint="Use the `next` of the page before, or 0.")
    return int(text)


def _cursor(text: str | None) -> GapCursor | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 5 or "\0" in text:
        raise InvalidArgument(name="after", value=text[:80], hint="Use the `next` of the page before.")
    return GapCursor(_number(parts[0]), parts[1], parts[2], parts[3], _number(parts[4]))


def _cursor_text(row: Row[Any]) -> str:
    return f"{row.recorded_ms},{row.device_uuid},{row.epoch},{row.stream},{row.first_sequence}"


def _message(row: Row[Any], names: dict[str, str]) -> StoredTelemetry:
    return StoredTelemetry(
        id=row.id,
        device=names.get(row.device_uuid, row.device_uuid),
        module=row.module,
        epoch=row.epoch,
        stream=row.stream,
        sequence=row.sequence,
        time_ms=row.time_ms,
        received_ms=row.received_ms,
        historical=bool(row.historical),
        body=row.body,
        properties=telemetry.properties_of(row),
    )


def _gap(row: Row[Any], names: dict[str, str]) -> RecordedGap:
    return RecordedGap(
        device=names.get(row.device_uuid, row.device_uuid),
        epoch=row.epoch,
        stream=row.stream,
        first_sequence=row.first_sequence,
        last_sequence=row.last_sequence,
        reason=row.reason,
        recorded_ms=row.recorded_ms,
    )
