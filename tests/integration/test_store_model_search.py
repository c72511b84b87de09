"""Search among model versions: what is found, in which order, page by page, and that indexes alone find it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hedgerow.contracts.model import DataRef
from hedgerow.contracts.names import Reference
from hedgerow.errors import InvalidName
from registry.store import model_search, models
from registry.store.database import Database
from registry.store.model_search import Label, ModelQuery
from registry.store.model_words import parse_words
from registry.store.tables import model_versions
from tests.fixtures.postgres import PostgresServer, fresh_database
from tests.model_search_builders import NAMES, fill, plan_of, table_scans
from tests.registry_stores import BACKENDS, add_model, after, digest_of_text, ready_database

MANY = 22_000


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


def found(database: Database, **wanted: Any) -> list[str]:
    with database.read() as connection:
        return [f"{one.name}:{one.version}" for one in models.find(connection, ModelQuery(**wanted), 100)[0]]


def tags(*pairs: str) -> tuple[Label, ...]:
    return tuple(Label(key, value if equals else None) for key, equals, value in (pair.partition("=") for pair in pairs))


@contextmanager
def shared_database(request: pytest.FixtureRequest, folder: Path) -> Iterator[Database]:
    """For a fixture of a whole module, on the backend that it is for."""
    with ExitStack() as kept:
        url = None
        if request.param == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres_server")
            url = kept.enter_context(fresh_database(server))
        yield kept.enter_context(ready_database(folder / "workspace", url))


@pytest.fixture(scope="module", params=BACKENDS)
def shelf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """a:1, b:1, a:2, c:1, in this order."""
    refs = [DataRef(name="shuttle", digest=digest_of_text("rows"))]
    with shared_database(request, tmp_path_factory.mktemp("shelf")) as opened:
        with opened.write() as connection:
            add_model(connection, "a", now=after(1), tags={"stage": "test", "site": "north"}, framework="sklearn", data=refs)
            add_model(connection, "b", now=after(2), tags={"stage": "prod"}, properties={"rows": "100"}, description="Pump, süd")
            add_model(connection, "a", now=after(3), tags={"stage": "prod", "note": "x" * 500}, aliases=["champion"])
            add_model(connection, "c", now=after(4), description="pumpkin classifier", framework="sklearn", aliases=["champion"])
        yield opened


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["c:1", "a:2", "b:1", "a:1"]),
        ({"name": "a"}, ["a:2", "a:1"]),
        ({"name": "a*"}, ["a:2", "a:1"]),
        ({"name": "zz*"}, []),
        ({"name": "nobody"}, []),
        ({"tags": tags("stage=prod")}, ["a:2", "b:1"]),
        ({"tags": tags("stage")}, ["a:2", "b:1", "a:1"]),
        ({"tags": tags("stage=prod", "note")}, ["a:2"]),
        ({"tags": tags("note=" + "x" * 500)}, ["a:2"]),
        ({"tags": tags("note=" + "x" * 499)}, []),
        ({"tags": tags("stage=test", "site=north")}, ["a:1"]),
        ({"tags": tags("stage=prod", "site=north")}, []),
        ({"tags": tags("rows=100")}, []),
        ({"properties": tags("rows=100")}, ["b:1"]),
        ({"properties": tags("rows"), "tags": tags("stage=prod")}, ["b:1"]),
        ({"framework": "sklearn"}, ["c:1", "a:1"]),
        ({"framework": "sklearn", "name": "a"}, ["a:1"]),
        ({"words": "pump"}, ["b:1"]),
        ({"words": "pump*"}, ["c:1", "b:1"]),
        ({"words": "SÜD pump"}, ["b:1"]),
        ({"words": "pump* classifier"}, ["c:1"]),
        ({"words": "prod"}, ["a:2", "b:1"]),
        ({"words": "nothing such"}, []),
        ({"alias": "champion"}, ["c:1", "a:2"]),
        ({"alias": "champion", "name": "a"}, ["a:2"]),
        ({"data_digest": digest_of_text("rows")}, ["a:1"]),
        ({"digest": digest_of_text("rows")}, []),
        ({"run_id": "nobody"}, []),
        ({"since": after(2)}, ["c:1", "a:2", "b:1"]),
        ({"until": after(2)}, ["a:1"]),
        ({"since": after(2), "until": after(4)}, ["a:2", "b:1"]),
        ({"since": after(2), "tags": tags("stage")}, ["a:2", "b:1"]),
        ({"newest_only": True}, ["c:1", "a:2", "b:1"]),
        ({"newest_only": True, "tags": tags("stage=test")}, []),
        ({"newest_only": True, "tags": tags("stage=prod")}, ["a:2", "b:1"]),
    ],
    ids=str,
)
def test_what_is_found(shelf: Database, wanted: dict[str, Any], expected: list[str]) -> None:
    if "words" in wanted:
        wanted = wanted | {"words": tuple(parse_words(wanted["words"]))}
    assert found(shelf, **wanted) == expected


@pytest.mark.parametrize(
    "name", ["", "A", "a/b", "..", "ä", "a\0b", "a" * 10_000, "A*", "a%*", "a**", "a\0*", "a" * 10_000 + "*"]
)
def test_a_name_that_is_none_is_refused(shelf: Database, name: str) -> None:
    with pytest.raises(InvalidName):
        found(shelf, name=name)


def test_a_clock_that_jumps_back_loses_nothing(database: Database) -> None:
    with database.write() as connection:
        for seconds in (100, 200, 50, 150):
            add_model(connection, "jumpy", now=after(seconds))
    with database.read() as connection:
        assert models.get(connection, Reference("jumpy")).version == 4
    assert found(database, name="jumpy", newest_only=True) == ["jumpy:4"]
    seen, cursor = [], None
    while True:
        with database.read() as connection:
            page, cursor = models.find(connection, ModelQuery(name="jumpy"), 1, cursor)
        seen += [one.version for one in page]
        with database.write() as connection:
            add_model(connection, "jumpy", now=after(300))  # meanwhile; it is newer than every page that follows
        if cursor is None:
            break
    assert seen == [2, 4, 1, 3]


@pytest.fixture(scope="module", params=BACKENDS)
def crowded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with shared_database(request, tmp_path_factory.mktemp("crowded")) as opened:
        fill(opened, MANY)
        yield opened


HOT: dict[str, ModelQuery] = {
    "first page": ModelQuery(),
    "by name": ModelQuery(name="model-7"),
    "tag on every version": ModelQuery(tags=tags("all=1")),
    "tag on half": ModelQuery(tags=tags("half=yes")),
    "rare tag": ModelQuery(tags=tags("rare=7")),
    "rare tag with a common one": ModelQuery(tags=tags("all=1", "rare=7")),
    "two common tags": ModelQuery(tags=tags("all=1", "half=no")),
    "two common tags that never meet": ModelQuery(tags=tags("half=yes", "half=no")),
    "two common tags and more": ModelQuery(tags=tags("all=1", "half=no"), since=after(100), until=after(5000), newest_only=True),
    "common tag with one on old versions": ModelQuery(tags=tags("all=1", "old=yes")),
    "tag and name": ModelQuery(name="model-7", tags=tags("all=1")),
    "tag and framework": ModelQuery(framework="onnx", tags=tags("rare=8")),
    "framework": ModelQuery(framework="onnx"),
    "word": ModelQuery(words=tuple(parse_words("take77"))),
    "common words": ModelQuery(words=tuple(parse_words("many of"))),
    "time": ModelQuery(since=after(100), until=after(5000)),
    "newest of each": ModelQuery(newest_only=True),
    "newest of each with a tag": ModelQuery(newest_only=True, tags=tags("half=yes")),
    "tag in a time": ModelQuery(since=after(100), until=after(5000), tags=tags("half=yes")),
}


@pytest.mark.parametrize("name", HOT)
@pytest.mark.parametrize("cursor", [None, "2026-11-21T10:00:00.000000Z,model-5,3"], ids=["first", "later"])
def test_indexes_alone_find_a_page(crowded: Database, name: str, cursor: str | None) -> None:
    with crowded.read() as connection:
        statement = model_search.page_statement(connection, HOT[name], 50, cursor)
        assert statement is not None
        plan = plan_of(connection, statement)
    assert list(table_scans(plan)) == [], "\n".join(plan)
    assert any("ix_model" in line for line in plan), "\n".join(plan)


@pytest.mark.parametrize("name", ["two common tags", "two common tags that never meet", "two common tags and more"])
def test_sqlite_walks_two_large_indexes_side_by_side(crowded: Database, name: str) -> None:
    if crowded.records.dialect.name != "sqlite":
        return
    with crowded.read() as connection:
        statement = model_search.page_statement(connection, HOT[name], 50, None)
        assert statement is not None
        plan = plan_of(connection, statement)
    assert "MERGE (INTERSECT)" in plan, "\n".join(plan)
    assert not any("TEMP B-TREE" in line for line in plan), "\n".join(plan)


def test_the_plan_test_can_fail(crowded: Database) -> None:
    slow = select(model_versions).where(model_versions.c.manifest.contains("x")).order_by(model_versions.c.manifest)
    with crowded.read() as connection:
        assert list(table_scans(plan_of(connection, slow)))


@pytest.mark.parametrize(
    "wanted", [*HOT.values(), ModelQuery(tags=tags("old")), ModelQuery(words=tuple(parse_words("take1*")))], ids=str
)
def test_pages_together_are_the_whole_answer(crowded: Database, wanted: ModelQuery) -> None:
    """Whatever leads the search, it agrees with itself read in one piece."""
    with crowded.read() as connection:
        whole = keys(model_search.search(connection, wanted, MANY, None)[0])
        assert whole == sorted(set(whole), reverse=True)
        seen: list[Any] = []
        cursor = None
        while len(seen) <= len(whole):
            page, cursor = model_search.search(connection, wanted, len(whole) // 3 + 1, cursor)
            seen += keys(page)
            if cursor is None:
                break
    assert seen == whole


def keys(rows: Sequence[Any]) -> list[tuple[str, str, int]]:
    return [(row.created_at, row.name, row.version) for row in rows]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("first page", MANY),
        ("by name", MANY // NAMES),
        ("tag on half", MANY // 2),
        ("rare tag", MANY // 500),
        ("rare tag with a common one", MANY // 500),
        ("two common tags", MANY // 2),
        ("two common tags that never meet", 0),
        ("common tag with one on old versions", MANY // 10),
        ("word", 1),
        ("common words", MANY),
        ("time", 4900),
        ("tag in a time", 2450),
        ("newest of each", NAMES),
        ("newest of each with a tag", NAMES // 2),
    ],
)
def test_nothing_is_missing(crowded: Database, name: str, count: int) -> None:
    with crowded.read() as connection:
        assert len(model_search.search(connection, HOT[name], MANY + 1, None)[0]) == count


@pytest.mark.parametrize(
    "wanted",
    [{}, {"tags": tags("stage=prod")}, {"tags": tags("stage")}, {"words": parse_words("pump")}, {"newest_only": True}],
    ids=["all", "tag", "key", "word", "newest"],
)
def test_pages_are_whole_in_a_database_that_sorts_names_its_own_way(
    tmp_path: Path, postgres_server: PostgresServer, wanted: dict[str, Any]
) -> None:
    # By code point a-b < a0 < a_b < ab; in American English a_b < a-b < a0 < ab.
    names = ["a-b", "a-c", "a.b", "a0", "a1", "a_b", "aa", "ab", "b"]
    with (
        fresh_database(postgres_server, in_the_order_of="en-US") as url,
        ready_database(tmp_path / "workspace", url) as database,
        database.write() as connection,
    ):
        for name in names:
            add_model(connection, name, now=after(0), tags={"stage": "prod"}, description="pump")
        for limit in (1, 2, 4):
            seen: list[str] = []
            following: str | None = None
            while following is not None or not seen:
                page, following = models.find(connection, ModelQuery(**wanted), limit, following)
                seen += [one.name for one in page]
            assert sorted(seen) == names
