"""The fleet at ``/metrics``: devices, their modules, and the numbers in their newest telemetry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Connection

from hedgerow.contracts.api_fleet import Device
from registry.server.context import ServerContext
from registry.server.numeric_leaves import numeric_leaves
from registry.server.rollout_metrics import collect_rollouts
from registry.store import fleet, telemetry

# A module that was silent for this many messages of its device is not shown.
_WITHIN_MESSAGES = 200
_MAX_BODY_CHARS = 65_536
_PAGE = 500


def collect_metrics(here: ServerContext) -> Iterable[Metric]:
    """Everything about devices, asked of the database now."""
    devices = _devices(here)
    names = {device.uuid: device.name for device in devices}
    yield from _device_metrics(devices)
    yield from collect_rollouts(here)
    with here.database.read_series() as connection:
        yield from _totals(connection, names)
        yield from _last_values(connection, names)


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
    active = [device for device in devices if device.revoked_at is None]
    states = GaugeMetricFamily("hedgerow_devices", "Devices that were not revoked, by state.", labels=["state"])
    online = sum(device.online for device in active)
    states.add_metric(["online"], online)
    states.add_metric(["silent"], len(active) - online)
    yield states
    waiting = GaugeMetricFamily(
        "hedgerow_devices_waiting_for_signature", "Devices whose next desired state waits for a signature."
    )
    waiting.add_metric([], sum(device.unsigned_version > 0 for device in active))
    yield waiting
    yield from _of_each(active)
    yield from _of_modules(active)


def _of_each(active: list[Device]) -> Iterable[Metric]:
    """One value for each device, out of its last report."""
    families = {
        name: GaugeMetricFamily(f"hedgerow_device_{name}", text, labels=["device"])
        for name, text in {
            "online": "1 while the device holds its session.",
            "desired_version": "Version of the desired state that was issued last.",
            "desired_code": "What became of the newest desired state: 200 applied, 202 on its way, others as IoT Edge's codes.",
            "queue_messages": "Messages that wait on the device.",
            "queue_bytes": "Bytes of the messages that wait on the device.",
            "dropped_messages": "Messages that the device had to drop.",
            "seen_timestamp_seconds": "When the device was heard last.",
        }.items()
    }
    for device in active:
        values: dict[str, float | None] = {
            "online": float(device.online),
            "desired_version": device.desired_version,
            "seen_timestamp_seconds": device.seen_at.timestamp() if device.seen_at else None,
        }
        if device.reported is not None:
            values["desired_code"] = device.reported.desired.code
            if (buffer := device.reported.buffer) is not None:
                values["queue_messages"], values["queue_bytes"] = buffer.queued_messages, buffer.queued_bytes
                values["dropped_messages"] = buffer.dropped_messages
        for name, value in values.items():
            if value is not None:
                families[name].add_metric([device.name], value)
    return families.values()


def _of_modules(active: list[Device]) -> Iterable[Metric]:
    running = GaugeMetricFamily("hedgerow_module_running", "1 while the module runs.", labels=["device", "module"])
    restarts = GaugeMetricFamily("hedgerow_module_restarts", "Restarts that the device counted.", labels=["device", "module"])
    states = GaugeMetricFamily(
        "hedgerow_module_state", "1 for the state that the module is in.", labels=["device", "module", "state"]
    )
    for device in active:
        for name, module in (device.reported.modules if device.reported else {}).items():
            running.add_metric([device.name, name], float(module.state == "running"))
            restarts.add_metric([device.name, name], module.restart_count)
            states.add_metric([device.name, name, module.state], 1.0)
    return running, restarts, states


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
