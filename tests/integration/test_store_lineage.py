"""Lineage: the issue's two questions, every kind as a beginning, limits, tombstones, and indexes for all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text, update

from hedgerow.contracts.lineage import Direction, Lineage
from hedgerow.contracts.model import DataRef
from hedgerow.errors import HedgerowError
from registry.errors import AmbiguousCommit, InvalidLineageId, RecordNotFound
from registry.store import lineage
from registry.store.database import Database
from registry.store.lineage_graph import KINDS, LINKS, Step, among
from registry.store.tables import model_aliases, model_data, model_names, model_versions
from registry.store.time_text import to_text
from tests.registry_lineage import COMMIT, LABELS, OTHER_COMMIT, READINGS, World, build_world, submit_run, without_times
from tests.registry_stores import BACKENDS, NOW, after, digest_of_text, ready_database


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


@pytest.fixture
def world(database: Database) -> World:
    with database.write() as connection:
        return build_world(connection)


def walk(database: Database, of: str, direction: Direction = "both", *, depth: int = 20, limit: int = 500) -> Lineage:
    with database.read() as connection:
        return lineage.walk(connection, of, direction=direction, depth=depth, limit=limit, now=NOW)


def reach(database: Database, of: str, direction: Direction, *only: str, limit: int = 500) -> Lineage:
    kinds = [kind for kind in KINDS if kind in only]
    with database.read() as connection:
        return lineage.reach(connection, of, direction=direction, only=kinds, limit=limit, now=NOW)


def ids(found: Lineage) -> set[str]:
    return {node.id for node in found.nodes}


def test_from_a_module_to_commit_data_and_metrics(database: Database, world: World) -> None:
    found = walk(database, "module:press-1/scorer", "up")
    assert ids(found) == {
        "module:press-1/scorer",
        "image:scorer:1",
        "edge-deployment:presses",
        "model:shuttle:1",
        "environment:py:1",
        f"run:{world.run.id}",
        f"data:{READINGS}",
        f"commit:{COMMIT}",
    }
    facts = {node.kind: without_times(node.facts) for node in found.nodes}
    assert facts["run"]["metrics.auc"] == "0.998"
    assert facts["run"]["parameters.depth"] == "7"
    assert facts["run"]["state"] == "queued"
    assert facts["commit"] == {"repository": "https://git.example/shuttle", "branch": "main", "dirty": "yes"}
    assert facts["data"] == {"digest": READINGS}
    assert facts["model"] == {"digest": world.model.digest, "framework": "custom"}
    assert facts["image"] == {"digest": world.image.digest, "kind": "onnx"}
    assert facts["module"]["desired_image"] == "scorer:1"
    assert facts["module"]["state"] == "running"
    assert facts["module"]["reported_digest"] == world.image.digest
    assert next(node.name for node in found.nodes if node.kind == "data") == "readings"
    edges = {(edge.source, edge.target) for edge in found.edges}
    assert (f"data:{READINGS}", f"run:{world.run.id}") in edges
    assert ("image:scorer:1", "module:press-1/scorer") in edges
    assert ("edge-deployment:presses", "module:press-1/scorer") in edges
    assert not found.truncated


def test_which_devices_run_something_made_from_this_data_set(database: Database, world: World) -> None:
    found = reach(database, f"data:{READINGS}", "down", "device")
    assert ids(found) == {f"data:{READINGS}", "device:press-1", "device:press-2"}
    assert {node.facts["state"] for node in found.nodes if node.kind == "device"} == {"online"}
    assert ids(reach(database, "data:labels", "down", "device")) == {"data:labels", "device:press-1"}
    assert world.other_model.name in {node.name.split(":")[0] for node in walk(database, f"data:{LABELS}").nodes}


def test_an_edge_deployment_leads_nobody_to_its_other_modules(database: Database, world: World) -> None:
    assert "image:other:1" not in ids(walk(database, "module:press-1/scorer"))
    assert "module:press-1/other" not in ids(walk(database, f"data:{READINGS}", "down"))
    assert {"image:other:1", "image:scorer:1", "module:press-1/other", "module:press-2/scorer"} <= ids(
        walk(database, "edge-deployment:presses")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_from_every_kind_agree(database: Database, world: World, kind: str) -> None:
    """Whatever a walk finds is found back from there, and asking for one kind gives what the whole walk gives of it."""
    everything = walk(database, f"data:{READINGS}", "down").nodes + walk(database, "device:press-1", "up").nodes
    begin = next(node.id for node in everything if node.kind == kind)
    for direction, back in (("up", "down"), ("down", "up")):
        found = walk(database, begin, "up" if direction == "up" else "down")
        for other in KINDS:
            wanted = {node.id for node in found.nodes if node.kind == other}
            assert ids(reach(database, begin, "up" if direction == "up" else "down", other)) == wanted | {begin}
        for node in found.nodes:
            if node.kind != "edge-deployment" and kind != "edge-deployment":
                assert begin in ids(walk(database, node.id, "up" if back == "up" else "down")), f"{node.id} {back}"


def test_names_of_one_thing(database: Database, world: World) -> None:
    with database.write() as connection:
        connection.execute(model_aliases.insert().values(name="shuttle", alias="champion", version=1, updated_at=to_text(NOW)))
    for of in (
        "model:shuttle",
        "model:shuttle:1",
        "model:shuttle@champion",
        "model:shuttle@latest",
        f"model:shuttle@{world.model.digest}",
    ):
        assert walk(database, of).root == "model:shuttle:1"
    assert walk(database, f"model@{world.model.digest}").root == "model:shuttle:1"
    assert walk(database, f"image@{world.image.digest}").root == "image:scorer:1"
    assert walk(database, "deployment:shuttle/blue").root == "deployment:shuttle/blue"
    assert walk(database, "environment:py").root == "environment:py:1"


def test_a_commit_is_named_by_its_beginning(database: Database, world: World) -> None:
    assert walk(database, f"commit:{COMMIT[:9]}").root == f"commit:{COMMIT}"
    assert "model:other:1" in ids(walk(database, f"commit:{OTHER_COMMIT[:8]}", "down"))
    with pytest.raises(AmbiguousCommit, match=COMMIT):
        walk(database, "commit:4f1c2a9")
    with database.write() as connection:
        submit_run(connection, commit="4f1c2a9")
    assert walk(database, "commit:4f1c2a9").root == "commit:4f1c2a9"


@pytest.mark.parametrize(
    ("of", "error"),
    [
        ("", InvalidLineageId),
        ("model", InvalidLineageId),
        ("planet:mars", InvalidLineageId),
        ("commit:xyz", InvalidLineageId),
        ("commit:abc", InvalidLineageId),
        ("commit:abcdef0", RecordNotFound),
        ("model@champion", InvalidLineageId),
        ("model:nothing", RecordNotFound),
        ("model:shuttle:9", RecordNotFound),
        ("model:shuttle@nobody", RecordNotFound),
        ("image:scorer@champion", RecordNotFound),
        ("model:shuttle:0", HedgerowError),
        ("module:press-1", InvalidLineageId),
        ("module:press-1/nothing", RecordNotFound),
        ("deployment:shuttle", InvalidLineageId),
        ("deployment:a/b/c", InvalidLineageId),
        ("device:../x", HedgerowError),
        ("data:nothing", RecordNotFound),
        (f"data:{digest_of_text('never')}", RecordNotFound),
        ("run:nothing", RecordNotFound),
    ],
)
def test_what_names_nothing_says_so(database: Database, world: World, of: str, error: type[HedgerowError]) -> None:
    with pytest.raises(error):
        walk(database, of)


def test_depth_and_limit_bound_a_walk(database: Database, world: World) -> None:
    assert ids(walk(database, "image:scorer:1", "up", depth=1)) == {"image:scorer:1", "model:shuttle:1", "environment:py:1"}
    assert ids(walk(database, "image:scorer:1", depth=0)) == {"image:scorer:1"}
    few = walk(database, "image:scorer:1", limit=3)
    assert len(few.nodes) == 3
    assert few.truncated
    known = {node.id for node in few.nodes}
    assert all({edge.source, edge.target} <= known for edge in few.edges)
    assert reach(database, f"data:{READINGS}", "down", "device", limit=2).truncated


def test_a_device_counts_once_however_many_modules_of_it_are_reached(database: Database, world: World) -> None:
    """press-1 runs two modules made by this machine's models: as one of two devices it leaves room for the other."""
    with database.write() as connection:
        rows = [{"name": "other", "version": 1, "data_name": "readings", "digest": READINGS}]
        connection.execute(model_data.insert(), rows)
    found = reach(database, f"data:{READINGS}", "down", "device", limit=3)
    assert ids(found) == {f"data:{READINGS}", "device:press-1", "device:press-2"}
    assert not found.truncated
    assert len(reach(database, f"data:{READINGS}", "down", "module").nodes) == 4


