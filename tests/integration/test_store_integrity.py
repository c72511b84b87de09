"""What holds what: refused and forced deletions, and who wins when two want opposite things at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import (
    Connection,
    delete,
    func,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from hedgerow.contracts.api import CreateEnvironment, DeployImage
from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.names import Reference
from hedgerow.errors import HedgerowError
from registry.errors import BuildRefused, InUse, RecordDeleted, RecordNotFound
from registry.store import activities, edge_deployments, environments, fleet, images, leases, lineage, model_deletion, services
from registry.store.database import Database
from registry.store.deletion import MOST_NAMED
from registry.store.events import system
from registry.store.image_conditions import Wanted
from registry.store.tables import edge_images, image_blobs, image_models
from tests.registry_app import running_app
from tests.registry_lineage import World, build_world
from tests.registry_stores import BACKENDS, NOW, add_image, add_model, ready_database
from tests.waiting import wait_for

OWNER = system("owner")


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


# --- deletion -----------------------------------------------------------------------------------------------------------


def test_an_image_is_held_by_services_devices_and_manifests(database: Database) -> None:
    with database.write() as connection:
        build_world(connection)
    with database.write() as connection, pytest.raises(InUse) as refused:
        images.delete_version(connection, Reference("scorer", 1))
    for user in (
        "deployment shuttle/blue",
        "module scorer of device press-1",
        "module scorer of device press-2",
        "module scorer of edge deployment presses",
    ):
        assert user in str(refused.value)


def test_only_so_many_users_are_named(database: Database) -> None:
    with database.write() as connection:
        add_image(connection, "i")
        for number in range(30):
            manifest = EdgeDeployment(name=f"e-{number:02}", target="*", modules={"m": ModuleSpec(image="i:1")})
            edge_deployments.put(connection, manifest, NOW)
    with database.read() as connection:
        users = images.users_of(connection, "i", 1)
    assert len(users) == MOST_NAMED + 1
    assert users[-1] == "and 10 more"


def test_a_manifest_holds_its_images_until_it_names_others_or_goes(database: Database) -> None:
    def put(image: str) -> None:
        manifest = EdgeDeployment(name="e", target="*", modules={"m": ModuleSpec(image=image), "c": ModuleSpec(command=["x"])})
        with database.write() as connection:
            edge_deployments.put(connection, manifest, NOW)

    with database.write() as connection:
        first, _ = add_image(connection, "i", manifest="{1}"), add_image(connection, "i", manifest="{2}")
    put(f"i@{first.digest}")
    with database.write() as connection, pytest.raises(InUse, match="module m of edge deployment e"):
        images.delete_version(connection, Reference("i", 1))
    put("i:2")
    with database.write() as connection:
        images.delete_version(connection, Reference("i", 1))
        edge_deployments.remove(connection, "e")
        images.delete_version(connection, Reference("i", 2))
    with pytest.raises(RecordNotFound):
        put("i:1")


def test_an_unchanged_manifest_of_an_older_version_gets_its_rows_at_the_next_put(database: Database) -> None:
    manifest = EdgeDeployment(name="e", target="*", modules={"m": ModuleSpec(image="i:1")})
    with database.write() as connection:
        add_image(connection, "i")
        edge_deployments.put(connection, manifest, NOW)
        connection.execute(delete(edge_images))
        assert edge_deployments.put(connection, manifest, NOW).revision == 1
        assert connection.execute(select(func.count()).select_from(edge_images)).scalar_one() == 1


def test_a_forced_deletion_leaves_a_tombstone(database: Database) -> None:
    with database.write() as connection:
        world = build_world(connection)
        users = images.force_delete(connection, Reference("scorer"), OWNER, NOW).users
    assert "deployment shuttle/blue" in users
    with database.read() as connection:
        _assert_gone(connection, world)
        assert connection.execute(select(image_models).where(image_models.c.image_name == "scorer")).first() is not None
        assert services.get(connection, "shuttle").deployments[0].image.digest == world.image.digest
        found = lineage.walk(connection, "module:press-1/scorer", direction="up", limit=50, now=NOW)
    assert [node.id for node in found.nodes if node.deleted] == ["image:scorer:1"]
    assert f"run:{world.run.id}" in {node.id for node in found.nodes}
    with database.write() as connection:
        assert add_image(connection, "scorer").version == 2
        with pytest.raises(RecordDeleted, match=r"image scorer:1 was deleted by owner"):
            services.deploy(connection, "again", "d", DeployImage(image="scorer:1"), NOW)


def _assert_gone(connection: Connection, world: World) -> None:
    with pytest.raises(RecordDeleted):
        images.get(connection, Reference("scorer", 1))
    with pytest.raises(RecordNotFound):
        images.get(connection, Reference("scorer"))
    with pytest.raises(RecordNotFound):
        images.get(connection, Reference("scorer", digest=world.image.digest))
    assert images.newest(connection, 10, wanted=Wanted(digest=world.image.digest))[0] == []
    assert images.versions_of(connection, "scorer") == []
    assert [record.name for record in images.newest(connection, 10)[0]] == ["other"]
    assert images.find_blob(connection, "scorer", world.image.digest, device_uuid=world.device_uuid) is None
    assert connection.execute(select(image_blobs).where(image_blobs.c.image_name == "scorer")).first() is None


def test_force_without_users_is_a_plain_deletion(database: Database) -> None:
    with database.write() as connection:
        add_image(connection, "i")
        assert images.force_delete(connection, Reference("i"), OWNER, NOW).users == []
        with pytest.raises(RecordNotFound) as gone:
            images.get(connection, Reference("i", 1))
    assert not isinstance(gone.value, RecordDeleted)


def test_deleting_a_device_frees_its_images_and_keeps_the_rest(database: Database) -> None:
    with database.write() as connection:
        build_world(connection)
        fleet.forget(connection, "press-1", NOW)
        assert "module other of device press-1" not in images.users_of(connection, "other", 1)
        assert "module scorer of device press-2" in images.users_of(connection, "scorer", 1)


# --- at once ------------------------------------------------------------------------------------------------------------


def at_once(database: Database, *actions: Callable[[Connection], object]) -> list[object]:
    """Every action in a thread and a transaction of its own, begun together; their results, or what they raised."""
    gate = threading.Barrier(len(actions))
    results: list[object] = [None] * len(actions)

    def run(index: int) -> None:
        gate.wait(timeout=30)
        try:
            with database.write() as connection:
                results[index] = actions[index](connection)
        except (HedgerowError, SQLAlchemyError) as problem:
            results[index] = problem

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "they wait for each other"
    return results


def while_open(database: Database, first: Callable[[Connection], object], second: Callable[[Connection], object]) -> object:
    """``second`` begins when ``first`` is done but not committed; what ``second`` gives or raises."""
    results: list[object] = []

    def run() -> None:
        try:
            with database.write() as connection:
                results.append(second(connection))
        except (HedgerowError, SQLAlchemyError) as problem:
            results.append(problem)

    thread = threading.Thread(target=run)
    with database.write() as connection:
        first(connection)
        thread.start()
        if connection.dialect.name == "postgresql":
            # SQLite lets the second one in only afterwards; here it must be seen to wait for a row.
            wait_for(lambda: _waits_for_a_lock(database), what="the second transaction waiting for the first")
    thread.join(timeout=60)
    assert not thread.is_alive(), "the second one never ended"
    return results[0]


def _waits_for_a_lock(database: Database) -> bool:
    question = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with database.read() as connection:
        return bool(connection.execute(text(question)).scalar_one())


def test_a_build_registers_while_its_model_is_deleted(database: Database) -> None:
    with database.write() as connection:
        one, two = add_model(connection, "one"), add_model(connection, "two")

    def drop(name: str) -> Callable[[Connection], object]:
        return lambda connection: model_deletion.delete_version(connection, Reference(name, 1), OWNER, NOW)

    assert isinstance(while_open(database, lambda c: add_image(c, "i", one), drop("one")), InUse)
    late = while_open(database, drop("two"), lambda c: add_image(c, "j", two))
    assert isinstance(late, BuildRefused)
    assert "model two:1 was deleted while it was built" in str(late)


@pytest.mark.parametrize("what", ["model", "environment"])
def test_a_build_is_asked_for_while_what_it_needs_is_deleted(tmp_path: Path, postgres_url: str, what: str) -> None:
    # SQLite lets one of the two in at a time.
    with running_app(tmp_path, postgres_url) as app:
        asker, database = app.asker(), app.here.database
        with database.write() as connection:
            add_model(connection, "one")
            environments.create(connection, CreateEnvironment(name="env", requirements=["numpy"]), NOW)
        codes: list[str] = []
        wanted = {"name": "i", "models": ["one:1"], "environment": "env:1"}
        thread = threading.Thread(target=lambda: codes.append(asker.code("POST", "/api/v1/images", wanted)))
        with database.write() as connection:
            if what == "model":
                model_deletion.delete_version(connection, Reference("one", 1), OWNER, NOW)
            else:
                environments.delete_version(connection, Reference("env", 1), OWNER, NOW)
            thread.start()
            wait_for(lambda: _waits_for_a_lock(database), what="the request waiting for the deletion")
        thread.join(timeout=60)
        assert codes == ["not_found"]


def test_a_deployment_and_a_deletion_of_its_image(database: Database) -> None:
    def drop(connection: Connection) -> object:
        return images.delete_version(connection, Reference("i", 1))

    def deploy(connection: Connection) -> object:
        return services.deploy(connection, "e", "d", DeployImage(image="i:1"), NOW)

    with database.write() as connection:
        add_image(connection, "i")
    assert isinstance(while_open(database, deploy, drop), InUse)
    with database.write() as connection:
        add_image(connection, "i", manifest="{2}")

    def drop_newest(connection: Connection) -> object:
        return images.delete_version(connection, Reference("i", 2))

    def deploy_newest(connection: Connection) -> object:
        services.deploy(connection, "f", "d", DeployImage(image="i"), NOW)
        return services.get(connection, "f").deployments[0].image.version

    # Its newest was on its way out: the newest that stays is meant.
    assert while_open(database, drop_newest, deploy_newest) == 1


def test_a_manifest_and_a_forced_deletion_of_its_image(database: Database) -> None:
    manifest = EdgeDeployment(name="e", target="*", modules={"m": ModuleSpec(image="i:1")})
    with database.write() as connection:
        add_image(connection, "i")
        add_image(connection, "k")
        services.deploy(connection, "s", "d", DeployImage(image="k:1"), NOW)

    def force(name: str) -> Callable[[Connection], object]:
        return lambda connection: images.force_delete(connection, Reference(name, 1), OWNER, NOW).users

    def put(connection: Connection) -> object:
        return edge_deployments.put(connection, manifest, NOW)

    assert while_open(database, put, force("i")) == ["module m of edge deployment e"]
    other = EdgeDeployment(name="f", target="*", modules={"m": ModuleSpec(image="k:1")})
    late = while_open(database, force("k"), lambda c: edge_deployments.put(c, other, NOW))
    assert isinstance(late, RecordDeleted)


def test_firsts_of_one_name_at_once(database: Database) -> None:
    with database.write() as connection:
        add_image(connection, "i")
    for turn in range(5):
        deployed = at_once(
            database,
            *(
                lambda c, name=name, turn=turn: services.deploy(c, f"e-{turn}", name, DeployImage(image="i:1"), NOW)
                for name in ("blue", "green", "red")
            ),
        )
        assert all(isinstance(result, str) for result in deployed), deployed
        put = at_once(
            database,
            *(
                lambda c, turn=turn, order=order: edge_deployments.put(
                    c, EdgeDeployment(name=f"m-{turn}", target="*", priority=order, modules={}), NOW
                )
                for order in range(3)
            ),
        )
        assert sorted(getattr(result, "revision", 0) for result in put) == [1, 2, 3], put
    with database.read() as connection:
        assert sum(services.get(connection, "e-0").traffic.values()) == 100


def test_an_activity_is_claimed_or_cancelled_never_both(database: Database) -> None:
    with database.write() as connection:
        lease = leases.acquire(connection, "controller", "test", 600.0, NOW)
    assert lease is not None
    seen = set[str]()
    for _ in range(20):
        with database.write() as connection:
            wanted = activities.create(connection, kind="image.build", subject="i", request=DeployImage(image="i"), now=NOW)

        def claim(connection: Connection) -> object:
            return activities.claim(connection, lease, ["image.build"], NOW)

        def cancel(connection: Connection, wanted: str = wanted) -> object:
            return activities.cancel(connection, wanted, NOW).state

        claimed, cancelled = at_once(database, claim, cancel)
        assert not isinstance(claimed, Exception), claimed
        assert not isinstance(cancelled, Exception), cancelled
        with database.write() as connection:
            activity = activities.get(connection, wanted)
            asked = wanted in activities.cancel_requested(connection)
            # Either it runs and knows that it shall stop, or it never began.
            assert (activity.state, asked) == (("running", True) if claimed is not None else ("cancelled", False))
            activities.finish(connection, lease, wanted, state="cancelled", now=NOW)
        seen.add(str(cancelled))
    assert seen <= {"running", "cancelled"}


def test_one_activity_is_claimed_once(database: Database) -> None:
    with database.write() as connection:
        lease = leases.acquire(connection, "controller", "test", 600.0, NOW)
        for _ in range(3):
            activities.create(connection, kind="image.build", subject="i", request=DeployImage(image="i"), now=NOW)
    assert lease is not None
    taken = at_once(database, *(lambda c: activities.claim(c, lease, ["image.build"], NOW) for _ in range(6)))
    assert not [result for result in taken if isinstance(result, Exception)], taken
    ids = [result[0].id for result in taken if isinstance(result, tuple)]
    assert len(ids) == len(set(ids))
    with database.write() as connection:
        while (found := activities.claim(connection, lease, ["image.build"], NOW)) is not None:
            ids.append(found[0].id)
    assert len(set(ids)) == len(ids) == 3


def test_a_device_is_deleted_and_enrolled_at_once(database: Database) -> None:
    with database.write() as connection:
        fleet.enroll(connection, EnrollDevice(name="press"), NOW)
    for _ in range(5):
        results = at_once(
            database,
            lambda c: fleet.forget(c, "press", NOW),
            lambda c: fleet.enroll(c, EnrollDevice(name="press"), NOW),
        )
        assert all(not isinstance(result, Exception) or isinstance(result, HedgerowError) for result in results), results
        with database.write() as connection:
            if fleet.page(connection, 1, None, NOW)[0] == []:
                fleet.enroll(connection, EnrollDevice(name="press"), NOW)
