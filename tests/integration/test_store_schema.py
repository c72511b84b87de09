"""The schema of a workspace's database: made, migrated, recognised, refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from hedgerow.errors import HedgerowError
from registry.errors import DatabaseOccupied, ForeignDatabase, WorkspaceTooNew
from registry.store import facts, schema
from registry.store.database import Database, open_database
from registry.workspace import Workspace, open_workspace
from tests.registry_stores import BACKENDS

PARTS = (schema.RECORDS_PART, schema.SERIES_PART)


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest) -> str | None:
    found: str | None = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    return found


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "workspace")


@pytest.fixture
def database(url: str | None, workspace: Workspace) -> Iterator[Database]:
    opened = open_database(url, workspace.folder)
    yield opened
    opened.close()


def migrate_all(database: Database, workspace: Workspace) -> None:
    with database.write() as connection:
        schema.migrate(connection, schema.RECORDS_PART, workspace.folder)
        facts.initialise(connection, workspace.id)
    with database.write_series() as connection:
        schema.migrate(connection, schema.SERIES_PART, workspace.folder)


def shape(connection: Connection) -> set[str]:
    """Everything that the database knows about its tables, independent of order."""
    if connection.dialect.name == "sqlite":
        return _sqlite_shape(connection)
    questions = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public'",
        "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    )
    return {str(tuple(row)) for question in questions for row in connection.execute(text(question))}


def _sqlite_shape(connection: Connection) -> set[str]:
    """Asked of SQLite's pragmas: a column that was added later stands elsewhere in the text of its table."""
    found: set[str] = set()
    for name, sql in connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")).all():
        found |= {f"{name} {check}" for check in re.findall(r"CONSTRAINT \w+ CHECK \(.*\)", sql)}
        for pragma in ("table_xinfo", "foreign_key_list"):
            # The first column is a position, which says nothing.
            rows = connection.exec_driver_sql(f'PRAGMA {pragma}("{name}")').all()
            found |= {f"{name} {pragma} {tuple(row)[1:]}" for row in rows}
        for _, index, unique, origin, partial in connection.exec_driver_sql(f'PRAGMA index_list("{name}")').all():
            columns = [row[2] for row in connection.exec_driver_sql(f'PRAGMA index_info("{index}")')]
            label = index if origin == "c" else origin
            found.add(f"{name} index {label} {unique} {partial} {columns}")
    return found


def shapes(database: Database) -> set[str]:
    with database.read() as records, database.read_series() as series:
        return shape(records) | shape(series)


def test_migrations_lead_to_exactly_the_tables(database: Database, workspace: Workspace) -> None:
    migrate_all(database, workspace)
    migrated = shapes(database)
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    for name in ("records.db", "series.db"):
        database.close()
        (workspace.folder / name).unlink(missing_ok=True)

    schema.upgrade(database, workspace)

    assert shapes(database) == migrated
    assert len(migrated) > 100


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_alembic_finds_nothing_to_change(database: Database, workspace: Workspace, part: schema.Part) -> None:
    migrate_all(database, workspace)
    transaction = database.read if part is schema.RECORDS_PART else database.read_series
    with transaction() as connection:
        options = {
            "compare_type": True,
            "compare_server_default": connection.dialect.name == "postgresql",
            "include_name": lambda name, kind, _: kind != "table" or name in part.metadata.tables,
        }
        found = compare_metadata(MigrationContext.configure(connection, opts=options), part.metadata)
    assert found == []


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_the_constant_names_the_newest_migration(part: schema.Part) -> None:
    script = ScriptDirectory(str(schema.MIGRATIONS), version_locations=[str(part.versions)])
    assert script.get_heads() == [part.head]


def test_an_upgrade_twice_keeps_the_incarnation(database: Database, workspace: Workspace) -> None:
    schema.upgrade(database, workspace)
    with database.read() as connection:
        first = facts.incarnation(connection)
    schema.upgrade(database, workspace)
    with database.read() as connection:
        assert facts.incarnation(connection) == first
        assert facts.value(connection, facts.WORKSPACE_ID) == workspace.id


def test_a_restore_begins_a_new_incarnation(database: Database, workspace: Workspace) -> None:
    schema.upgrade(database, workspace)
    with database.write() as connection:
        first = facts.incarnation(connection)
        renewed = facts.renew_incarnation(connection)
    with database.read() as connection:
        assert facts.incarnation(connection) == renewed != first


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_newer_database_is_refused_and_left_alone(database: Database, workspace: Workspace, part: schema.Part) -> None:
    schema.upgrade(database, workspace)
    transaction = database.write if part is schema.RECORDS_PART else database.write_series
    with transaction() as connection:
        connection.execute(text(f"UPDATE {part.version_table} SET version_num = '{part.name}_9999'"))
    before = shapes(database)
    with pytest.raises(WorkspaceTooNew, match=f"{part.name}_9999"):
        schema.upgrade(database, workspace)
    assert shapes(database) == before


def test_the_database_of_another_workspace_is_refused(database: Database, workspace: Workspace, tmp_path: Path) -> None:
    schema.upgrade(database, workspace)
    other = open_workspace(tmp_path / "other")
    with pytest.raises(ForeignDatabase, match=workspace.id):
        schema.upgrade(database, other)


def test_a_database_that_another_program_uses_is_refused(database: Database, workspace: Workspace) -> None:
    with database.write() as connection:
        connection.execute(text("CREATE TABLE runs (mine TEXT)"))
    with pytest.raises(DatabaseOccupied, match="runs"):
        schema.upgrade(database, workspace)
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM runs")).scalar() == 0


def test_many_at_once_make_one_schema(url: str | None, workspace: Workspace) -> None:
    problems: list[BaseException] = []
    found: set[str] = set()
    start = threading.Barrier(8)

    def one() -> None:
        mine = open_database(url, workspace.folder)
        try:
            start.wait(10)
            schema.upgrade(mine, workspace)
            with mine.read() as connection:
                found.add(facts.incarnation(connection))
        except (HedgerowError, threading.BrokenBarrierError) as problem:
            problems.append(problem)
        finally:
            mine.close()

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert problems == []
    assert len(found) == 1


def test_a_folder_with_odd_characters(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "with space, 100%s: ünïcode;")
    database = open_database(None, workspace.folder)
    migrate_all(database, workspace)
    schema.upgrade(database, workspace)
    database.close()


def test_database_files_are_for_their_owner_only(tmp_path: Path) -> None:
    database = open_database(None, tmp_path)
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    database.close()
    assert set(modes.values()) == {0o600}, modes