def test_a_data_set_with_several_contents(database: Database, world: World) -> None:
    newer = digest_of_text("newer readings")
    with database.write() as connection:
        run = submit_run(connection, DataRef(name="readings", digest=newer))
    found = walk(database, "data:readings", "down")
    assert {"data:readings", f"data:{newer}", f"data:{READINGS}", f"run:{run.id}", "device:press-1"} <= ids(found)
    assert ("data:readings", f"data:{newer}") in {(edge.source, edge.target) for edge in found.edges}


def test_a_tombstone_is_shown_as_deleted(database: Database, world: World) -> None:
    with database.write() as connection:
        here = model_versions.c.name == "shuttle"
        connection.execute(update(model_versions).where(here).values(deleted_at=to_text(after(5)), deleted_by="owner:o:1"))
    found = walk(database, "module:press-1/scorer", "up")
    (model,) = (node for node in found.nodes if node.kind == "model")
    assert model.deleted
    assert model.facts["deleted_at"] == to_text(after(5))
    assert walk(database, "model:shuttle:1").root == "model:shuttle:1"
    with pytest.raises(RecordNotFound):
        walk(database, "model:shuttle")


def _many_models(connection: Connection, count: int) -> None:
    connection.execute(model_names.insert().values(name="many", last_version=count))
    rows = [
        {"name": "many", "version": i, "digest": READINGS, "framework": "f", "manifest": "{}", "created_at": to_text(NOW)}
        for i in range(1, count + 1)
    ]
    connection.execute(model_versions.insert(), rows)
    data = [{"name": "many", "version": i, "data_name": "readings", "digest": READINGS} for i in range(1, count + 1)]
    connection.execute(model_data.insert(), data)


