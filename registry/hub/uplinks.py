"""From bytes on a device's topic to a document that this device sealed. Pure."""

from __future__ import annotations

from hedgerow.contracts.document import decode
from hedgerow.contracts.merge_patch import json_text
from hedgerow.contracts.methods import PART_BYTES, MethodAnswer
from hedgerow.contracts.plain_values import UnboundedValue, check_bounds
from hedgerow.contracts.seal import unseal
from hedgerow.contracts.status import StatusReport
from hedgerow.contracts.telemetry import Hello, TelemetryBatch, properties_problem
from hedgerow.contracts.twins import MAX_REPORTED_BYTES, TwinReport
from hedgerow.errors import InvalidDocument
from registry.hub.link import Uplink

Said = Hello | TelemetryBatch | StatusReport | MethodAnswer | TwinReport
_KINDS: dict[str, type[Said]] = {
    "hello": Hello,
    "telemetry": TelemetryBatch,
    "status": StatusReport,
    "answers": MethodAnswer,
    "twins": TwinReport,
}
_MAX_ID_CHARS = 128
_MAX_STREAMS = 256
# What the database's columns hold.
_MAX_INT, _MAX_BIG_INT = 2**31 - 1, 2**63 - 1


def open_uplink(uplink: Uplink, key: bytes) -> tuple[Said, bytes]:
    """The document and the exact bytes it was read from.

    Raises SealRefused for what the device did not seal, InvalidDocument or DocumentTooNew for what it should not have.
    """
    payload = unseal(key, uplink.device_uuid, uplink.leaf, uplink.payload)
    said = decode(payload, _KINDS[uplink.leaf])
    problem = _problem(said)
    if said.device_uuid != uplink.device_uuid:
        problem = f"it names device {said.device_uuid[:_MAX_ID_CHARS]}"
    if problem:
        raise InvalidDocument(document=type(said).__name__, problem=problem)
    return said, payload


def _problem(said: Said) -> str:
    """Values that fit the schema and still could not be stored or answered."""
    match said:
        case Hello():
            return _hello_problem(said)
        case TelemetryBatch():
            if not 0 < len(said.epoch) <= _MAX_ID_CHARS or not _storable(said.epoch):
                return "its epoch is empty, too long or holds a NUL"
            if any(abs(message.time_ms) > _MAX_BIG_INT for message in said.messages):
                return "a message's time_ms is out of range"
            return next(
                (p for message in said.messages if message.properties and (p := properties_problem(message.properties))), ""
            )
        case StatusReport():
            return ""
        case MethodAnswer():
            return _answer_problem(said)
        case TwinReport():
            return _twin_problem(said)


def _hello_problem(said: Hello) -> str:
    if not 0 <= said.starts <= _MAX_INT or not 0 <= said.accepted_desired_version < _MAX_INT:
        return "its starts or accepted_desired_version is out of range"
    if max(len(said.instance), len(said.nonce), len(said.epoch)) > _MAX_ID_CHARS or len(said.streams) > _MAX_STREAMS:
        return "its instance, nonce, epoch or list of streams is too long"
    # The epoch is looked up, the instance kept: PostgreSQL takes neither with a NUL.
    return "" if _storable(said.instance) and _storable(said.epoch) else "its instance or epoch holds a NUL"


def _answer_problem(said: MethodAnswer) -> str:
    if len(said.id) > _MAX_ID_CHARS or said.part > _MAX_INT or not _storable(said.id):
        return "its id or part is out of range"
    return "" if len(said.payload.encode()) <= PART_BYTES else f"its payload has more than {PART_BYTES} bytes"


def _twin_problem(report: TwinReport) -> str:
    if not 0 < len(report.epoch) <= _MAX_ID_CHARS or not _storable(report.epoch) or report.version < 1:
        return "its epoch or version is out of range"
    try:
        check_bounds(report.reported)
    except UnboundedValue as problem:
        return str(problem)
    # A patch of twice the size may still make small properties of large ones: it names those that go.
    size, limit = len(json_text(report.reported)), 2 * MAX_REPORTED_BYTES
    return "" if size <= limit else f"its properties have {size} bytes, the limit is {limit}"


def _storable(text: str) -> bool:
    return "\0" not in text
