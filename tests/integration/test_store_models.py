"""Model versions in the store: whole or not at all, numbered once and for ever, protected by what is made of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from hedgerow.contracts.api import RegisterModel
from hedgerow.contracts.model import FileEntry
from hedgerow.contracts.names import Reference
from hedgerow.errors import HedgerowError
from registry.blobs.errors import BlobMissing, BlobSizeWrong
from registry.errors import FilesCollide, InUse, InvalidPage, RecordNotFound
from registry.store import images, model_deletion, models
from registry.store.database import Database
from registry.store.events import system
from registry.store.tables import model_versions
from tests.registry_stores import BACKENDS, NOW, add_image, add_model, after, digest_of_text, known_file, ready_database

OWNER = system("owner")


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


def versions(database: Database, name: str) -> list[int]:
    with database.read() as connection:
        found, following = models.newest(connection, 1000, name=name)
    assert following is None
    return [manifest.version for manifest in found]


def test_versions_count_up_and_are_found_by_every_kind_of_reference(database: Database) -> None:
    with database.write() as connection:
        first = add_model(connection, now=after(1))
        second = add_model(connection, now=after(2), description="später", tags={"stage": "prod"})
    with database.read() as connection:
        assert models.get(connection, Reference("shuttle")) == second
        assert models.get(connection, Reference("shuttle", version=1)) == first
        # Equal files, equal digest: the newest of them answers.
        assert models.get(connection, Reference("shuttle", digest=first.digest)) == second
        for missing in (Reference("shuttle", version=3), Reference("other"), Reference("shuttle", digest=digest_of_text("x"))):
            with pytest.raises(RecordNotFound):
                models.get(connection, missing)


def test_a_registration_that_fails_leaves_nothing(database: Database) -> None:
    def attempt(*files: FileEntry, run_id: str | None = None) -> None:
        with database.write() as connection:
            known_file(connection, "a", "known")
            models.register(connection, RegisterModel(name="m", files=list(files), run_id=run_id), after(0))

    good = FileEntry(path="a", digest=digest_of_text("known"), size_bytes=5)
    with pytest.raises(BlobMissing, match=r"b/c"):
        attempt(good, FileEntry(path="b/c", digest=digest_of_text("unknown"), size_bytes=1))
    with pytest.raises(BlobSizeWrong, match="6 bytes"):
        attempt(FileEntry(path="a", digest=digest_of_text("known"), size_bytes=6))
    with pytest.raises(RecordNotFound, match="run"):
        attempt(good, run_id="no-such-run")
    with database.write() as connection, pytest.raises(FilesCollide):
        models.register(connection, RegisterModel(name="m", files=[good, good]), after(0))
    assert versions(database, "m") == []
    with database.write() as connection:
        assert add_model(connection, "m").version == 1


def test_200_at_once_get_200_numbers(database: Database) -> None:
    with database.write() as connection:
        files = [known_file(connection, "model.onnx", "weights")]
    numbers: list[int] = []
    problems: list[Exception] = []

    def register_some() -> None:
        for _ in range(10):
            try:
                with database.write() as connection:
                    numbers.append(models.register(connection, RegisterModel(name="busy", files=files), after(0)).version)
            except (HedgerowError, SQLAlchemyError) as problem:
                problems.append(problem)

    threads = [threading.Thread(target=register_some) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert problems == []
    assert sorted(numbers) == list(range(1, 201))


def test_a_deleted_number_is_never_used_again(database: Database) -> None:
    with database.write() as connection:
        add_model(connection)
        add_model(connection)
    with database.write() as connection:
        model_deletion.delete_version(connection, Reference("shuttle", 2), OWNER, NOW)
        model_deletion.delete_version(connection, Reference("shuttle", 1), OWNER, NOW)
    assert versions(database, "shuttle") == []
    with database.write() as connection:
        assert add_model(connection).version == 3


def test_a_model_that_an_image_is_made_of_stays(database: Database) -> None:
    with database.write() as connection:
        model = add_model(connection)
        add_image(connection, "one", model)
        add_image(connection, "two", model)
    with database.write() as connection, pytest.raises(InUse, match="image one:1, image two:1"):
        model_deletion.delete_version(connection, Reference("shuttle"), OWNER, NOW)
    # Even code that forgets to ask is stopped, by the database.
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(model_versions.delete())
    with database.write() as connection:
        images.delete_version(connection, Reference("one"))
        images.delete_version(connection, Reference("two"))
        model_deletion.delete_version(connection, Reference("shuttle"), OWNER, NOW)
    assert versions(database, "shuttle") == []


def test_tags_narrow_the_list(database: Database) -> None:
    odd = {'it\'s "odd"': "va'lue", "stage": "prod"}
    with database.write() as connection:
        add_model(connection, "a", tags={"stage": "prod"})
        add_model(connection, "b", tags=odd)
        add_model(connection, "c", tags={"stage": "test"})

    def named(name: str | None = None, tags: dict[str, str] | None = None) -> list[str]:
        with database.read() as connection:
            return [manifest.name for manifest in models.newest(connection, 10, name=name, tags=tags)[0]]

    assert named(tags={"stage": "prod"}) == ["b", "a"]
    assert named(tags=odd) == ["b"]
    assert named(tags={"stage": "prod"}, name="a") == ["a"]
    assert named(tags={"stage": "nope"}) == []
    assert named() == ["c", "b", "a"]


def test_pages_give_everything_once_while_others_register(database: Database) -> None:
    with database.write() as connection:
        for number in range(25):
            # Some share a moment: the order must still be total.
            add_model(connection, f"m{number % 7}", now=after(number // 3))
    seen: list[tuple[str, int]] = []
    cursor = None
    while True:
        with database.read() as connection:
            page, cursor = models.newest(connection, 4, cursor)
        seen += [(manifest.name, manifest.version) for manifest in page]
        with database.write() as connection:
            add_model(connection, "newcomer", now=after(1000))
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 25
    assert "newcomer" not in {name for name, _ in seen}


@pytest.mark.parametrize("text", ["", "x", "a,b", "a,b,c", "a,b,-1", "a,b,2147483648", "a,b,99999999999", "a\0,b,1", "a,b,١"])
def test_a_made_up_cursor_is_refused(database: Database, text: str) -> None:
    with database.read() as connection, pytest.raises(InvalidPage):
        models.newest(connection, 4, text)