def test_more_than_the_limit_is_not_even_read(database: Database, world: World) -> None:
    with database.write() as connection:
        _many_models(connection, 3000)
    found = walk(database, f"data:{READINGS}", "down", limit=100)
    assert len(found.nodes) == 100
    assert found.truncated
    assert len(found.edges) < 300


def test_every_step_of_a_walk_has_an_index(database: Database, world: World) -> None:
    with database.write() as connection:
        _many_models(connection, 3000)
        if connection.dialect.name == "postgresql":
            connection.execute(text("ANALYZE"))
    steps: tuple[Step, ...] = ("up", "down")
    if database.records.dialect.name == "postgresql":
        return _assert_postgres_uses_indexes(database)
    with database.read() as connection:
        for link in LINKS:
            for step in steps:
                near = link.near_key(step)
                query = link.query(step, *near, *link.far_key(step)).where(among(near, [tuple("x" for _ in near)] * 3))
                compiled = query.compile(connection, compile_kwargs={"render_postcompile": True})
                plan = connection.exec_driver_sql(
                    f"EXPLAIN QUERY PLAN {compiled}", tuple(compiled.params[name] for name in compiled.positiontup or ())
                ).all()
                scans = [row.detail for row in plan if row.detail.startswith("SCAN")]
                # Only the keys that are asked for are read from end to end.
                assert all("CONSTANT" in scan or "wanted" in scan for scan in scans), (
                    f"{link.source}→{link.target} {step}: {plan}"
                )
    return None


def _assert_postgres_uses_indexes(database: Database) -> None:
    """Of the tables that are large here; its planner rightly reads a table of three rows from end to end."""
    with database.read() as connection:
        for link in LINKS:
            if link.rows in (model_versions, model_data):
                near = link.near_key("down")
                query = link.query("down", *near).where(among(near, [("x",)])).limit(10)
                compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
                plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {compiled}".replace("%", "%%")))
                assert "Seq Scan" not in plan, plan
