"""Brings a database to the schema of this Hedgerow, whatever it is now: absent, current, older. Newer is refused.

A fresh database gets today's tables at once; an older one goes through the migrations in ``migrations/versions``. Both
ways lead to the same schema (a test compares them). Alembic takes most of a second to import, so that only a real
migration pays for it: the newest revisions are constants here, and a test compares them with the files.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect, select, text

from registry.errors import DatabaseOccupied, WorkspaceTooNew
from registry.store import facts
from registry.store.database import Database
from registry.store.tables import RECORDS, SERIES
from registry.workspace import Workspace

MIGRATIONS = Path(__file__).with_name("migrations")
# Any number will do as long as no other program takes the same lock in this database.
_ADVISORY_LOCK = 0x6865_6467


@dataclass(frozen=True)
class Part:
    """One of the two schemas: its tables, its own line of revisions and the table that says how far a database is."""

    name: str
    metadata: MetaData
    head: str

    @property
    def version_table(self) -> str:
        return f"schema_version_{self.name}"

    @property
    def versions(self) -> Path:
        return MIGRATIONS / "versions" / self.name


RECORDS_PART = Part("records", RECORDS, head="records_0007")
SERIES_PART = Part("series", SERIES, head="series_0002")


def upgrade(database: Database, workspace: Workspace) -> None:
    """Make the schema current; safe to call from several processes at once and after a kill at any point.

    Raises WorkspaceTooNew, ForeignDatabase (another workspace's), DatabaseOccupied (another program's).
    """
    if _is_current(database):
        with database.read() as connection:
            facts.check_owner(connection, workspace.id)
        return
    with _only_one(workspace.run / "migrate.lock"):
        with database.write() as connection:
            _bring_up(connection, RECORDS_PART, workspace.folder)
            facts.initialise(connection, workspace.id)
        with database.write_series() as connection:
            _bring_up(connection, SERIES_PART, workspace.folder)


def stored_revision(connection: Connection, part: Part) -> str | None:
    """The revision a database is at, None when it has never had this part."""
    if not inspect(connection).has_table(part.version_table):
        return None
    column = _version_table(part).c.version_num
    return connection.execute(select(column)).scalar_one_or_none()


def migrate(connection: Connection, part: Part, folder: Path, revision: str = "head") -> None:
    """Run the migrations of ``part`` from wherever the database is to ``revision``, in the caller's transaction."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection, "version_table": part.version_table})
    for option, value in (
        ("script_location", str(MIGRATIONS)),
        ("path_separator", "newline"),
        ("version_locations", str(part.versions)),
    ):
        config.set_main_option(option, value.replace("%", "%%"))
    stored = stored_revision(connection, part)
    try:
        if stored is not None:
            ScriptDirectory.from_config(config).get_revision(stored)
    except CommandError:
        raise WorkspaceTooNew(folder=folder, found=stored, supported=part.head) from None
    command.upgrade(config, revision)


def lay_out(connection: Connection, part: Part, revision: str, folder: Path) -> None:
    """Make the tables of ``part`` as they were at ``revision``, in a database that has none. Raises DatabaseOccupied."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    if revision == part.head:
        _create(connection, part)
    else:
        migrate(connection, part, folder, revision)


def knows(part: Part, revision: str) -> bool:
    """Whether ``revision`` is one of ours, newest or older."""
    if revision == part.head:
        return True
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(MIGRATIONS), version_locations=[str(part.versions)])
    return revision in {known.revision for known in script.walk_revisions()}


def _is_current(database: Database) -> bool:
    looks: tuple[tuple[Part, Callable[[], AbstractContextManager[Connection]]], ...] = (
        (RECORDS_PART, database.read),
        (SERIES_PART, database.read_series),
    )
    for part, transaction in looks:
        with transaction() as connection:
            if stored_revision(connection, part) != part.head:
                return False
    return True


def _bring_up(connection: Connection, part: Part, folder: Path) -> None:
    if connection.dialect.name == "postgresql":
        # Roles on several machines share no lock file; this one ends with the transaction.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    stored = stored_revision(connection, part)
    if stored is None:
        _create(connection, part)
    elif stored != part.head:
        migrate(connection, part, folder)


def _create(connection: Connection, part: Part) -> None:
    occupied = sorted(set(inspect(connection).get_table_names()) & part.metadata.tables.keys())
    if occupied:
        raise DatabaseOccupied(tables=", ".join(occupied[:5]))
    version_table = _version_table(part)
    part.metadata.create_all(connection, checkfirst=False)
    version_table.create(connection)
    connection.execute(version_table.insert().values(version_num=part.head))


def _version_table(part: Part) -> Table:
    """Column by column what Alembic makes."""
    return Table(
        part.version_table,
        MetaData(),
        Column("version_num", String(32), nullable=False),
        PrimaryKeyConstraint("version_num", name=f"{part.version_table}_pkc"),
    )


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Wait for whoever migrates this folder now. The kernel lets go when the holder dies."""
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
