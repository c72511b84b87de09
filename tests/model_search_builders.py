"""Many model versions, written as fast as the database takes them, and what it says of how it finds some."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Select

from hedgerow.contracts.document import encode
from hedgerow.contracts.model import ModelManifest, digest_of_files
from registry.store.database import Database
from registry.store.model_words import lookup_of, words_of
from registry.store.tables import model_aliases, model_files, model_labels, model_names, model_versions, model_words
from registry.store.time_text import to_text
from tests.registry_stores import NOW, known_file

# More than a search looks up one by one.
NAMES = 1100


def tags_of(number: int, count: int) -> dict[str, str]:
    """``all`` stands on every version, ``half`` splits them, ``rare`` on one in 500, ``old`` on the first tenth alone."""
    tags = {"all": "1", "half": "yes" if number % 2 else "no", "rare": str(number % 500)}
    return tags | ({"old": "yes"} if number < count // 10 else {})


def fill(database: Database, count: int) -> None:
    """``count`` versions of NAMES names, one a second from NOW on."""
    with database.write() as connection:
        file = known_file(connection, "model.onnx", "weights")
        connection.execute(model_names.insert(), [{"name": f"model-{n}", "last_version": count // NAMES} for n in range(NAMES)])
        for table, rows in _rows(count, [file]).items():
            connection.execute(table.insert(), rows)
        aliases = [{"name": f"model-{n}", "alias": "champion", "version": 1, "updated_at": to_text(NOW)} for n in range(NAMES)]
        connection.execute(model_aliases.insert(), aliases)
    with database.records.connect() as connection:
        if connection.dialect.name == "postgresql":
            # As its autovacuum would, sooner or later.
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")


def _rows(count: int, files: list[Any]) -> dict[Any, list[dict[str, Any]]]:
    tables: dict[Any, list[dict[str, Any]]] = {table: [] for table in (model_versions, model_files, model_labels, model_words)}
    digest = digest_of_files(files)
    for number in range(count):
        key: dict[str, Any] = {"name": f"model-{number % NAMES}", "version": number // NAMES + 1}
        now = NOW + timedelta(seconds=number)
        facts: dict[str, Any] = {"framework": "sklearn" if number % 3 else "onnx", "description": f"take{number} of many"}
        tags = tags_of(number, count)
        manifest = ModelManifest(**key, digest=digest, files=files, tags=tags, created_at=now, **facts)
        dated = key | {"created_at": to_text(now)}
        document = {"digest": digest, "framework": manifest.framework, "manifest": encode(manifest).decode()}
        tables[model_versions].append(dated | document)
        tables[model_files].append(key | {"path": files[0].path, "digest": files[0].digest})
        tables[model_labels] += [dated | {"kind": "tag", "key": k, "lookup": lookup_of(v)} for k, v in tags.items()]
        tables[model_words] += [dated | {"word": word} for word in words_of(name=manifest.name, tags=tags, **facts)]
    return tables


def plan_of(connection: Connection, statement: Select[Any]) -> list[str]:
    """The lines of the database's own explanation."""
    compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
    values: Any = tuple(compiled.params[name] for name in compiled.positiontup) if compiled.positiontup else compiled.params
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    return [row[-1] for row in connection.exec_driver_sql(explain + compiled.string, values)]


# Rows of a sub-select of the same statement, which are a page.
_OWN = ("SCAN page", "SCAN found", "SCAN newest")


def table_scans(plan: list[str]) -> Iterator[str]:
    """Lines of a plan that walk over a whole table; on SQLite, which has no statistics, also those that sort."""
    for line in plan:
        walks = line.startswith("SCAN ") and "USING" not in line and line not in _OWN
        if walks or "TEMP B-TREE" in line or "Seq Scan" in line:
            yield line
