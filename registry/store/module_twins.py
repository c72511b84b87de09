"""Twins of modules: what each reported last, and what operators patched into what is desired of it.

A row is there from a module's first report or first patch on. Its ``reported`` goes when the device should not run the module any
more; the patch stays for when it comes back, with its revision, so that an ETag never means two things.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, select, update

from hedgerow.contracts.merge_patch import json_text
from registry.store.tables import module_twins
from registry.store.time_text import maybe_from_text, to_text
from registry.store.upsert import insert

# The device's UUID and the module's name.
Key = tuple[str, str]


@dataclass(frozen=True)
class ModuleRow:
    """What the store has of one module; ``epoch`` empty: it has not reported."""

    module: str
    patch: dict[str, Any]
    revision: int
    epoch: str
    reported: dict[str, Any]
    reported_version: int
    reported_at: datetime | None


NOTHING = ModuleRow("", {}, 0, "", {}, 0, None)


def of_device(connection: Connection, device_uuid: str) -> dict[str, ModuleRow]:
    """Every module of a device that has a row."""
    query = select(module_twins).where(module_twins.c.device_uuid == device_uuid).order_by(module_twins.c.module)
    return {row.module: _read(row) for row in connection.execute(query)}


def reported_of(connection: Connection, keys: Iterable[Key]) -> dict[Key, ModuleRow]:
    """Those of ``keys`` that have a row. Whoever goes on to write holds the devices' rows (``twins.known_devices``)."""
    wanted = set(keys)
    query = select(module_twins).where(
        module_twins.c.device_uuid.in_({uuid for uuid, _ in wanted}), module_twins.c.module.in_({name for _, name in wanted})
    )
    return {(row.device_uuid, row.module): _read(row) for row in connection.execute(query)} if wanted else {}


def put_reported(
    connection: Connection, key: Key, *, epoch: str, version: int, reported: Mapping[str, object], now: datetime
) -> None:
    """What a module reports from now on."""
    values = {
        "epoch": epoch,
        "reported": json_text(reported).decode(),
        "reported_version": version,
        "reported_at": to_text(now),
    }
    statement = insert(connection, module_twins).values(device_uuid=key[0], module=key[1], **values)
    connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=values))


def put_patch(connection: Connection, device_uuid: str, module: str, patch: Mapping[str, object]) -> None:
    """What is patched into a module's desired properties from now on: the next revision. The caller holds the device's row."""
    text = json_text(patch).decode()
    statement = insert(connection, module_twins).values(device_uuid=device_uuid, module=module, patch=text, revision=1)
    changed = {"patch": text, "revision": module_twins.c.revision + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=changed))


def patches(connection: Connection, device_uuids: Iterable[str] | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """By device (all, or those of ``device_uuids``) and module; only modules that have one."""
    query = select(module_twins.c.device_uuid, module_twins.c.module, module_twins.c.patch).where(module_twins.c.patch != "{}")
    if device_uuids is not None:
        query = query.where(module_twins.c.device_uuid.in_(list(device_uuids)))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.device_uuid, {})[row.module] = _object(row.patch)
    return found


def forget_others(connection: Connection, device_uuid: str, modules: Collection[str]) -> None:
    """The device should run exactly ``modules``: what others reported goes, and their rows if there was no patch."""
    other = (module_twins.c.device_uuid == device_uuid, module_twins.c.module.not_in(list(modules)))
    connection.execute(delete(module_twins).where(*other, module_twins.c.revision == 0))
    cleared = {"epoch": "", "reported": "{}", "reported_version": 0, "reported_at": None}
    connection.execute(update(module_twins).where(*other, module_twins.c.epoch != "").values(**cleared))


def _read(row: Row[Any]) -> ModuleRow:
    return ModuleRow(
        module=row.module,
        patch=_object(row.patch),
        revision=row.revision,
        epoch=row.epoch,
        reported=_object(row.reported),
        reported_version=row.reported_version,
        reported_at=maybe_from_text(row.reported_at),
    )


def _object(text: str) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any])


_KEY = [module_twins.c.device_uuid, module_twins.c.module]
