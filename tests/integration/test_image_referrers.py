"""What lies beside an image: taken in with a build's layout, kept by garbage collections, gone with its image."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from hedgerow.contracts.document import encode
from hedgerow.contracts.events import Actor
from hedgerow.contracts.image import ImageRecord, PlatformImage, Referrer
from hedgerow.contracts.names import ARTIFACT_BUILD_REPORT, ARTIFACT_SBOM, MEDIA_OCI_MANIFEST, Reference
from registry.blobs import FolderStore
from registry.controller.file_work.tasks import TakeIn
from registry.store import blobs, garbage, image_referrers, images, pushes, repository_tags
from registry.store.database import Database
from registry.store.pushes import Pushed
from registry.store.tables import blobs as known
from registry.store.tables import edge_deployments, edge_images, image_blobs, pushed_blobs
from registry.store.tables import image_referrers as beside
from registry.store.time_text import to_text
from tests.oci_client import Image, artifact, container, digest_of
from tests.registry_stores import BACKENDS, NOW, after, ready_database

IMAGE = container(b"layer one")
SBOM = artifact(IMAGE, b"sbom", ARTIFACT_SBOM, author="packager")
REPORT = artifact(IMAGE, b"report", ARTIFACT_BUILD_REPORT)


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


def referrer(image: Image, artifact_type: str, **annotations: str) -> Referrer:
    return Referrer(
        digest=image.digest,
        media_type=MEDIA_OCI_MANIFEST,
        artifact_type=artifact_type,
        size_bytes=len(image.manifest),
        subject=IMAGE.digest,
        annotations=annotations,
    )


LISTED = sorted(
    [referrer(SBOM, ARTIFACT_SBOM, author="packager"), referrer(REPORT, ARTIFACT_BUILD_REPORT)], key=lambda one: one.digest
)


def parts_of(*all_of: Image) -> list[tuple[str, str]]:
    return [(digest_of(part), "x") for image in all_of for part in (image.manifest, *image.blobs)]


def add(connection: Connection, name: str = "churn", *, lease_s: float = 0.0) -> ImageRecord:
    """A version of the image with both beside it, as a build registers it."""
    for image in (IMAGE, SBOM, REPORT):
        for part in (image.manifest, *image.blobs):
            blobs.record(connection, digest_of(part), len(part), NOW, lease_s=lease_s)
    record = ImageRecord(
        name=name,
        version=images.next_version(connection, name),
        kind="docker",
        digest=IMAGE.digest,
        media_type=MEDIA_OCI_MANIFEST,
        size_bytes=1,
        platforms=[PlatformImage(platform="linux/amd64", digest=IMAGE.digest, size_bytes=1)],
        models=[],
        tool_version="test",
        created_at=NOW,
    )
    images.insert(connection, record, parts_of(IMAGE, SBOM, REPORT), LISTED)
    return record


def garbage_now(connection: Connection) -> set[str]:
    return {one.digest for one in garbage.find(connection, after(1), "", 1000)}


def test_they_are_found_and_kept_as_long_as_their_image(database: Database) -> None:
    with database.write() as connection:
        add(connection)
        add(connection)
    with database.read() as connection:
        assert image_referrers.of_subject(connection, "churn", IMAGE.digest) == LISTED, "of two versions each once"
        assert image_referrers.of_version(connection, "churn", 2) == LISTED
        assert image_referrers.of_subject(connection, "other", IMAGE.digest) == []
        assert image_referrers.of_subject(connection, "churn", SBOM.digest) == []
        assert images.find_blob(connection, "churn", digest_of(b"sbom")) is not None
        assert garbage_now(connection) == set()
    with database.write() as connection:
        images.delete_version(connection, Reference("churn", 1))
    with database.read() as connection:
        assert image_referrers.of_subject(connection, "churn", IMAGE.digest) == LISTED
        assert garbage_now(connection) == set()
    with database.write() as connection:
        images.delete_version(connection, Reference("churn", 2))
    with database.read() as connection:
        assert image_referrers.of_subject(connection, "churn", IMAGE.digest) == []
        assert garbage_now(connection) == {digest for digest, _ in parts_of(IMAGE, SBOM, REPORT)}


def test_a_forced_deletion_takes_them_along(database: Database) -> None:
    with database.write() as connection:
        record = add(connection)
        row = {"name": "e", "revision": 1, "target": "*", "priority": 0, "document": "{}", "created_at": to_text(NOW)}
        connection.execute(edge_deployments.insert().values(**row))
        use = {"edge_deployment": "e", "module": "m", "image_name": record.name, "image_version": record.version}
        connection.execute(edge_images.insert().values(**use))
    with database.write() as connection:
        actor = Actor(id="t", name="t", role="owner")
        assert images.force_delete(connection, Reference("churn", 1), actor, after(1)).users != []
    with database.read() as connection:
        for table in (beside, image_blobs):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0
        assert garbage_now(connection) == {digest for digest, _ in parts_of(IMAGE, SBOM, REPORT)}


def test_what_was_pushed_is_a_repositorys_for_its_lease(database: Database) -> None:
    digest = digest_of(b"pushed")
    with database.write() as connection:
        until = blobs.record(connection, digest, 6, NOW, lease_s=100)
        pushes.note(connection, "mine", Pushed(digest, MEDIA_OCI_MANIFEST, referrer(SBOM, ARTIFACT_SBOM)), until)
        pushes.note(connection, "mine", Pushed(digest, ""), until)
    with database.write() as connection:
        assert pushes.sizes_in(connection, "mine", [digest, IMAGE.digest], after(99)) == {digest: 6}
        assert pushes.sizes_in(connection, "theirs", [digest], after(99)) == {}
        found = pushes.find(connection, "mine", digest, after(99))
        assert found is not None
        assert found.media_type == MEDIA_OCI_MANIFEST, "a manifest stays one when its bytes come as a blob, too"
        assert pushes.waiting_for(connection, "mine", IMAGE.digest, after(99)) == [referrer(SBOM, ARTIFACT_SBOM)]
        assert pushes.sizes_in(connection, "mine", [digest], after(100)) == {}
        assert pushes.find(connection, "mine", digest, after(100)) is None
        assert pushes.hold(connection, "mine", [digest], after(99), 100) == {digest: 6}
    with database.write() as connection:
        assert pushes.sizes_in(connection, "mine", [digest], after(198)) == {digest: 6}, "held anew"
        pushes.forget_expired(connection, after(150))
        assert connection.execute(select(func.count()).select_from(pushed_blobs)).scalar_one() == 1
        pushes.forget_expired(connection, after(200))
        assert connection.execute(select(func.count()).select_from(pushed_blobs)).scalar_one() == 0


def test_a_collection_takes_what_was_pushed_and_never_used(database: Database) -> None:
    digest = digest_of(b"left")
    with database.write() as connection:
        pushes.note(connection, "mine", Pushed(digest, ""), blobs.record(connection, digest, 4, NOW, lease_s=1))
    with database.write() as connection:
        found = garbage.find(connection, after(2), "", 10)
        assert [one.digest for one in found] == [digest]
        condemned = garbage.condemn(connection, found, after(2))
        assert pushes.sizes_in(connection, "mine", [digest], NOW) == {}, "condemned is gone"
        assert garbage.forget(connection, condemned) == condemned
        for table in (known, pushed_blobs):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0


def test_a_refused_number_reserves_none(database: Database) -> None:
    with database.write() as connection:
        assert repository_tags.place_for(connection, "new", "1", IMAGE.digest).version == 1
        assert repository_tags.hold_name(connection, "new") == 1
        assert repository_tags.place_for(connection, "new", "2", IMAGE.digest).version == 2
    with database.write() as connection, pytest.raises(Exception, match="the next version is 3"):
        repository_tags.place_for(connection, "new", "4", IMAGE.digest)
    with database.write() as connection:
        assert repository_tags.place_for(connection, "new", "v1", IMAGE.digest).tags == {images.PUSHED_AS: "v1"}


def layout_with(folder: Path, *all_of: Image) -> None:
    target = folder / "layout" / "blobs" / "sha256"
    target.mkdir(parents=True)
    for image in all_of:
        for content in (image.manifest, *image.blobs):
            (target / digest_of(content)[7:]).write_bytes(content)


def take_in(folder: Path, *referrers: str) -> dict[str, Any]:
    order = folder / "task.json"
    task = TakeIn(
        blobs=str(folder / "blobs"),
        layout=str(folder / "layout"),
        digest=IMAGE.digest,
        media_type=MEDIA_OCI_MANIFEST,
        referrers=list(referrers),
    )
    order.write_bytes(encode(task))
    argv = [sys.executable, "-P", "-m", "registry.controller.file_work", str(order)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def test_they_are_taken_in_with_the_layout(tmp_path: Path) -> None:
    layout_with(tmp_path, IMAGE, SBOM)
    taken = take_in(tmp_path, SBOM.digest)["result"]["parts"]
    assert {one["digest"] for one in taken} == {digest for digest, _ in parts_of(IMAGE, SBOM)}
    store = FolderStore(tmp_path / "blobs")
    for content in (SBOM.manifest, *SBOM.blobs):
        with store.open(digest_of(content)) as stored:
            assert stored.read() == content
    assert take_in(tmp_path, REPORT.digest)["problem"]["code"] == "layout_broken"
