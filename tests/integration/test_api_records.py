"""ETags, conditions and filters of endpoints, devices, edge deployments, runs, activities over HTTP, and events of changes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from registry.store.database import open_database
from tests.registry_server import Api, RunningServer, problem_of, running_server
from tests.registry_stores import add_image, add_model

V1 = "/api/v1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("records")) as running:
        with closing(open_database(None, running.workspace)) as database, database.write() as connection:
            add_image(connection, "iris-onnx", add_model(connection, "seeded"))
        yield running


def fresh(stem: str) -> str:
    return f"{stem}-{secrets.token_hex(4)}"


def enroll(api: Api, name: str, **tags: str) -> dict[str, Any]:
    answered = api.post(f"{V1}/devices", json={"name": name, "tags": tags})
    assert answered.status_code == 201, answered.text
    return dict(answered.json()["device"])


def deploy(api: Api, endpoint: str, deployment: str = "blue", **headers: str) -> httpx.Response:
    return api.put(f"{V1}/endpoints/{endpoint}/deployments/{deployment}", json={"image": "iris-onnx"}, headers=headers)


def edge(api: Api, name: str, target: str = "tags.a = 'b'", **headers: str) -> httpx.Response:
    body = {"name": name, "target": target, "modules": {"m": {"command": ["true"]}}}
    return api.put(f"{V1}/edge-deployments/{name}", json=body, headers=headers)


def submit(api: Api, experiment: str) -> dict[str, Any]:
    script = api.upload(b"print(1)", "train.py")
    snapshot = [{"path": script.path, "digest": script.digest, "size_bytes": script.size_bytes}]
    answered = api.post(f"{V1}/runs", json={"experiment": experiment, "script": "train.py", "snapshot": snapshot})
    assert answered.status_code == 202, answered.text
    return dict(answered.json())


def names(answered: httpx.Response, key: str = "name") -> list[str]:
    assert answered.status_code == 200, answered.text
    return [str(item[key]) for item in answered.json()["items"]]


def kinds_of(api: Api, subject: str) -> list[str]:
    return names(api.get(f"{V1}/events", params={"subject": subject}), "kind")


def test_what_did_not_change_is_not_sent_again(api: Api) -> None:
    endpoint, device, line = fresh("iris"), fresh("press"), fresh("line")
    deploy(api, endpoint)
    enroll(api, device)
    edge(api, line)
    run = submit(api, fresh("churn"))
    paths = [
        f"endpoints/{endpoint}",
        f"endpoints/{endpoint}/deployments/blue",
        f"devices/{device}",
        f"devices/{device}/twin",
        f"edge-deployments/{line}",
        f"runs/{run['id']}",
        f"activities/{run['activity_id']}",
        f"tokens/{api.get(f'{V1}/tokens').json()['items'][-1]['id']}",
    ]
    for path in paths:
        first = api.get(f"{V1}/{path}")
        again = api.get(f"{V1}/{path}", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), path
        assert again.headers["etag"] == first.headers["etag"]
        assert api.get(f"{V1}/{path}", headers={"if-none-match": '"other"'}).content == first.content


def test_a_change_is_made_only_to_what_was_seen(api: Api) -> None:
    device = fresh("press")
    enroll(api, device, site="north")
    path = f"{V1}/devices/{device}"
    seen = api.get(path).headers["etag"]
    tagged = api.patch(path, json={"tags": {"site": None, "line": "3"}}, headers={"if-match": seen})
    assert (tagged.status_code, tagged.json()["tags"]) == (200, {"line": "3"})
    assert tagged.headers["etag"] != seen
    for method, more, body in (("PATCH", "", {"tags": {}}), ("POST", "/revoke", None), ("DELETE", "", None)):
        refused = api.request(method, path + more, json=body, headers={"if-match": seen})
        assert (refused.status_code, problem_of(refused)["code"]) == (412, "precondition_failed"), method
    assert api.post(f"{path}/revoke", headers={"if-match": tagged.headers["etag"]}).status_code == 200
    assert api.delete(path, headers={"if-match": "*"}).status_code == 204
    assert kinds_of(api, f"device/{device}") == ["device.enrolled", "device.tagged", "device.revoked", "device.deleted"]


def test_tags_that_stay_the_same_are_no_event(api: Api) -> None:
    device = fresh("press")
    enroll(api, device, site="north")
    assert api.patch(f"{V1}/devices/{device}", json={"tags": {"site": "north"}}).status_code == 200
    assert kinds_of(api, f"device/{device}") == ["device.enrolled"]
    assert names(api.get(f"{V1}/fleet/events?device={device}"), "kind") == ["enrolled"]


def test_what_a_process_reports_does_not_void_a_change(server: RunningServer, api: Api) -> None:
    endpoint = fresh("iris")
    deploy(api, endpoint)
    path = f"{V1}/endpoints/{endpoint}"
    seen = api.get(path)
    with closing(open_database(None, server.workspace)) as database, database.write() as connection:
        connection.exec_driver_sql(f"UPDATE deployments SET state = 'ready' WHERE endpoint = '{endpoint}'")
    now = api.get(path, headers={"if-none-match": seen.headers["etag"]})
    assert now.status_code == 200, "what is cached says something else"
    assert deploy(api, endpoint, "green", **{"if-match": seen.headers["etag"]}).status_code == 412, "the deployment is not there"
    split = {"traffic": {"blue": 100}, "revision": seen.json()["revision"]}
    assert api.put(f"{path}/traffic", json=split, headers={"if-match": seen.headers["etag"]}).status_code == 200
    assert api.put(f"{path}/traffic", json=split, headers={"if-match": seen.headers["etag"]}).status_code == 412


def test_a_deployment_is_replaced_only_if_it_is_the_one_that_was_seen(api: Api) -> None:
    endpoint = fresh("iris")
    assert deploy(api, endpoint, **{"if-none-match": "*"}).status_code == 202
    assert deploy(api, endpoint, **{"if-none-match": "*"}).status_code == 412
    path = f"{V1}/endpoints/{endpoint}/deployments/blue"
    seen = api.get(path).headers["etag"]
    assert deploy(api, endpoint, **{"if-match": f'"other", {seen}'}).status_code == 202
    assert deploy(api, endpoint, **{"if-match": seen}).status_code == 412
    assert deploy(api, endpoint, **{"if-match": f"W/{api.get(path).headers['etag']}"}).status_code == 412
    assert deploy(api, endpoint, **{"if-match": '""'}).status_code == 412
    assert api.delete(path, headers={"if-match": seen}).status_code == 412
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404
    assert kinds_of(api, f"deployment/{endpoint}/blue") == ["deployment.created", "deployment.changed", "deployment.deleted"]


def test_an_edge_deployment_is_replaced_only_if_it_is_the_one_that_was_seen(api: Api) -> None:
    line = fresh("line")
    first = edge(api, line, **{"if-none-match": "*"})
    assert (first.status_code, first.headers["etag"]) == (200, '"1"')
    assert edge(api, line, **{"if-none-match": "*"}).status_code == 412
    assert edge(api, line, "tags.a = 'c'", **{"if-match": '"1"'}).headers["etag"] == '"2"'
    assert edge(api, line, "tags.a = 'd'", **{"if-match": '"1"'}).status_code == 412
    assert api.delete(f"{V1}/edge-deployments/{line}", headers={"if-match": '"1"'}).status_code == 412
    assert edge(api, line, "tags.a = 'c'").headers["etag"] == '"2"', "nothing changed"
    assert api.delete(f"{V1}/edge-deployments/{line}", headers={"if-match": '"2"'}).status_code == 204
    assert kinds_of(api, f"edge-deployment/{line}") == [
        "edge-deployment.created",
        "edge-deployment.changed",
        "edge-deployment.deleted",
    ]


def test_devices_are_found_by_name_state_and_tags(api: Api) -> None:
    stem = fresh("pump")
    for number, tags in enumerate(({"site": "north", "line": "1"}, {"site": "north"}, {"site": "south"}, {'x,"site': "north"})):
        enroll(api, f"{stem}-{number}", **tags)
    api.post(f"{V1}/devices/{stem}-1/revoke")

    def found(**query: Any) -> list[str]:
        listed = names(api.get(f"{V1}/devices", params={"name": f"{stem}-*"} | query))
        return [name.removeprefix(f"{stem}-") for name in listed]

    assert found() == ["0", "1", "2", "3"]
    assert found(name=f"{stem}-2") == ["2"]
    assert found(tag="site=north") == ["0", "1"]
    assert found(tag=["site=north", "line=1"]) == ["0"]
    assert found(tag="site") == ["0", "1", "2"]
    assert found(tag="site=NORTH") == []
    assert found(state="revoked") == ["1"]
    assert found(state="offline", tag="site") == ["0", "2"]
    assert found(state="online") == []
    assert found(edge_deployment="absent") == []
    page = api.get(f"{V1}/devices", params={"name": f"{stem}-*", "tag": "site", "limit": 2}).json()
    assert found(tag="site", limit=2, after=page["next"]) == ["2"]
    for query in ({"state": "sleeping"}, {"tag": "=north"}, {"name": "A*"}, {"name": "a**"}, {"tags": "site"}):
        assert api.get(f"{V1}/devices", params=query).status_code == 400, query


def test_endpoints_are_found_by_name_and_state(api: Api) -> None:
    stem = fresh("score")
    for number in range(3):
        deploy(api, f"{stem}-{number}")
    api.delete(f"{V1}/endpoints/{stem}-1")
    query = {"name": f"{stem}-*"}
    assert names(api.get(f"{V1}/endpoints", params=query)) == [f"{stem}-0", f"{stem}-2"]
    assert names(api.get(f"{V1}/endpoints", params=query | {"state": "starting"})) == [f"{stem}-0", f"{stem}-2"]
    assert names(api.get(f"{V1}/endpoints", params=query | {"state": "ready"})) == []
    first = api.get(f"{V1}/endpoints", params=query | {"limit": 1}).json()
    assert names(api.get(f"{V1}/endpoints", params=query | {"after": first["next"]})) == [f"{stem}-2"]


def test_edge_deployments_are_found_by_name(api: Api) -> None:
    stem = fresh("hall")
    for number in range(2):
        edge(api, f"{stem}-{number}")
    assert names(api.get(f"{V1}/edge-deployments", params={"name": f"{stem}-*"})) == [f"{stem}-0", f"{stem}-1"]
    assert names(api.get(f"{V1}/edge-deployments", params={"name": f"{stem}-1"})) == [f"{stem}-1"]


def test_runs_and_activities_are_found_by_what_they_are(api: Api) -> None:
    stem = fresh("churn")
    runs = [submit(api, f"{stem}-{part}") for part in ("a", "a", "b")]
    newest = [run["id"] for run in reversed(runs)]
    assert names(api.get(f"{V1}/runs", params={"experiment": f"{stem}-*"}), "id") == newest
    assert names(api.get(f"{V1}/runs", params={"experiment": f"{stem}-b"}), "id") == newest[:1]
    assert names(api.get(f"{V1}/runs", params={"experiment": f"{stem}-*", "state": "failed"}), "id") == []
    subject = {"subject": runs[0]["id"]}
    assert names(api.get(f"{V1}/activities", params=subject | {"kind": "run"}), "id") == [runs[0]["activity_id"]]
    assert names(api.get(f"{V1}/activities", params=subject | {"kind": "image.build"}), "id") == []
    assert names(api.get(f"{V1}/activities", params=subject | {"state": "cancelled"}), "id") == []
    assert api.post(f"{V1}/activities/{runs[0]['activity_id']}/cancel").json()["state"] == "cancelled"
    api.post(f"{V1}/activities/{runs[0]['activity_id']}/cancel")
    assert names(api.get(f"{V1}/activities", params=subject | {"state": "cancelled"}), "id") == [runs[0]["activity_id"]]
    assert kinds_of(api, f"run/{runs[0]['id']}") == ["run.submitted"]
    assert kinds_of(api, f"activity/{runs[0]['activity_id']}") == ["activity.cancelled"]


def test_a_repeated_log_adds_its_points_once(api: Api) -> None:
    run = submit(api, fresh("churn"))
    entry = {"metrics": [{"name": "auc", "value": 0.5}]}
    key = {"idempotency-key": secrets.token_hex(8)}
    first = api.post(f"{V1}/runs/{run['id']}/log", json=entry, headers=key)
    again = api.post(f"{V1}/runs/{run['id']}/log", json=entry, headers=key)
    assert first.json() == again.json()
    assert len(api.get(f"{V1}/runs/{run['id']}/metrics").json()["items"]) == 1


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1])
def test_steps_that_no_column_holds(api: Api, step: int) -> None:
    run = submit(api, fresh("churn"))
    entry = {"metrics": [{"name": "auc", "value": 0.5, "step": step}]}
    assert api.post(f"{V1}/runs/{run['id']}/log", json=entry).status_code == 400


def test_the_document_and_its_pages_need_no_token(server: RunningServer) -> None:
    with server.client("") as nobody:
        document = nobody.get("/openapi.json")
        assert document.json()["openapi"] == "3.1.0"
        assert nobody.get("/openapi.json", headers={"if-none-match": document.headers["etag"]}).status_code == 304
        for path in ("/api", "/api/devices"):
            page = nobody.get(path)
            assert page.status_code == 200, path
            assert page.headers["content-type"].startswith("text/html")
        assert nobody.get("/api/nothing").status_code == 404
        assert nobody.get("/openapi.json", headers={"host": "evil.example"}).status_code == 403
