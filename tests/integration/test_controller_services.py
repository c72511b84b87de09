"""Services with the real controller, scoring server and HAProxy: deployed, scored, updated, split, scaled, taken away."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from hedgerow.contracts.service import DeploymentSettings
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ActivityFailed, ApiError
from registry.controller.balancer.direct import MISSING
from tests.controller_process import ROW, Plane, delete, deploy, deployment_of, ended, plane, score
from tests.steady_load import steady_load
from tests.waiting import accepts_connections, wait_for


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane(tmp_path_factory.mktemp("services"), "--stop-services-on-exit") as started:
        yield started


@pytest.fixture
def client(made: Plane) -> Iterator[Client]:
    yield made.client
    for endpoint in made.client.services.list().items:
        delete(made, endpoint.name)


def test_an_image_becomes_an_endpoint_that_speaks_both_contracts(made: Plane, client: Client, double: str) -> None:
    activity = client.activities.wait(client.services.deploy("twice", double).id)
    endpoint = client.services.get("twice")
    assert endpoint.scoring_url == f"http://127.0.0.1:{made.balancer_port}/services/twice/score"
    assert activity.result == {"scoring_url": endpoint.scoring_url}
    (blue,) = endpoint.deployments
    assert (blue.state, blue.reason, [one.state for one in blue.replicas]) == ("ready", "", ["ready"])
    assert score(endpoint.scoring_url) == 2.0
    base = endpoint.scoring_url.removesuffix("/score")
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    inferred = httpx.post(f"{base}/v2/models/doubling/infer", json={"inputs": [tensor]}).json()
    assert inferred["outputs"][0]["data"] == [2.0, 4.0, 6.0]
    assert httpx.get(f"{base}/v2/health/ready").status_code == 200
    root = httpx.get(base)
    assert (root.status_code, root.text) == (200, "Healthy")


@pytest.mark.parametrize("path", ["/services/absent/score", "/services/", "/services//score", "/", "/twice/score"])
def test_other_addresses_lead_nowhere(made: Plane, client: Client, double: str, path: str) -> None:
    deploy(client, double)
    answered = httpx.post(f"http://127.0.0.1:{made.balancer_port}{path}", json=ROW)
    assert (answered.status_code, set(answered.json())) == (404, {"message", "error"})


def test_a_rolling_update_under_load_fails_no_request(made: Plane, client: Client, double: str, triple: str) -> None:
    url = deploy(client, double, replicas=2).scoring_url
    with steady_load(url, ROW) as load:
        wait_for(lambda: load.good > 50, what="load")
        deploy(client, triple, replicas=2)
        wait_for(lambda: len(made.running("replica-")) == 2, timeout_s=20, what="the end of the old replicas")
        before = load.good
        wait_for(lambda: load.good > before + 50, what="load on the new replicas")
    assert not load.bad
    assert {value for _, value in load.answers} == {2.0, 3.0}
    assert score(url) == 3.0


def test_an_update_that_never_gets_ready_leaves_the_old_one_serving(client: Client, double: str, triple: str) -> None:
    url = deploy(client, double).scoring_url
    with steady_load(url, ROW, clients=1) as load:
        variables = {"HEDGEROW_MAX_QUEUE": "-1"}  # the scoring server refuses to start with it
        wanted = DeploymentSettings(variables=variables)
        activity = ended(client, client.services.deploy("twice", triple, settings=wanted).id)
        assert activity.state == "failed"
        assert activity.problem is not None
        assert "ended" not in activity.problem.message or "exit code" in activity.problem.message
        assert "max_queue" in activity.problem.details["log"], activity.problem
        found = deployment_of(client)
        assert found.state == "degraded"
        assert "exit code 2" in found.reason
        assert load.good
    assert not load.bad
    assert score(url) == 2.0
    deploy(client, triple)
    assert score(url) == 3.0


def test_traffic_is_split_by_percent(client: Client, double: str, triple: str) -> None:
    url = deploy(client, double).scoring_url
    deploy(client, triple, deployment="green")
    assert {score(url) for _ in range(30)} == {2.0}, "a second deployment gets nothing unasked"
    client.services.set_traffic("twice", {"blue": 70, "green": 30})

    def shares() -> Counter[float]:
        with httpx.Client() as http:
            return Counter(http.post(str(url), json=ROW).json()[0][0] for _ in range(400))

    def about_a_third() -> Counter[float] | None:
        counted = shares()
        return counted if 60 < counted[3.0] < 180 else None

    wait_for(about_a_third, what="about 30 % for green")
    client.services.set_traffic("twice", {"green": 100})
    wait_for(lambda: shares()[3.0] == 400, what="all traffic for green")


def test_scaling_changes_only_the_number(made: Plane, client: Client, double: str) -> None:
    url = deploy(client, double, replicas=1).scoring_url
    first = made.running("replica-")
    with steady_load(url, ROW, clients=2) as load:
        deploy(client, double, replicas=3)
        three = made.running("replica-")
        assert set(first) < set(three)
        assert len(three) == 3
        deploy(client, double, replicas=1)
        wait_for(lambda: len(made.running("replica-")) == 1, timeout_s=20, what="one replica left")
    assert not load.bad


def test_too_much_at_once_is_answered_in_time(client: Client, double: str) -> None:
    # One place and no time to wait: of many at once most are told to come back.
    url = str(deploy(client, double, max_concurrent_requests=1, max_queue_wait_ms=0).scoring_url)
    rows = {"data": [[1.0, 2.0, 3.0]] * 20_000}

    def ask(_: int) -> int:
        answered = httpx.post(url, json=rows, timeout=30)
        if answered.status_code == 503:
            assert answered.headers["retry-after"] == "1"
            assert "busy" in answered.json()["message"]
        return answered.status_code

    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(ask, range(24)))
    assert set(found) == {200, 503}, found


def test_two_who_change_traffic_at_once(client: Client, double: str) -> None:
    deploy(client, double)
    from hedgerow.contracts.api import SetTraffic
    from hedgerow.contracts.service import Endpoint

    revision = client.services.get("twice").revision
    body = SetTraffic(traffic={"blue": 100}, revision=revision)
    client.transport.call("PUT", "/api/v1/endpoints/twice/traffic", Endpoint, body=body)
    with pytest.raises(ApiError, match="somebody changed it"):
        client.transport.call("PUT", "/api/v1/endpoints/twice/traffic", Endpoint, body=body)


def test_what_is_deleted_is_gone(made: Plane, client: Client, double: str) -> None:
    url = deploy(client, double, replicas=2).scoring_url
    deploy(client, double, endpoint="other")
    client.services.delete("twice")
    wait_for(lambda: len(made.supervised("replica-")) == 1, timeout_s=20, what="the end of its replicas")
    wait_for(lambda: httpx.post(str(url), json=ROW).status_code == 404, what="its URL leading nowhere")
    client.services.delete("other")
    wait_for(lambda: not made.supervised("balancer"), timeout_s=20, what="the end of the balancer")
    wait_for(lambda: not list((made.folder / "run" / "images").iterdir()), what="the end of its unpacked image")
    assert list((made.folder / "run" / "replicas").iterdir()) == []


def test_deploys_are_cancelled_superseded_and_gone(made: Plane, client: Client, double: str) -> None:
    first = client.services.deploy("twice", double)
    second = client.services.deploy("twice", double)
    assert ended(client, second.id).state == "succeeded"
    problem = ended(client, first.id).problem
    assert problem is None or problem.code == "superseded", "both may have been ready in one look"
    third = client.services.deploy("other", double)
    assert client.activities.cancel(third.id).state in ("running", "cancelled")
    assert ended(client, third.id).state == "cancelled"
    wait_for(lambda: deployment_of(client, "other").state == "ready", timeout_s=20, what="the deployment, which goes on")
    client.services.delete("twice")
    fourth = client.services.deploy("other", double, deployment="green")
    client.services.delete("other")
    found = ended(client, fourth.id)
    assert found.state == "succeeded" or (found.problem and found.problem.code == "deployment_deleted"), found


def test_the_port_of_the_balancer_is_taken(made: Plane, client: Client, double: str) -> None:
    wait_for(lambda: not accepts_connections(made.balancer_port), what="the end of the balancer of the test before")
    with socket.create_server(("127.0.0.1", made.balancer_port)):
        activity = ended(client, client.services.deploy("twice", double).id)
        assert activity.problem is not None
        assert f"Port {made.balancer_port} on 127.0.0.1 is taken" in activity.problem.message
        assert deployment_of(client).state == "degraded"
    wait_for(lambda: deployment_of(client).state == "ready", timeout_s=20, what="the balancer once the port is free")
    assert score(client.services.get("twice").scoring_url) == 2.0


def test_without_haproxy_one_replica_at_its_own_address(made: Plane, client: Client, double: str) -> None:
    made.controller.stop()
    try:
        made.start_controller("--haproxy", "/nowhere/haproxy", "--stop-services-on-exit")
        endpoint = deploy(client, double)
        (blue,) = endpoint.deployments
        assert endpoint.scoring_url == f"{blue.replicas[0].address}/score"
        assert (blue.state, blue.reason) == ("ready", MISSING)
        assert score(endpoint.scoring_url) == 2.0
        for name, replicas in (("blue", 2), ("green", 1)):
            wanted = DeploymentSettings(replicas=replicas)
            with pytest.raises(ActivityFailed, match="haproxy is not installed"):
                client.activities.wait(client.services.deploy("twice", double, deployment=name, settings=wanted).id)
        assert score(endpoint.scoring_url) == 2.0, "what served before goes on"
    finally:
        made.controller.stop()
        made.start_controller("--stop-services-on-exit")


def test_stopping_stops_the_services_and_the_next_controller_starts_them(made: Plane, client: Client, double: str) -> None:
    url = deploy(client, double).scoring_url
    made.controller.stop()
    assert not made.supervised("replica-")
    assert not accepts_connections(made.balancer_port)
    found = deployment_of(client)
    assert (found.state, found.replicas) == ("degraded", [])
    assert "stopped" in found.reason
    made.start_controller()
    wait_for(lambda: deployment_of(client).state == "ready", timeout_s=20, what="the service to be back")
    assert score(url) == 2.0
