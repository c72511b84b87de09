"""Image versions in the store: reserved numbers, blobs, users, and what a device may have of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from hedgerow.contracts.names import MEDIA_OCI_MANIFEST, Reference
from registry.errors import InUse, RecordNotFound
from registry.store import images
from registry.store.database import Database
from registry.store.image_conditions import Wanted
from registry.store.tables import deployments, desired_images, devices, endpoints
from registry.store.time_text import to_text
from tests.registry_stores import BACKENDS, NOW, add_image, add_model, after, digest_of_text, ready_database


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


def serve_it(connection: Connection, name: str, version: int) -> None:
    connection.execute(endpoints.insert().values(name="e", revision=1, traffic="{}", created_at=to_text(NOW)))
    connection.execute(
        deployments.insert().values(
            endpoint="e", name="d", revision=1, image_name=name, image_version=version, settings="{}", state="ready",
            created_at=to_text(NOW),
        )
    )  # fmt: skip


def want_it(connection: Connection, device: str, name: str, version: int) -> None:
    connection.execute(
        devices.insert().values(uuid=f"uuid-{device}", name=device, tags="{}", key_generation=1, enrolled_at=to_text(NOW))
    )
    connection.execute(
        desired_images.insert().values(device_uuid=f"uuid-{device}", module="m", image_name=name, image_version=version)
    )


def test_a_build_that_fails_leaves_its_number_unused(database: Database) -> None:
    with database.write() as connection:
        assert images.next_version(connection, "i") == 1
    with database.write() as connection:
        assert add_image(connection, "i").version == 2
    with database.read() as connection:
        assert images.versions_of(connection, "i") == [2]
        with pytest.raises(RecordNotFound):
            images.get(connection, Reference("i", 1))


def test_an_image_is_found_by_reference_and_digest(database: Database) -> None:
    with database.write() as connection:
        model = add_model(connection)
        first = add_image(connection, "i", model, manifest="{1}", now=after(1))
        second = add_image(connection, "i", model, manifest="{2}", now=after(2))
        same = add_image(connection, "j", model, manifest="{2}", now=after(3))
    with database.read() as connection:
        assert images.get(connection, Reference("i")) == second
        assert images.get(connection, Reference("i", digest=first.digest)) == first
        assert images.newest(connection, 10, wanted=Wanted(digest=second.digest))[0] == [same, second]
        assert images.newest(connection, 10, wanted=Wanted(digest=digest_of_text("nothing")))[0] == []
        assert images.digest_of(connection, "i", 1) == first.digest
        assert [record.name for record in images.newest(connection, 2)[0]] == ["j", "i"]


def test_an_image_needs_blobs_that_are_known(database: Database) -> None:
    with database.write() as connection:
        record = add_image(connection, "i")
        images.delete_version(connection, Reference("i"))
    with pytest.raises(IntegrityError), database.write() as connection:
        images.insert(connection, record, [(digest_of_text("never stored"), MEDIA_OCI_MANIFEST)])
    with database.read() as connection:
        assert images.versions_of(connection, "i") == []


def test_an_image_that_runs_somewhere_stays(database: Database) -> None:
    with database.write() as connection:
        add_image(connection, "i")
        serve_it(connection, "i", 1)
        want_it(connection, "press-7", "i", 1)
    with database.write() as connection, pytest.raises(InUse, match="deployment e/d, module m of device press-7"):
        images.delete_version(connection, Reference("i"))
    with database.write() as connection:
        connection.execute(deployments.delete())
        connection.execute(desired_images.delete())
        images.delete_version(connection, Reference("i"))
    with database.write() as connection:
        assert add_image(connection, "i").version == 2


def test_a_device_has_what_its_desired_state_names(database: Database) -> None:
    with database.write() as connection:
        wanted = add_image(connection, "i", manifest="{1}")
        add_image(connection, "i", manifest="{2}")
        want_it(connection, "press-7", "i", 1)
    with database.read() as connection:
        everybody = images.find_blob(connection, "i", digest_of_text("{2}"))
        assert everybody is not None
        assert everybody.media_type == MEDIA_OCI_MANIFEST
        assert images.versions_of(connection, "i") == [1, 2]
        assert images.versions_of(connection, "i", device_uuid="uuid-press-7") == [1]
        assert images.find_blob(connection, "i", wanted.digest, device_uuid="uuid-press-7") is not None
        assert images.find_blob(connection, "i", digest_of_text("{2}"), device_uuid="uuid-press-7") is None
        assert images.find_blob(connection, "i", wanted.digest, device_uuid="uuid-other") is None
        assert images.find_blob(connection, "other", wanted.digest) is None
