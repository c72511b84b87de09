"""Endpoints and deployments in the database: what people may ask for, and whose columns are whose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from hedgerow.contracts.api import DeployImage, SetTraffic
from hedgerow.contracts.document import decode
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.names import Reference
from hedgerow.contracts.service import DeploymentSettings, Endpoint, ReplicaStatus
from hedgerow.errors import InvalidName
from registry.errors import DeploymentRefused, InUse, LeaseLost, RecordNotFound, RevisionConflict, StillServing, TrafficRefused
from registry.store import activities, images, leases, services
from registry.store.database import Database
from registry.store.leases import Lease
from registry.store.services import DEPLOY, DeployTask, Progress
from tests.registry_stores import BACKENDS, NOW, add_image, add_model, after, ready_database


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as ready:
        yield ready


@pytest.fixture
def image(database: Database) -> ImageRecord:
    with database.write() as connection:
        return add_image(connection, "churn-image", add_model(connection))


@pytest.fixture
def lease(database: Database) -> Lease:
    with database.write() as connection:
        taken = leases.acquire(connection, "controller", "me", 30, NOW)
    assert taken is not None
    return taken


def deploy(
    database: Database, name: str = "blue", image: str = "churn-image", endpoint: str = "churn", **settings: object
) -> str:
    wanted = DeployImage(image=image, settings=DeploymentSettings(**settings))  # type: ignore[arg-type]  # test data
    with database.write() as connection:
        return services.deploy(connection, endpoint, name, wanted, NOW)


def traffic(database: Database, revision: int, **shares: int) -> dict[str, int]:
    with database.write() as connection:
        return services.set_traffic(connection, "churn", SetTraffic(traffic=shares, revision=revision)).traffic


def one(connection: Connection) -> Endpoint:
    return services.get(connection, "churn")


def test_the_first_deployment_makes_the_endpoint_and_gets_all_traffic(
    database: Database, image: ImageRecord, lease: Lease
) -> None:
    activity_id = deploy(database, replicas=2)
    deploy(database, "green")
    with database.write() as connection:
        endpoint = one(connection)
        assert endpoint.traffic == {"blue": 100}
        blue, green = endpoint.deployments
        assert (blue.name, blue.state, blue.revision, blue.settings.replicas) == ("blue", "starting", 1, 2)
        assert (green.image.digest, green.image.kind) == (image.digest, "onnx")
        claimed = activities.claim(connection, lease, [DEPLOY], NOW)
        assert claimed is not None
        assert claimed[0].id == activity_id
        assert decode(claimed[1], DeployTask) == DeployTask(endpoint="churn", deployment="blue", revision=1)


def test_deploying_again_is_a_new_revision_of_the_same(database: Database, image: ImageRecord) -> None:
    deploy(database)
    with database.write() as connection:
        newer = add_image(connection, "churn-image", manifest="2")
    deploy(database, image=f"churn-image@{newer.digest}")
    with database.read() as connection:
        (blue,) = one(connection).deployments
    assert (blue.revision, blue.image.version, blue.state) == (2, 2, "starting")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"target": "docker"}, "target docker"), ({"target": "kubernetes"}, "target kubernetes")],
)
def test_targets_that_this_version_does_not_have(
    database: Database, image: ImageRecord, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DeploymentRefused, match=problem):
        deploy(database, **settings)


def test_an_image_that_a_process_cannot_run(database: Database) -> None:
    import msgspec

    with database.write() as connection:
        model = add_model(connection)
        version = images.next_version(connection, "boxed")
        record = add_image(connection, "for-its-fields", model)
        boxed = msgspec.structs.replace(record, name="boxed", version=version, kind="docker")
        images.insert(connection, boxed, [])
    with pytest.raises(DeploymentRefused, match="boxed:1 is of kind docker"):
        deploy(database, image="boxed")
    with pytest.raises(RecordNotFound, match="no image absent"):
        deploy(database, image="absent")
    with pytest.raises(InvalidName):
        deploy(database, "Blue!", image="boxed")
    with database.read() as connection:
        assert services.newest(connection, 10) == ([], None), "what was refused left nothing"


def test_traffic_is_split_by_whoever_saw_the_newest_revision(database: Database, image: ImageRecord) -> None:
    deploy(database)
    deploy(database, "green")
    with database.read() as connection:
        revision = one(connection).revision
    assert traffic(database, revision, blue=90, green=10) == {"blue": 90, "green": 10}
    with pytest.raises(RevisionConflict):
        traffic(database, revision, blue=0, green=100)
    assert traffic(database, revision + 1, blue=0, green=100) == {"green": 100}


@pytest.mark.parametrize(
    ("shares", "problem"), [({"blue": 90}, "sum to 90"), ({"blue": 50, "red": 50}, "no deployment 'red'"), ({}, "sum to 0")]
)
def test_traffic_that_does_not_add_up(database: Database, image: ImageRecord, shares: dict[str, int], problem: str) -> None:
    deploy(database)
    with pytest.raises(TrafficRefused, match=problem):
        traffic(database, 1, **shares)


def test_a_deployment_goes_when_nothing_is_sent_to_it_any_more(database: Database, image: ImageRecord, lease: Lease) -> None:
    deploy(database)
    deploy(database, "green")
    with pytest.raises(StillServing, match="gets 100 %"), database.write() as connection:
        services.delete_deployment(connection, "churn", "blue")
    with database.write() as connection:
        services.delete_deployment(connection, "churn", "green")
        green = one(connection).deployments[1]
        assert green.state == "deleting"
        with pytest.raises(InUse):
            images.delete_version(connection, Reference.parse("churn-image:1"))
        services.remove(connection, lease, green)
        assert [found.name for found in one(connection).deployments] == ["blue"]
    with pytest.raises(RecordNotFound), database.write() as connection:
        services.delete_deployment(connection, "churn", "green")


@pytest.mark.parametrize("by_deployment", [True, False])
def test_the_endpoint_goes_with_its_last_deployment(
    database: Database, image: ImageRecord, lease: Lease, by_deployment: bool
) -> None:
    deploy(database)
    with database.write() as connection:
        if by_deployment:
            services.delete_deployment(connection, "churn", "blue")
        else:
            services.delete_endpoint(connection, "churn")
        with pytest.raises(RecordNotFound):
            one(connection)
        (going,) = services.everything(connection)
        assert (going.traffic, going.deployments[0].state) == ({}, "deleting")
        services.remove(connection, lease, going.deployments[0])
        assert services.everything(connection) == []


def test_deploying_to_an_endpoint_that_is_going_keeps_it(database: Database, image: ImageRecord, lease: Lease) -> None:
    deploy(database)
    with database.write() as connection:
        services.delete_endpoint(connection, "churn")
        (going,) = services.everything(connection)
    deploy(database)
    with database.write() as connection:
        # The controller saw it go and comes too late.
        services.remove(connection, lease, going.deployments[0])
        endpoint = one(connection)
    assert (endpoint.traffic, endpoint.deployments[0].state) == ({"blue": 100}, "starting")


def test_the_controller_reports_on_what_it_saw_only(database: Database, image: ImageRecord, lease: Lease) -> None:
    deploy(database)
    ready = Progress("ready", "", (ReplicaStatus(name="blue-1", state="ready", pid=7),))
    with database.write() as connection:
        (seen,) = one(connection).deployments
        services.report(connection, lease, seen, ready)
        services.report_url(connection, lease, "churn", "http://127.0.0.1:8090/services/churn/score")
        endpoint = one(connection)
        assert (endpoint.deployments[0].state, endpoint.deployments[0].replicas) == ("ready", list(ready.replicas))
        assert endpoint.scoring_url == "http://127.0.0.1:8090/services/churn/score"
    deploy(database)
    with database.write() as connection:
        services.report(connection, lease, seen, ready)
        assert one(connection).deployments[0].state == "starting", "the report was about the revision before"


def test_a_controller_that_lost_its_lease_writes_nothing(database: Database, image: ImageRecord, lease: Lease) -> None:
    deploy(database)
    with database.write() as connection:
        assert leases.acquire(connection, "controller", "another", 30, after(31)) is not None
        (seen,) = one(connection).deployments
    writes: list[Callable[[Connection], object]] = [
        lambda connection: services.report(connection, lease, seen, Progress("ready", "", ())),
        lambda connection: services.report_url(connection, lease, "churn", None),
        lambda connection: services.remove(connection, lease, seen),
    ]
    for write in writes:
        with pytest.raises(LeaseLost), database.write() as connection:
            write(connection)
    with database.read() as connection:
        assert one(connection).deployments == [seen]


def test_endpoints_come_in_pages(database: Database, image: ImageRecord) -> None:
    for name in ("c", "a", "b"):
        deploy(database, endpoint=name)
    with database.read() as connection:
        first, following = services.newest(connection, 2)
        rest, end = services.newest(connection, 2, following)
    assert ([e.name for e in first], following, [e.name for e in rest], end) == (["a", "b"], "b", ["c"], None)
