"""The fleet at ``/metrics``: devices, their modules, and the numbers in their newest telemetry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Connection

from hedgerow.contracts.api import Device
from registry.server.context import ServerContext
from registry.store import fleet, telemetry

MAX_LEAVES = 50
# A module that was silent for this many messages of its device is not shown.
_WITHIN_MESSAGES = 200
_MAX_BODY_CHARS = 65_536
_PAGE = 500


def collect_metrics(here: ServerContext) -> Iterable[Metric]:
    """Everything about devices, asked of the database now."""
    devices = _devices(here)
    names = {device.uuid: device.name for device in devices}
    yield from _device_metrics(devices)
    with here.database.read_series() as connection:
        yield from _totals(connection, names)
        yield from _last_values(connection, names)


def numeric_leaves(body: str) -> list[tuple[str, float]]:
    """(path, number) of at most ``MAX_LEAVES`` finite numbers in a JSON text, in its order; ``[]`` if it is not JSON.

    ``{"a": {"b": [1.5]}}`` gives ``("a.b.0", 1.5)``; true and false are 1 and 0.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return []
    found: dict[str, float] = {}
    for path, number in _leaves(value, ""):
        # Two ways to one path ("a.b" as a key, and "b" in "a") would be one time series twice: the first counts.
        found.setdefault(path, number)
        if len(found) == MAX_LEAVES:
            break
    return list(found.items())


def _leaves(value: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, bool | int | float):
        try:
            number = float(value)
        except OverflowError:
            return
        if math.isfinite(number):
            yield path or "value", number
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _leaves(part, f"{path}.{key}" if path else str(key))


def _devices(here: ServerContext) -> list[Device]:
    found: list[Device] = []
    after: str | None = None
    with here.database.read() as connection:
        while True:
            page, after = fleet.page(connection, _PAGE, after, here.clock.now())
            found += page
            if after is None:
                return found


def _device_metrics(devices: list[Device]) -> Iterable[Metric]:
    states = GaugeMetricFamily("hedgerow_devices", "Devices that were not revoked, by state.", labels=["state"])
    active = [device for device in devices if device.revoked_at is None]
    online = sum(device.online for device in active)
    states.add_metric(["online"], online)
    states.add_metric(["silent"], len(active) - online)
    running = GaugeMetricFamily("hedgerow_module_running", "1 while the module runs.", labels=["device", "module"])
    restarts = GaugeMetricFamily("hedgerow_module_restarts", "Restarts that the device counted.", labels=["device", "module"])
    for device in active:
        for name, module in (device.reported.modules if device.reported else {}).items():
            running.add_metric([device.name, name], float(module.state == "running"))
            restarts.add_metric([device.name, name], module.restart_count)
    return states, running, restarts


def _totals(connection: Connection, names: Mapping[str, str]) -> Iterable[Metric]:
    stored = CounterMetricFamily("hedgerow_telemetry_messages", "Telemetry messages stored.", labels=["device"])
    lost = CounterMetricFamily(
        "hedgerow_telemetry_gap_messages", "Telemetry messages that will never arrive.", labels=["device", "reason"]
    )
    for total in telemetry.totals(connection):
        if total.device_uuid not in names:
            continue
        stored.add_metric([names[total.device_uuid]], total.stored)
        for reason, number in total.lost.items():
            lost.add_metric([names[total.device_uuid], reason], number)
    return stored, lost


def _last_values(connection: Connection, names: Mapping[str, str]) -> Iterable[Metric]:
    last = GaugeMetricFamily(
        "hedgerow_device_last_telemetry_timestamp_seconds", "When the hub stored the device's last message.", labels=["device"]
    )
    values = GaugeMetricFamily(
        "hedgerow_telemetry_value", "A number in the module's newest message.", labels=["device", "module", "name"]
    )
    for uuid, name in names.items():
        rows = telemetry.last_of_modules(connection, uuid, _WITHIN_MESSAGES, _MAX_BODY_CHARS)
        if rows:
            last.add_metric([name], max(row.received_ms for row in rows) / 1000)
        for row in rows:
            for path, number in numeric_leaves(row.body or ""):
                values.add_metric([name, row.module, path], number)
    return last, values
