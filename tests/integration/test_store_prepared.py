"""Statements that go to the driver as they are: what they give, and that errors look as they do everywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, func, select
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from hedgerow.contracts.api import ChangeModel
from hedgerow.contracts.document import encode
from hedgerow.contracts.names import Reference
from registry.errors import DatabaseUnavailable
from registry.store import model_aliases, models
from registry.store.database import Database
from registry.store.model_search import ModelQuery
from registry.store.prepared import Prepared
from registry.store.tables import model_names, model_versions
from tests.registry_stores import BACKENDS, NOW, add_model, after, ready_database

INSERT = Prepared(lambda _: model_names.insert(), columns=("name", "last_version"))
BY_NAME = Prepared(lambda _: select(model_names).where(model_names.c.name == bindparam("wanted")))
AMONG = Prepared(
    lambda _: select(model_names.c.name).where(model_names.c.name.in_(bindparam("wanted", expanding=True))).order_by("name")
)


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


def test_rows_are_read_by_name_in_the_transaction_of_the_connection(database: Database) -> None:
    with database.write() as connection:
        INSERT.run(connection, {"name": "a", "last_version": 1})
        INSERT.run_many(connection, [{"name": "b", "last_version": 2}, {"name": "c", "last_version": 3}])
        INSERT.run_many(connection, [])
        row = BY_NAME.first(connection, {"wanted": "b", "of no use": 1})
        assert (row.name, row.last_version) == ("b", 2)
        assert BY_NAME.rows(connection, {"wanted": "nobody"}) == []
        assert BY_NAME.first(connection, {"wanted": "nobody"}) is None
        assert [row.name for row in AMONG.rows(connection, {"wanted": ["c", "a", "z"]})] == ["a", "c"]
        # SQLAlchemy's own statements see the same transaction.
        assert connection.execute(select(func.count()).select_from(model_names)).scalar_one() == 3


def test_what_fails_is_rolled_back_with_the_rest(database: Database) -> None:
    def insert_twice() -> None:
        with database.write() as connection:
            INSERT.run(connection, {"name": "a", "last_version": 1})
            INSERT.run(connection, {"name": "a", "last_version": 2})

    with pytest.raises(IntegrityError):
        insert_twice()
    with database.read() as connection:
        assert BY_NAME.first(connection, {"wanted": "a"}) is None


def test_a_value_that_is_not_given_is_never_taken_for_null(database: Database) -> None:
    with database.read() as connection, pytest.raises((KeyError, ProgrammingError), match="wanted"):
        BY_NAME.rows(connection, {})


def test_one_look_needs_no_transaction_and_leaves_none(database: Database) -> None:
    with database.look() as connection:
        assert BY_NAME.first(connection, {"wanted": "a"}) is None
        # What commits between two looks is seen: there is no snapshot around them.
        with database.write() as other:
            INSERT.run(other, {"name": "a", "last_version": 1})
        assert BY_NAME.first(connection, {"wanted": "a"}).last_version == 1

    # The same pooled connection then writes as ever: whole or not at all.
    def write_and_fail() -> None:
        with database.write() as connection:
            INSERT.run(connection, {"name": "b", "last_version": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.look() as connection:
        assert BY_NAME.first(connection, {"wanted": "b"}) is None


def test_a_connection_that_is_lost_is_said_and_not_used_again(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with ready_database(tmp_path / "workspace", request.getfixturevalue("postgres_tables_url")) as database:

        def read_and_be_cut_off() -> None:
            with database.read() as connection:
                mine = connection.execute(select(func.pg_backend_pid())).scalar_one()
                with database.write() as other:
                    other.execute(select(func.pg_terminate_backend(mine)))
                BY_NAME.rows(connection, {"wanted": "a"})

        with pytest.raises(DatabaseUnavailable) as told:
            read_and_be_cut_off()
        assert isinstance(told.value.__cause__, OperationalError)
        with database.read() as connection:
            assert BY_NAME.rows(connection, {"wanted": "a"}) == []


def test_documents_of_a_list_are_those_that_are_read_and_written_again(database: Database) -> None:
    """Also of versions that an alias names, that were changed, and that were stored before a field was added."""
    with database.write() as connection:
        for number in range(4):
            add_model(connection, now=after(number), tags={"n": str(number)}, description="Grüße")
        model_aliases.point(connection, "shuttle", "champion", 1, NOW, actor=None)
        held = models.get(connection, Reference("shuttle", 2))
        models.change(connection, held, ChangeModel(description="another"))
        model_aliases.point(connection, "shuttle", "moving", 3, NOW, actor=None)
        model_aliases.remove(connection, "shuttle", "moving", actor=None)
        stored = connection.execute(select(model_versions.c.manifest).where(models.is_version("shuttle", 4))).scalar_one()
        assert '"properties":{},' in stored
        old = stored.replace('"properties":{},', "")
        connection.execute(model_versions.update().where(models.is_version("shuttle", 4)).values(manifest=old))
    with database.read() as connection:
        found, following = models.find(connection, ModelQuery(), 3)
        documents, same = models.find_documents(connection, ModelQuery(), 3)
        found += models.find(connection, ModelQuery(), 3, following)[0]
        documents += models.find_documents(connection, ModelQuery(), 3, same)[0]
    assert following == same
    assert [bytes(document) for document in documents] == [encode(manifest) for manifest in found]
    assert [manifest.revision for manifest in found] == [1, 3, 2, 2]
