"""``/api/v1/endpoints`` over HTTP: who may, what is answered, what is refused. No controller runs: only wishes are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from registry.store.database import open_database
from tests.registry_server import Api, RunningServer, problem_of, running_server
from tests.registry_stores import add_image, add_model

BLUE = "/api/v1/endpoints/churn/deployments/blue"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("services-api")) as running:
        with closing(open_database(None, running.workspace)) as database, database.write() as connection:
            add_image(connection, "churn-image", add_model(connection))
        yield running


@pytest.fixture
def api(server: RunningServer) -> Iterator[Api]:
    with server.client() as client:
        yield client
        client.delete("/api/v1/endpoints/churn")


def deploy(api: Api, path: str = BLUE, **settings: object) -> int:
    return api.put(path, json={"image": "churn-image", "settings": settings}).status_code


def test_a_deployment_is_asked_for_and_shown(api: Api) -> None:
    answered = api.put(BLUE, json={"image": "churn-image:1", "settings": {"replicas": 2}})
    assert answered.status_code == 202
    activity = answered.json()
    assert (activity["kind"], activity["state"], activity["subject"]) == ("service.deploy", "queued", "churn/blue")
    found = api.get("/api/v1/endpoints/churn").json()
    assert (found["traffic"], found["scoring_url"], found["deployments"][0]["state"]) == ({"blue": 100}, None, "starting")
    assert api.get("/api/v1/endpoints").json()["items"] == [found]


def test_traffic_and_its_revision(api: Api) -> None:
    deploy(api)
    deploy(api, "/api/v1/endpoints/churn/deployments/green")
    revision = api.get("/api/v1/endpoints/churn").json()["revision"]
    split = {"traffic": {"blue": 70, "green": 30}, "revision": revision}
    assert api.put("/api/v1/endpoints/churn/traffic", json=split).json()["traffic"] == {"blue": 70, "green": 30}
    answered = api.put("/api/v1/endpoints/churn/traffic", json=split)
    assert (answered.status_code, problem_of(answered)["code"]) == (409, "revision_conflict")
    answered = api.delete("/api/v1/endpoints/churn/deployments/green")
    assert (answered.status_code, problem_of(answered)["code"]) == (409, "still_serving")


def test_what_is_deleted_is_gone_for_those_who_ask(api: Api) -> None:
    deploy(api)
    assert api.delete("/api/v1/endpoints/churn").status_code == 204
    assert api.get("/api/v1/endpoints/churn").status_code == 404
    assert api.get("/api/v1/endpoints").json()["items"] == []
    assert api.delete("/api/v1/endpoints/churn").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"image": "absent"}, 404, "not_found"),
        ({"image": "churn image"}, 400, "invalid_name"),
        ({"image": "churn-image", "settings": {"target": "docker"}}, 400, "deployment_refused"),
        ({"image": "churn-image", "settings": {"replicas": -1}}, 400, "invalid_document"),
        ({"image": "churn-image", "settings": {"replica": 1}}, 400, "invalid_document"),
    ],
)
def test_wrong_wishes(api: Api, body: dict[str, object], status: int, code: str) -> None:
    answered = api.put(BLUE, json=body)
    assert (answered.status_code, problem_of(answered)["code"]) == (status, code), answered.text


@pytest.mark.parametrize("path", ["/api/v1/endpoints/Churn", "/api/v1/endpoints/a%20b", "/api/v1/endpoints?after=A"])
def test_names_that_are_none(api: Api, path: str) -> None:
    answered = api.get(path)
    assert (answered.status_code, problem_of(answered)["code"]) == (400, "invalid_name")


def test_readers_look_and_change_nothing(server: RunningServer, api: Api) -> None:
    deploy(api)
    with server.client(api.token("reader")) as reader:
        assert reader.get("/api/v1/endpoints/churn").status_code == 200
        refused = [
            reader.put(BLUE, json={"image": "churn-image"}),
            reader.put("/api/v1/endpoints/churn/traffic", json={"traffic": {"blue": 100}, "revision": 1}),
            reader.delete(BLUE),
            reader.delete("/api/v1/endpoints/churn"),
        ]
        assert [answered.status_code for answered in refused] == [403] * 4
