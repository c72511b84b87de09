"""What target conditions may ask of a device's own report, as names and texts. Pure.

``agent_version``, ``desired.version``, ``desired.code``, ``modules.NAME.state``, ``modules.NAME.restart_count`` and every other
single value of the StatusReport by its path; but not what is another one in each report (its number, its time, decisions).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from hedgerow.contracts.document import decode
from hedgerow.contracts.status import StatusReport

_NEVER_THE_SAME = frozenset({"schema_version", "device_uuid", "session", "sequence", "reported_at", "decisions", "buffer"})


def facts_of(report: StatusReport | None) -> dict[str, str]:
    """Texts by path; numbers and truth values as JSON writes them. Empty for a device that has not reported yet."""
    if report is None:
        return {}
    plain = msgspec.to_builtins(report)
    return dict(_leaves("", {key: value for key, value in plain.items() if key not in _NEVER_THE_SAME}))


def read_report(stored: str | bytes | None) -> StatusReport | None:
    """The report as the store keeps it."""
    return None if stored is None else decode(stored, StatusReport)


def _leaves(path: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, str):
        yield path, value
    elif isinstance(value, bool | int | float):
        yield path, json.dumps(value)
