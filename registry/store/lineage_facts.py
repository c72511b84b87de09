"""What lineage says of each thing: the facts that a reader asks first. One query for each kind, however many things."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Table, select, union_all

from hedgerow.contracts.lineage import NodeKind
from hedgerow.contracts.model import SourceCommit
from registry.store.lineage_graph import Key, Thing, among
from registry.store.tables import (
    deployments,
    desired_images,
    device_sessions,
    devices,
    edge_deployments,
    environment_versions,
    image_versions,
    model_data,
    model_versions,
    run_data,
    runs,
    twins,
)
from registry.store.time_text import to_text

_MANY = 200
# A run may log thousands of metrics; who wants them all asks for the run.
_MOST_LOGGED, _LONGEST = 50, 200
_SHORT_COMMIT = 12


@dataclass(frozen=True)
class Said:
    """``name`` is for people, "" where the key says it; ``deleted`` by force, the row is a tombstone."""

    facts: dict[str, str] = field(default_factory=dict)
    name: str = ""
    deleted: bool = False


class _SeenRun(msgspec.Struct):
    experiment: str
    state: str
    script: str = ""
    metrics: dict[str, float | None] = {}
    parameters: dict[str, str] = {}


class _Sourced(msgspec.Struct):
    source: SourceCommit | None = None


class _SeenModule(msgspec.Struct):
    state: str
    reason: str = ""
    image_digest: str | None = None


class _SeenDevice(msgspec.Struct):
    modules: dict[str, _SeenModule] = {}


def describe(connection: Connection, things: Iterable[Thing], now: datetime) -> dict[Thing, Said]:
    """Each of ``things`` in the order given, with what is known of it."""
    found: dict[Thing, Said] = {thing: Said() for thing in things}
    keys: dict[NodeKind, list[Key]] = {}
    for thing in found:
        keys.setdefault(thing.kind, []).append(thing.key)
    for kind, of_kind in keys.items():
        for start in range(0, len(of_kind), _MANY):
            for key, said in _DESCRIBERS[kind](connection, of_kind[start : start + _MANY], now):
                found[Thing(kind, key)] = said
    return found


def _data(connection: Connection, keys: Sequence[Key], _now: datetime) -> Iterator[tuple[Key, Said]]:
    for row in _one_each(
        connection, [(run_data.c.digest, run_data.c.data_name), (model_data.c.digest, model_data.c.data_name)], keys
    ):
        yield (row.key,), Said({"digest": row.key}, name=row.value)


def _commits(connection: Connection, keys: Sequence[Key], _now: datetime) -> Iterator[tuple[Key, Said]]:
    columns = [(runs.c.source_commit, runs.c.document), (model_versions.c.source_commit, model_versions.c.manifest)]
    for row in _one_each(connection, columns, keys):
        source = msgspec.json.decode(row.value, type=_Sourced).source
        if source is not None:
            facts = {"repository": source.repository, "branch": source.branch, "dirty": "yes" if source.dirty else ""}
            yield (row.key,), Said(_given(facts), name=row.key[:_SHORT_COMMIT])


def _one_each(connection: Connection, columns: Sequence[tuple[Column[Any], Column[Any]]], keys: Sequence[Key]) -> Iterator[Any]:
    """For each key one row that has it: of 100 000 runs that read a data set, one tells its name."""
    questions = [
        select(select(at.label("key"), what.label("value")).where(at == key[0]).limit(1).subquery())
        for at, what in columns
        for key in keys
    ]
    return iter(connection.execute(union_all(*questions)).all())


def _runs(connection: Connection, keys: Sequence[Key], _now: datetime) -> Iterator[tuple[Key, Said]]:
    for row in connection.execute(select(runs.c.id, runs.c.document).where(among((runs.c.id,), keys))):
        run = msgspec.json.decode(row.document, type=_SeenRun)
        logged = [(f"metrics.{name}", _number(value)) for name, value in sorted(run.metrics.items())]
        logged += [(f"parameters.{name}", value[:_LONGEST]) for name, value in sorted(run.parameters.items())]
        facts = {"experiment": run.experiment, "state": run.state, "script": run.script}
        yield (row.id,), Said(facts | dict(logged[:_MOST_LOGGED]))


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.6g}"


def _versions(table: Table, *columns: str) -> Callable[[Connection, Sequence[Key], datetime], Iterator[tuple[Key, Said]]]:
    """Facts of models, environments and images: columns of their version, and whether it is a tombstone."""

    def tell(connection: Connection, keys: Sequence[Key], _now: datetime) -> Iterator[tuple[Key, Said]]:
        asked = [table.c[name] for name in ("name", "version", "created_at", "deleted_at", *columns)]
        for row in connection.execute(select(*asked).where(among((table.c.name, table.c.version), keys))):
            facts = {name: str(getattr(row, name)) for name in columns} | {"created_at": row.created_at}
            gone = _given({"deleted_at": row.deleted_at or ""})
            yield (row.name, row.version), Said(facts | gone, deleted=row.deleted_at is not None)

    return tell


def _deployments(connection: Connection, keys: Sequence[Key], _now: datetime) -> Iterator[tuple[Key, Said]]:
    here = among((deployments.c.endpoint, deployments.c.name), keys)
    for row in connection.execute(select(deployments).where(here)):
        facts = {"state": row.state, "image": f"{row.image_name}:{row.image_version}", "reason": row.reason[:_LONGEST]}
        yield (row.endpoint, row.name), Said(_given(facts))


def _edge_deployments(connection: Connection, keys: Sequence[Key], _now: datetime) -> Iterator[tuple[Key, Said]]:
    columns = edge_deployments.c
    for row in connection.execute(select(columns.name, columns.target, columns.revision).where(among((columns.name,), keys))):
        yield (row.name,), Said({"target": row.target[:_LONGEST], "revision": str(row.revision)})


def _modules(connection: Connection, keys: Sequence[Key], _now: datetime) -> Iterator[tuple[Key, Said]]:
    wanted = (image_versions.c.name == desired_images.c.image_name) & (image_versions.c.version == desired_images.c.image_version)
    query = (
        select(devices.c.name, desired_images, image_versions.c.digest, twins.c.reported)
        .join(desired_images, desired_images.c.device_uuid == devices.c.uuid)
        .join(image_versions, wanted)
        .outerjoin(twins, twins.c.device_uuid == devices.c.uuid)
        .where(among((devices.c.name, desired_images.c.module), keys))
    )
    for row in connection.execute(query):
        reported = msgspec.json.decode(row.reported, type=_SeenDevice) if row.reported else _SeenDevice()
        seen = reported.modules.get(row.module)
        facts = {"desired_image": f"{row.image_name}:{row.image_version}", "desired_digest": row.digest}
        facts |= (
            {"state": "not reported"}
            if seen is None
            else _given({"state": seen.state, "reason": seen.reason[:_LONGEST], "reported_digest": seen.image_digest or ""})
        )
        yield (row.name, row.module), Said(facts)


def _devices(connection: Connection, keys: Sequence[Key], now: datetime) -> Iterator[tuple[Key, Said]]:
    query = (
        select(devices.c.name, devices.c.revoked_at, twins.c.seen_at, twins.c.edge_deployment, device_sessions.c.expires_at)
        .outerjoin(twins, twins.c.device_uuid == devices.c.uuid)
        .outerjoin(device_sessions, device_sessions.c.device_uuid == devices.c.uuid)
        .where(among((devices.c.name,), keys))
    )
    for row in connection.execute(query):
        online = row.expires_at is not None and row.expires_at > to_text(now)
        state = "revoked" if row.revoked_at else "online" if online else "offline"
        yield (row.name,), Said(_given({"state": state, "seen_at": row.seen_at, "edge_deployment": row.edge_deployment}))


def _given(facts: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value}


_DESCRIBERS: dict[NodeKind, Callable[[Connection, Sequence[Key], datetime], Iterator[tuple[Key, Said]]]] = {
    "data": _data,
    "commit": _commits,
    "run": _runs,
    "environment": _versions(environment_versions, "digest"),
    "model": _versions(model_versions, "digest", "framework"),
    "image": _versions(image_versions, "digest", "kind"),
    "deployment": _deployments,
    "edge-deployment": _edge_deployments,
    "module": _modules,
    "device": _devices,
}
