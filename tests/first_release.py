"""A workspace as 0.1.0 left it, in which everything has a name that only 0.1.0 took (docs/decisions/006)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData

from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredModule, DesiredState, ModuleSpec
from hedgerow.contracts.names import MEDIA_OCI_MANIFEST, PAYLOAD_DESIRED_STATE
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.signed import sign
from hedgerow.contracts.status import DesiredOutcome, ModuleStatus, StatusReport
from registry.store import facts, schema
from registry.store.database import open_database
from registry.workspace import open_workspace
from tests.registry_stores import NOW, digest_of_text

MODEL, ENVIRONMENT, IMAGE = "line..7", "py._3", "line..7.-image"
ENDPOINT, DEPLOYMENT, EXPERIMENT = "press___1", "blue..green", "shift___2"
DEVICE, EDGE, MODULE, STREAM, TOKEN = "press..1", "north._line", "scorer___a", "raw..x", "ci..bot"
QUEUED, GONE = "line..8", "py..gone"
UUID = "7d1f0a52-3c1b-4a53-9a38-0d5a8f6a4c11"
AT, SHOWN = "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00Z"
WEIGHTS, LAYOUT, SCRIPT = (digest_of_text(text) for text in ("weights", "{}", "print(1)\n"))
_FILE = {"path": "model.onnx", "digest": WEIGHTS, "size_bytes": 7}
_SNAPSHOT = [{"path": "train.py", "digest": SCRIPT, "size_bytes": 9}]
_MODULES: dict[str, Any] = {MODULE: {"kind": "process", "image": f"{IMAGE}:1"}}

Rows = list[tuple[str, dict[str, Any]]]


def make_workspace(folder: Path, url: str | None) -> None:
    """The folder and its database (None: SQLite in it), not migrated yet."""
    workspace = open_workspace(folder)
    database = open_database(url, workspace.folder)
    try:
        with database.write() as connection:
            schema.lay_out(connection, schema.RECORDS_PART, "records_0001", folder)
            _insert(connection, [*_assets(), *_builds(), *_serving(), *_fleet(), *_others()])
            facts.initialise(connection, workspace.id)
        with database.write_series() as connection:
            schema.lay_out(connection, schema.SERIES_PART, "series_0001", folder)
            _insert(connection, _series())
    finally:
        database.close()


def _insert(connection: Connection, rows: Rows) -> None:
    tables = MetaData()
    tables.reflect(connection)
    for name, row in rows:
        connection.execute(tables.tables[name].insert().values(row))


def image_record(version: int) -> dict[str, Any]:
    """As 0.1.0 wrote it: without a word about the environment."""
    return {
        "schema_version": 1,
        "name": IMAGE,
        "version": version,
        "kind": "onnx",
        "digest": LAYOUT,
        "media_type": MEDIA_OCI_MANIFEST,
        "size_bytes": 2,
        "platforms": [],
        "models": [{"name": MODEL, "version": 1, "digest": WEIGHTS}],
        "tool_version": "0.1.0",
        "verification": {"state": "passed", "reason": "Prüfung", "max_abs_error": 2.4e-07},
        "created_at": SHOWN,
    }


def _assets() -> Rows:
    facts_of = {"schema_version": 1, "version": 1, "digest": WEIGHTS, "created_at": SHOWN}
    version = {"version": 1, "digest": WEIGHTS, "created_at": AT}
    manifest = json.dumps({**facts_of, "name": MODEL, "files": [_FILE]})
    document = json.dumps({**facts_of, "name": ENVIRONMENT, "requirements": ["numpy"]})
    images = [json.dumps(image_record(number)) for number in (1, 2, 3)]
    return [
        ("blobs", {"digest": WEIGHTS, "size_bytes": 7, "stored_at": AT}),
        ("blobs", {"digest": LAYOUT, "size_bytes": 2, "stored_at": AT}),
        ("blobs", {"digest": SCRIPT, "size_bytes": 9, "stored_at": AT}),
        ("model_names", {"name": MODEL, "last_version": 1}),
        ("model_versions", {"name": MODEL, **version, "framework": "onnx", "manifest": manifest}),
        ("model_files", {"name": MODEL, "version": 1, "path": "model.onnx", "digest": WEIGHTS}),
        ("environment_names", {"name": ENVIRONMENT, "last_version": 1}),
        ("environment_versions", {"name": ENVIRONMENT, **version, "document": document}),
        ("image_names", {"name": IMAGE, "last_version": 3}),
        *(
            row
            for number, record in enumerate(images, 1)
            for row in (
                (
                    "image_versions",
                    {"name": IMAGE, "version": number, "digest": LAYOUT, "kind": "onnx", "record": record, "created_at": AT},
                ),
                ("image_models", {"image_name": IMAGE, "image_version": number, "model_name": MODEL, "model_version": 1}),
                (
                    "image_blobs",
                    {"image_name": IMAGE, "image_version": number, "digest": LAYOUT, "media_type": MEDIA_OCI_MANIFEST},
                ),
            )
        ),
    ]


def _builds() -> Rows:
    """Version 1 was built in an environment, 2 in none, 3 in one that is not there; another build has not begun."""
    wanted = {"name": IMAGE, "kind": "onnx", "models": [f"{MODEL}:1"], "source": _SNAPSHOT}
    used = {1: f"{ENVIRONMENT}:1", 2: None, 3: f"{GONE}:1"}
    work = {"kind": "image.build", "subject": IMAGE, "created_at": AT}
    done = [
        {
            **work,
            "id": f"build-{version}",
            "state": "succeeded",
            "request": json.dumps({**wanted, "environment": environment}),
            "result": json.dumps({"image": f"{IMAGE}:{version}", "digest": LAYOUT}),
            "ended_at": AT,
        }
        for version, environment in used.items()
    ]
    failed = {"problem": '{"code":"x","message":"x","remedy":"x"}', "ended_at": AT}
    request = json.dumps({**wanted, "name": QUEUED, "environment": f"{ENVIRONMENT}:1"})
    waiting = {**work, "id": "build-4", "subject": QUEUED, "state": "queued", "request": request}
    return [
        *(("activities", row) for row in done),
        ("activities", {**work, "id": "build-0", "state": "failed", "request": json.dumps(wanted), **failed}),
        ("activities", waiting),
    ]


def _serving() -> Rows:
    pinned = {"image_name": IMAGE, "image_version": 1}
    deployment = {"endpoint": ENDPOINT, "name": DEPLOYMENT, "revision": 1, **pinned, "settings": "{}", "state": "ready"}
    traffic = json.dumps({DEPLOYMENT: 100})
    return [
        ("endpoints", {"name": ENDPOINT, "revision": 1, "traffic": traffic, "created_at": AT}),
        ("deployments", {**deployment, "created_at": AT}),
    ]


def _fleet() -> Rows:
    target = f"deviceId = '{DEVICE}'"
    manifest = {"schema_version": 1, "name": EDGE, "target": target, "modules": _MODULES, "created_at": SHOWN}
    row = {"name": EDGE, "revision": 1, "target": target, "priority": 0, "document": json.dumps(manifest), "created_at": AT}
    pin = ImagePin(name=IMAGE, version=1, digest=LAYOUT, kind="onnx")
    state = DesiredState(
        device_uuid=UUID,
        version=4,
        incarnation="i",
        issued_at=NOW,
        edge_deployment=EDGE,
        modules={MODULE: DesiredModule(spec=ModuleSpec(image=f"{IMAGE}:1"), image=pin)},
    )
    envelope = sign(PAYLOAD_DESIRED_STATE, encode(state), {"k": lambda message: message[:4]})
    report = StatusReport(
        device_uuid=UUID,
        session="s",
        sequence=1,
        reported_at=NOW,
        agent_version="0.1.0",
        boot_id="b",
        desired=DesiredOutcome(version=4, code=200, message="applied"),
        modules={MODULE: ModuleStatus(state="running", reason="well", image_digest=LAYOUT)},
    )
    twin = {"device_uuid": UUID, "desired_version": 4, "edge_deployment": EDGE, "edge_revision": 1, "desired": envelope}
    return [
        ("devices", {"uuid": UUID, "name": DEVICE, "tags": "{}", "key_generation": 1, "enrolled_at": AT}),
        ("edge_deployments", row),
        ("twins", {**twin, "reported": encode(report).decode(), "seen_at": AT}),
        ("desired_images", {"device_uuid": UUID, "module": MODULE, "image_name": IMAGE, "image_version": 1}),
        ("fleet_events", {"at": AT, "device_uuid": UUID, "kind": "started", "reason": "x"}),
    ]


def _others() -> Rows:
    run = {
        "schema_version": 1,
        "id": "run-1",
        "experiment": EXPERIMENT,
        "state": "succeeded",
        "script": "train.py",
        "snapshot": _SNAPSHOT,
        "snapshot_digest": SCRIPT,
        "activity_id": "train-1",
        "created_at": SHOWN,
    }
    task = {"id": "train-1", "kind": "run", "subject": "run-1", "state": "succeeded", "request": '{"run":"run-1"}'}
    row = {"id": "run-1", "experiment": EXPERIMENT, "state": "succeeded", "activity_id": "train-1", "created_at": AT}
    return [
        ("activities", {**task, "created_at": AT, "ended_at": AT}),
        ("runs", {**row, "document": json.dumps(run)}),
        ("run_blobs", {"run_id": "run-1", "part": "snapshot", "path": "train.py", "digest": SCRIPT}),
        ("tokens", {"id": "t1", "name": TOKEN, "role": "reader", "secret_hash": "h", "created_at": AT}),
    ]


def _series() -> Rows:
    key = {"device_uuid": UUID, "epoch": "e", "stream": STREAM}
    told = {**key, "sequence": 1, "module": MODULE, "time_ms": 1, "received_ms": 1, "body": "{}"}
    return [
        ("messages", told),
        ("gaps", {**key, "first_sequence": 2, "last_sequence": 3, "reason": "quota", "recorded_ms": 1}),
    ]
