"""What a workspace of 0.1.0 holds after its records were migrated: nothing is lost, and what is new knows what is old."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, select

from hedgerow.contracts.names import Reference
from registry.store import images, models, schema
from registry.store.database import Database, open_database
from registry.store.model_search import Label, ModelQuery
from registry.store.model_words import parse_words
from tests.registry_stores import BACKENDS

AT = "2026-01-01T00:00:00.000000Z"
DIGEST = f"sha256:{sha256(b'weights').hexdigest()}"
MANIFEST = {
    "schema_version": 1,
    "name": "pump",
    "version": 3,
    "digest": DIGEST,
    "files": [{"path": "model.onnx", "digest": DIGEST, "size_bytes": 7}],
    "description": "Straße",
    "tags": {"stage": "prod"},
    "properties": {"rows": "100"},
    "created_at": "2026-01-01T00:00:00Z",
}
RECORD = {
    "schema_version": 1,
    "name": "pump-image",
    "version": 1,
    "kind": "onnx",
    "digest": DIGEST,
    "media_type": "application/vnd.oci.image.manifest.v1+json",
    "size_bytes": 7,
    "platforms": [],
    "models": [{"name": "pump", "version": 3, "digest": DIGEST}],
    "tool_version": "0.1.0",
    "created_at": "2026-01-01T00:00:00Z",
}
MODULES = {
    "by-version": {"image": "pump-image:1"},
    "by-digest": {"image": f"pump-image@{DIGEST}"},
    "newest": {"image": "pump-image"},
    "gone": {"image": "pump-image:9"},
    "program": {"command": ["relay"]},
}
OLD: list[tuple[str, dict[str, Any]]] = [
    ("blobs", {"digest": DIGEST, "size_bytes": 7, "stored_at": AT}),
    ("model_names", {"name": "pump", "last_version": 5}),
    (
        "model_versions",
        {
            "name": "pump",
            "version": 3,
            "digest": DIGEST,
            "framework": "custom",
            "manifest": json.dumps(MANIFEST),
            "created_at": AT,
        },
    ),
    ("model_files", {"name": "pump", "version": 3, "path": "model.onnx", "digest": DIGEST}),
    ("image_names", {"name": "pump-image", "last_version": 1}),
    (
        "image_versions",
        {
            "name": "pump-image",
            "version": 1,
            "digest": DIGEST,
            "kind": "onnx",
            "record": json.dumps(RECORD),
            "created_at": AT,
        },
    ),
    ("image_models", {"image_name": "pump-image", "image_version": 1, "model_name": "pump", "model_version": 3}),
    (
        "edge_deployments",
        {
            "name": "presses",
            "revision": 1,
            "target": "name = 'x'",
            "priority": 0,
            "document": json.dumps({"name": "presses", "target": "name = 'x'", "modules": MODULES}),
            "created_at": AT,
        },
    ),
]


@pytest.fixture(params=BACKENDS)
def migrated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    database = open_database(url, tmp_path)
    with database.write() as connection:
        schema.lay_out(connection, schema.RECORDS_PART, "records_0001", tmp_path)
        tables = MetaData()
        tables.reflect(connection)
        for name, row in OLD:
            connection.execute(tables.tables[name].insert().values(row))
    with database.write() as connection:
        schema.migrate(connection, schema.RECORDS_PART, tmp_path)
    yield database
    database.close()


def found(connection: Connection, **wanted: Any) -> list[str]:
    return [f"{one.name}:{one.version}" for one in models.find(connection, ModelQuery(**wanted), 10)[0]]


def test_old_models_are_shown_and_found(migrated: Database) -> None:
    with migrated.read() as connection:
        assert models.get(connection, Reference("pump")).version == 3
        for wanted in (
            {"tags": (Label("stage", "prod"),)},
            {"properties": (Label("rows", "100"),)},
            {"words": parse_words("STRASSE")},
        ):
            assert found(connection, **wanted) == ["pump:3"]


def test_images_that_an_old_manifest_names_are_in_use(migrated: Database) -> None:
    with migrated.read() as connection:
        assert images.users_of(connection, "pump-image", 1) == [
            "module by-digest of edge deployment presses",
            "module by-version of edge deployment presses",
        ]


def test_the_next_version_was_never_given(migrated: Database) -> None:
    with migrated.write() as connection:
        names = MetaData()
        names.reflect(connection, only=["model_names"])
        assert connection.execute(select(names.tables["model_names"].c.last_version)).scalar_one() == 5
