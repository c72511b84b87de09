"""Which version was converted from which: found again, held against deletion, walked by lineage, never in a circle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete
from sqlalchemy.exc import IntegrityError

from hedgerow.contracts.api import RegisterModel
from hedgerow.contracts.lineage import Direction
from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.names import Reference
from registry.errors import InUse
from registry.store import activities, conversions, events, lineage, model_deletion, models
from registry.store.activities import ConvertTask
from registry.store.database import Database
from registry.store.tables import model_conversions, model_versions
from tests.registry_stores import BACKENDS, NOW, add_image, digest_of_text, known_file, ready_database

ACTOR = events.system("test")
KEY, ASKED = digest_of_text("key"), digest_of_text("asked")


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


def register(connection: Connection, name: str, content: str = "pickle", file: str = "model.pkl") -> ModelManifest:
    return models.register(connection, RegisterModel(name=name, files=[known_file(connection, file, content)]), NOW)


def converted(connection: Connection, source: ModelManifest, name: str, key: str = KEY, asked: str = ASKED) -> ModelManifest:
    made = register(connection, name, f"onnx of {source.name}", "model.onnx")
    conversions.link(connection, made, source, conversion_key=key, asked=asked)
    return made


def ids(connection: Connection, of: str, direction: Direction) -> set[str]:
    found = lineage.walk(connection, of, direction=direction, limit=100, now=NOW)
    kinds = lineage.reach(connection, of, direction=direction, only=["model", "image"], limit=100, now=NOW)
    assert {node.id for node in kinds.nodes} == {node.id for node in found.nodes}, "both ways to ask agree"
    return {node.id for node in found.nodes} - {of}


def test_a_conversion_is_found_by_what_was_asked_and_by_what_it_came_to(database: Database) -> None:
    with database.write() as connection:
        source, other = register(connection, "iris"), register(connection, "iris", "another")
        made = converted(connection, source, "iris-onnx")
        assert conversions.find_asked(connection, "iris-onnx", ASKED, source) == made
        assert conversions.find_asked(connection, "iris-onnx", ASKED, other) is None
        assert conversions.find_asked(connection, "elsewhere", ASKED, source) is None
        assert conversions.find_made(connection, "iris-onnx", KEY, other) == made
        assert conversions.find_made(connection, "iris-onnx", digest_of_text("other"), other) is None
        conversions.link(connection, made, other, conversion_key=KEY, asked=ASKED)
        conversions.link(connection, made, other, conversion_key=KEY, asked=ASKED)
        assert conversions.find_asked(connection, "iris-onnx", ASKED, other) == made


def test_a_deleted_conversion_is_made_again(database: Database) -> None:
    with database.write() as connection:
        source = register(connection, "iris")
        made = converted(connection, source, "iris-onnx")
        model_deletion.delete_version(connection, Reference("iris-onnx", 1), ACTOR, NOW)
        assert conversions.find_asked(connection, "iris-onnx", ASKED, source) is None
        assert conversions.find_made(connection, made.name, KEY, source) is None
        assert model_deletion.users_of(connection, "iris", 1) == []


def test_nothing_is_made_from_itself(database: Database) -> None:
    with database.write() as connection:
        first = register(connection, "a")
        second = converted(connection, first, "b")
        third = converted(connection, second, "a", asked=digest_of_text("again"))
        assert (third.name, third.version) == ("a", 2)
        # What is made of a:2 has the key of what a:2 was made from: equal contents, as an identity would give.
        assert conversions.find_made(connection, "b", KEY, third) is None
        assert conversions.find_made(connection, "a", KEY, third) is None


def test_a_source_stays_while_its_conversion_is_there(database: Database) -> None:
    with database.write() as connection:
        source = register(connection, "iris")
        converted(connection, source, "iris-onnx")
    with pytest.raises(InUse, match="model iris-onnx:1, which was converted from it"), database.write() as connection:
        model_deletion.delete_version(connection, Reference("iris", 1), ACTOR, NOW)
    here = (model_versions.c.name == "iris") & (model_versions.c.version == 1)
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(delete(model_versions).where(here))
    with database.write() as connection:
        forced = model_deletion.force_delete(connection, Reference("iris", 1), ACTOR, NOW)
        assert forced.users == ["model iris-onnx:1, which was converted from it"]
    with database.read() as connection:
        found = lineage.walk(connection, "model:iris-onnx:1", direction="up", limit=10, now=NOW)
        assert [(node.id, node.deleted) for node in found.nodes] == [("model:iris-onnx:1", False), ("model:iris:1", True)]


def test_a_source_whose_conversion_was_buried_is_buried_too(database: Database) -> None:
    with database.write() as connection:
        source = register(connection, "iris")
        made = converted(connection, source, "iris-onnx")
        add_image(connection, "image", made)
        model_deletion.force_delete(connection, Reference("iris-onnx", 1), ACTOR, NOW)
        model_deletion.delete_version(connection, Reference("iris", 1), ACTOR, NOW)
        assert ids(connection, "image:image:1", "up") == {"model:iris-onnx:1", "model:iris:1"}
        assert connection.execute(model_conversions.select()).first() is not None


def test_a_conversion_under_way_holds_its_source(database: Database) -> None:
    with database.write() as connection:
        register(connection, "iris")
        task = ConvertTask(source="iris:1")
        activity = activities.create(connection, kind="model.convert", subject="iris", request=task, now=NOW)
        assert model_deletion.users_of(connection, "iris", 1) == [f"its conversion (activity {activity})"]
        register(connection, "iris", "another")
        assert model_deletion.users_of(connection, "iris", 2) == []


def test_lineage_goes_through_conversions_of_conversions(database: Database) -> None:
    with database.write() as connection:
        source = register(connection, "iris")
        plain = converted(connection, source, "iris-onnx")
        small = converted(connection, plain, "iris-int8", key=digest_of_text("int8"))
        other = converted(connection, source, "iris-other", key=digest_of_text("other"))
        add_image(connection, "image", small)
        assert ids(connection, "image:image:1", "up") == {"model:iris-int8:1", "model:iris-onnx:1", "model:iris:1"}
        everything = {"model:iris-onnx:1", "model:iris-int8:1", f"model:{other.name}:1", "image:image:1"}
        assert ids(connection, "model:iris:1", "down") == everything
        assert ids(connection, "model:iris-onnx:1", "down") == {"model:iris-int8:1", "image:image:1"}
        assert ids(connection, "model:iris-onnx:1", "up") == {"model:iris:1"}
        near = lineage.walk(connection, "model:iris:1", direction="down", depth=1, limit=10, now=NOW)
        assert {node.id for node in near.nodes} == {"model:iris:1", "model:iris-onnx:1", "model:iris-other:1"}
