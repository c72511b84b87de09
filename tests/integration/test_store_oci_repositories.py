"""Repositories and tags in the store, in one order on both databases; artifacts that are written once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.contracts.names import Reference
from registry.errors import RecordNotFound
from registry.store import blobs, model_packs, oci_repositories
from registry.store.database import Database
from registry.store.model_packs import StoredPack
from registry.store.tables import model_versions
from tests.registry_stores import BACKENDS, NOW, add_image, add_model, digest_of_text, ready_database

IMAGES = ["a-b", "a.b", "a_b", "ab", "b", "models", "z"]
MODELS = ["a-b", "a.b", "a_b", "ab", "b"]


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


@pytest.mark.parametrize("size", [1, 3, 100])
def test_repositories_in_pages(database: Database, size: int) -> None:
    with database.write() as connection:
        for name in IMAGES:
            add_image(connection, name)
        for name in MODELS:
            add_model(connection, name)
            add_model(connection, name)
        add_model(connection, "gone")
        connection.execute(model_versions.update().where(model_versions.c.name == "gone").values(deleted_at="x"))
    found: list[str] = []
    with database.read() as connection:
        while page := oci_repositories.after(connection, found[-1] if found else "", size):
            found += page
    assert found == sorted([*IMAGES, *(f"models/{name}" for name in MODELS)])


def test_an_artifact_is_written_once(database: Database) -> None:
    with database.write() as connection:
        model = add_model(connection, "iris")
        for text in ("manifest", "config", "later"):
            blobs.record(connection, digest_of_text(text), len(text), NOW)
    first = StoredPack(digest_of_text("manifest"), digest_of_text("config"))
    with database.write() as connection:
        assert model_packs.of_version(connection, "iris", 1) is None
        assert model_packs.keep(connection, model, first) == first
        later = StoredPack(digest_of_text("later"), digest_of_text("config"))
        assert model_packs.keep(connection, model, later) == first, "whoever pulled it before finds the same digest again"
    with database.read() as connection:
        assert model_packs.is_manifest(connection, "iris", first.manifest_digest)
        assert not model_packs.is_manifest(connection, "iris", first.config_digest)
        assert not model_packs.is_manifest(connection, "other", first.manifest_digest)
        for digest in (first.manifest_digest, first.config_digest, model.files[0].digest):
            assert model_packs.has_blob(connection, "iris", digest)
            assert not model_packs.has_blob(connection, "other", digest)
        assert not model_packs.has_blob(connection, "iris", digest_of_text("later"))
        assert model_packs.tags_of(connection, "iris") == ["1", "latest"]
        assert model_packs.tags_of(connection, "other") == []


def test_the_artifact_of_a_version_that_went_away_is_not_written(database: Database) -> None:
    with database.write() as connection:
        model = add_model(connection, "iris")
        blobs.record(connection, digest_of_text("m"), 1, NOW)
        connection.execute(model_versions.update().values(deleted_at="x"))
    with database.write() as connection, pytest.raises(RecordNotFound):
        model_packs.keep(connection, model, StoredPack(digest_of_text("m"), digest_of_text("m")))


@pytest.mark.parametrize(
    ("tag", "reference"),
    [
        ("1", Reference("m", 1)),
        ("2147483647", Reference("m", 2**31 - 1)),
        ("latest", Reference("m")),
        ("champion", Reference("m", alias="champion")),
        ("0", None),
        ("01", None),
        ("2147483648", None),
        ("9" * 5000, None),
        ("x" * 129, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_a_tag_means(tag: str, reference: Reference | None) -> None:
    assert model_packs.reference_of("m", tag) == reference
