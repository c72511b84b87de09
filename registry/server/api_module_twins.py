"""``/api/v1/devices/NAME/modules``: what each module is told, what it reports, and what operators change on one device.

A change is kept as a patch on top of whatever deployments say, under a revision of its own. The hub is woken after the commit,
composes the device's desired state anew and counts the twin's version up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_fleet import Device
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.merge_patch import json_text, merge_patch
from hedgerow.contracts.names import check_known_name
from hedgerow.contracts.plain_values import UnboundedValue, check_bounds
from hedgerow.contracts.twins import MAX_REPORTED_BYTES, ModuleTwin, PatchTwin
from registry.device_errors import NoModuleOfDevice
from registry.errors import PreconditionFailed, RecordNotFound
from registry.hub.desired import read_envelope
from registry.hub.errors import TwinInvalid
from registry.server.http import answer, context, read_body, tell, write_once
from registry.server.operation import operation
from registry.server.revisions import answer_revised, check_revision
from registry.store import fleet, module_twins, twins
from registry.store.module_twins import NOTHING, ModuleRow

# The device adds it to what a module is told.
_VERSION = "$version"


def add_routes(blueprint: Blueprint) -> None:
    """Put this module's routes below ``blueprint``'s prefix."""
    blueprint.get("/devices/<name>/modules")(list_modules)
    blueprint.get("/devices/<name>/modules/<module>/twin")(show_module_twin)
    blueprint.patch("/devices/<name>/modules/<module>/twin")(patch_module_twin)
    blueprint.delete("/devices/<name>/modules/<module>/twin")(reset_module_twin)


def module_twins_of(connection: Connection, device: Device) -> dict[str, ModuleTwin]:
    """The twins of all modules that a device should run or that were patched, by name."""
    state, rows = _state(connection, device), module_twins.of_device(connection, device.uuid)
    names = (state.modules.keys() if state else set()) | rows.keys()
    return {name: _twin(device.name, name, state, rows.get(name, NOTHING)) for name in sorted(names)}


@operation("List a device's modules with their twins", "reader", scope="devices", result=Page[ModuleTwin])
def list_modules(name: str) -> Response:
    """By name, all of them at once."""
    here = context()
    with here.database.read() as connection:
        device = fleet.get(connection, check_known_name(name, "device"), here.clock.now())
        found = module_twins_of(connection, device)
    return answer(Page(items=list(found.values())))


@operation("Show a module's twin", "reader", scope="devices", result=ModuleTwin, errors=(RecordNotFound, NoModuleOfDevice))
def show_module_twin(name: str, module: str) -> Response:
    """What it is told and what it reports, with the versions of both."""
    here = context()
    with here.database.read() as connection:
        twin = _found(connection, fleet.get(connection, check_known_name(name, "device"), here.clock.now()), module)
    return answer_revised(twin, twin.revision)


@operation(
    "Change a module's desired properties on one device",
    "contributor",
    scope="devices",
    body=PatchTwin,
    result=ModuleTwin,
    errors=(RecordNotFound, NoModuleOfDevice, PreconditionFailed, TwinInvalid),
)
def patch_module_twin(name: str, module: str) -> Response:
    """Merged into what was patched before. ``desired`` of the answer is what the module is told until the hub was there."""
    wanted = read_body(PatchTwin)
    _check(name, module, wanted.desired)
    answered = write_once(
        lambda connection: _change(connection, name, module, lambda before: merge_patch(before, wanted.desired))
    )
    context().wakeups.wake("hub")
    return answered


@operation(
    "Take a module's patch away",
    "contributor",
    scope="devices",
    result=ModuleTwin,
    errors=(RecordNotFound, NoModuleOfDevice, PreconditionFailed),
)
def reset_module_twin(name: str, module: str) -> Response:
    """From now on it is told what its deployments say, and nothing else."""
    answered = write_once(lambda connection: _change(connection, name, module, lambda _before: {}))
    context().wakeups.wake("hub")
    return answered


def _change(connection: Connection, name: str, module: str, make: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
    device = fleet.get(connection, check_known_name(name, "device"), context().clock.now(), lock=True)
    before = _found(connection, device, module)
    check_revision("module twin", f"{name}/{module}", before.revision)
    patch = make(before.patch)
    _check(name, module, patch)
    if json_text(patch) != json_text(before.patch):
        module_twins.put_patch(connection, device.uuid, module, patch)
        tell(connection, "device.twin-patched", f"device/{name}", module=module, revision=str(before.revision + 1))
    after = _found(connection, device, module)
    return answer_revised(after, after.revision)


def _found(connection: Connection, device: Device, module: str) -> ModuleTwin:
    """Raises NoModuleOfDevice for a module that the device neither should run nor was ever patched."""
    twin = module_twins_of(connection, device).get(check_known_name(module, "module"))
    if twin is None:
        raise NoModuleOfDevice(module=module, device=device.name)
    return twin


def _state(connection: Connection, device: Device) -> DesiredState | None:
    envelope = twins.desired_envelopes(connection, [device.uuid]).get(device.uuid)
    return None if envelope is None else read_envelope(envelope)


def _twin(device: str, module: str, state: DesiredState | None, row: ModuleRow) -> ModuleTwin:
    return ModuleTwin(
        device=device,
        module=module,
        desired=state.twins.get(module, {}) if state else {},
        desired_version=state.twin_versions.get(module, 0) if state else 0,
        patch=row.patch,
        reported=row.reported,
        reported_version=row.reported_version,
        reported_at=row.reported_at,
        revision=row.revision,
    )


def _check(device: str, module: str, patch: Mapping[str, Any]) -> None:
    problem, size = "", len(json_text(patch))
    try:
        check_bounds(patch)
    except UnboundedValue as unbounded:
        problem = str(unbounded)
    if size > MAX_REPORTED_BYTES:
        problem = f"it has {size} bytes, the limit is {MAX_REPORTED_BYTES}"
    if _VERSION in patch:
        problem = f"{_VERSION} is counted, not set"
    if problem:
        raise TwinInvalid(device=device, module=module, problem=problem)
