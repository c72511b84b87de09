"""Model versions that are changed, aliased and deleted in the store, also by two at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError

from hedgerow.contracts.api import ChangeModel, RegisterModel
from hedgerow.contracts.api_images import BuildImage
from hedgerow.contracts.events import Actor
from hedgerow.contracts.model import DataRef, ModelManifest, SourceCommit
from hedgerow.contracts.names import Reference
from hedgerow.errors import HedgerowError
from registry.errors import AliasProtected, InUse, PropertyFixed, RecordDeleted, RecordNotFound
from registry.store import activities, model_aliases, model_deletion, models
from registry.store.database import Database
from registry.store.tables import (
    image_models,
    image_versions,
    model_data,
    model_files,
    model_labels,
    model_packs,
    model_samples,
    model_versions,
    model_words,
)
from registry.store.tables import model_aliases as alias_rows
from registry.store.versions import count_there
from tests.registry_stores import BACKENDS, NOW, add_image, add_model, after, digest_of_text, known_file, ready_database

OWNER = Actor(id="1", name="ann", role="owner")
CONTRIBUTOR = Actor(id="2", name="bob", role="contributor")
PARTS = (model_files, model_samples, model_labels, model_words, alias_rows, model_packs)


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


def rows(database: Database) -> dict[str, int]:
    with database.read() as connection:
        return {t.name: int(connection.execute(select(func.count()).select_from(t)).scalar_one()) for t in PARTS}


def add_full_model(connection: Connection) -> None:
    sample = known_file(connection, "sample.json", "[1]")
    facts: dict[str, Any] = {
        "tags": {"stage": "prod"},
        "properties": {"rows": "5"},
        "aliases": ["champion"],
    }
    commit, data = SourceCommit(commit="a" * 40), [DataRef(name="shuttle", digest=digest_of_text("rows"))]
    add_model(connection, source=commit, data=data, sample_input=sample, **facts)


def test_a_deletion_takes_everything_along(database: Database) -> None:
    before = rows(database)
    with database.write() as connection:
        add_full_model(connection)
        model_aliases.remove(connection, "shuttle", "champion", actor=None)
        model_deletion.delete_version(connection, Reference("shuttle"), OWNER, NOW)
    assert rows(database) == before
    with database.read() as connection:
        assert connection.execute(select(model_data)).all() == []


def test_a_forced_deletion_leaves_what_lineage_needs(database: Database) -> None:
    with database.write() as connection:
        add_full_model(connection)
        add_image(connection, "one", models.get(connection, Reference("shuttle")))
        deleted = model_deletion.force_delete(connection, Reference("shuttle"), OWNER, after(60))
    assert deleted.users == ["image one:1", "alias shuttle@champion"]
    assert set(rows(database).values()) == {0}
    with database.read() as connection:
        row = connection.execute(select(model_versions)).one()
        assert (row.deleted_at, Actor.parse(row.deleted_by)) == ("2026-11-21T08:01:00.000000Z", OWNER)
        assert row.source_commit == "a" * 40
        assert len(connection.execute(select(model_data)).all()) == len(connection.execute(select(image_models)).all()) == 1
        assert count_there(connection, model_versions) == 0
        for reference in (Reference("shuttle", 1), Reference("shuttle", 1, deleted.manifest.digest)):
            with pytest.raises(RecordDeleted, match=r"shuttle:1 was deleted by ann at 2026-11-21T08:01:00\+00:00"):
                models.get(connection, reference)
        for reference in (Reference("shuttle"), Reference("shuttle", digest=deleted.manifest.digest)):
            with pytest.raises(RecordNotFound, match="There is no model"):
                models.get(connection, reference)
        assert models.newest(connection, 10) == ([], None)
    with database.write() as connection:
        assert add_model(connection).version == 2
        with pytest.raises(RecordDeleted):
            model_deletion.force_delete(connection, Reference("shuttle", 1), OWNER, after(61))


def test_an_image_that_is_gone_itself_holds_nothing_but_the_row(database: Database) -> None:
    with database.write() as connection:
        add_full_model(connection)
        add_image(connection, "one", models.get(connection, Reference("shuttle")))
        model_aliases.remove(connection, "shuttle", "champion", actor=None)
        connection.execute(image_versions.update().values(deleted_at="2026-11-21T00:00:00.000000Z", deleted_by=OWNER.text()))
        model_deletion.delete_version(connection, Reference("shuttle"), CONTRIBUTOR, after(60))
    assert set(rows(database).values()) == {0}
    with database.read() as connection:
        with pytest.raises(RecordDeleted, match=r"shuttle:1 was deleted by bob at 2026-11-21T08:01:00\+00:00"):
            models.get(connection, Reference("shuttle", 1))
        assert len(connection.execute(select(image_models)).all()) == 1


def test_users_are_named_but_not_all(database: Database) -> None:
    with database.write() as connection:
        model = add_model(connection, aliases=["champion"])
        for number in range(25):
            add_image(connection, f"image-{number:02}", model)
        build = BuildImage(name="next", models=["shuttle:1"])
        activities.create(connection, kind="image.build", subject="next", request=build, now=NOW)
        activities.create(
            connection, kind="image.build", subject="x", request=BuildImage(name="x", models=["shuttle:11"]), now=NOW
        )
        elsewhere = BuildImage(name="y", models=["other:1"], environment="shuttle:1", tags={"shuttle:1": "shuttle:1"})
        activities.create(connection, kind="image.build", subject="y", request=elsewhere, now=NOW)
        users = model_deletion.users_of(connection, "shuttle", 1)
    assert users[:2] == ["image image-00:1", "image image-01:1"]
    assert (len(users), users[-1]) == (21, "and 7 more")
    with database.write() as connection, pytest.raises(InUse, match="and 7 more"):
        model_deletion.delete_version(connection, Reference("shuttle"), OWNER, NOW)


def test_a_change_is_whole_or_not_at_all(database: Database) -> None:
    with database.write() as connection:
        before = add_model(connection, tags={"a": "1"}, properties={"rows": "5"})
    clash = ChangeModel(tags={"a": "2"}, properties={"rows": "6", "new": "x"})
    with pytest.raises(PropertyFixed, match="rows"), database.write() as connection:
        models.change(connection, models.lock(connection, Reference("shuttle")), clash)
    with database.read() as connection:
        assert models.get(connection, Reference("shuttle")) == before
    with database.write() as connection:
        held = models.lock(connection, Reference("shuttle"))
        changed = models.change(connection, held, ChangeModel(tags={"a": None, "b": "2"}, description="später"))
    with database.read() as connection:
        assert models.get(connection, Reference("shuttle")) == changed
        assert models.newest(connection, 5, tags={"b": "2"})[0] == [changed]
        assert models.newest(connection, 5, tags={"a": "1"})[0] == []


def at_once(*actions: Callable[[], object]) -> list[Exception]:
    """Run all at the same time; what they raised."""
    barrier, problems = threading.Barrier(len(actions)), list[Exception]()

    def run(action: Callable[[], object]) -> None:
        barrier.wait(10)
        try:
            action()
        except (HedgerowError, IntegrityError) as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return problems


def test_changes_at_once_lose_none(database: Database) -> None:
    with database.write() as connection:
        add_model(connection)

    def tag(number: int) -> None:
        with database.write() as connection:
            held = models.lock(connection, Reference("shuttle"))
            models.change(connection, held, ChangeModel(tags={f"k{number}": "v"}))

    assert at_once(*(lambda number=number: tag(number) for number in range(12))) == []
    with database.read() as connection:
        manifest = models.get(connection, Reference("shuttle"))
    assert set(manifest.tags) == {f"k{number}" for number in range(12)}
    assert manifest.revision == 13


def test_an_alias_and_a_deletion_at_once_leave_no_dangling_alias(database: Database) -> None:
    for attempt in range(8):
        with database.write() as connection:
            version = add_model(connection).version

        def point(version: int = version, alias: str = f"a{attempt}") -> None:
            with database.write() as connection:
                manifest = models.lock(connection, Reference("shuttle", version))
                model_aliases.point(connection, "shuttle", alias, manifest.version, NOW, actor=OWNER)

        def remove(version: int = version) -> None:
            with database.write() as connection:
                model_deletion.delete_version(connection, Reference("shuttle", version), OWNER, NOW)

        problems = at_once(point, remove)
        assert [type(problem) for problem in problems] in ([RecordNotFound], [InUse])
        with database.read() as connection:
            named = model_aliases.version_of(connection, "shuttle", f"a{attempt}")
            assert (named is None) == isinstance(problems[0], RecordNotFound)


def test_an_image_and_a_deletion_at_once_leave_no_dangling_image(database: Database) -> None:
    for attempt in range(8):
        with database.write() as connection:
            model = add_model(connection)

        def build(name: str = f"i{attempt}", model: ModelManifest = model) -> None:
            with database.write() as connection:
                add_image(connection, name, model)

        def remove(model: ModelManifest = model) -> None:
            with database.write() as connection:
                model_deletion.delete_version(connection, Reference("shuttle", model.version), OWNER, NOW)

        problems = at_once(build, remove)
        assert len(problems) == 1
        assert isinstance(problems[0], HedgerowError), problems


def test_registrations_at_once_hand_an_alias_on(database: Database) -> None:
    with database.write() as connection:
        files = [known_file(connection, "m", "w")]

    def register() -> None:
        with database.write() as connection:
            models.register(connection, RegisterModel(name="busy", files=files, aliases=["champion"]), NOW, actor=CONTRIBUTOR)

    assert at_once(*[register] * 12) == []
    with database.read() as connection:
        assert models.get(connection, Reference.parse("busy@champion")).version == 12
        assert [one.aliases for one in models.newest(connection, 20, name="busy")[0] if one.aliases] == [["champion"]]


def test_a_protected_alias_is_moved_by_owners_and_the_control_plane(database: Database) -> None:
    with database.write() as connection:
        add_model(connection)
        add_model(connection)
        model_aliases.point(connection, "shuttle", "champion", 1, NOW, actor=CONTRIBUTOR, protected=True)
        for refused in (2, 1):
            with pytest.raises(AliasProtected, match="contributor"):
                model_aliases.point(connection, "shuttle", "champion", refused, NOW, actor=CONTRIBUTOR, protected=refused == 2)
        with pytest.raises(AliasProtected):
            model_aliases.remove(connection, "shuttle", "champion", actor=CONTRIBUTOR)
        assert model_aliases.point(connection, "shuttle", "champion", 2, NOW, actor=OWNER).protected
        assert model_aliases.point(connection, "shuttle", "champion", 1, NOW, actor=None).revision == 3
        assert not model_aliases.point(connection, "shuttle", "champion", 1, NOW, actor=OWNER, protected=False).protected
