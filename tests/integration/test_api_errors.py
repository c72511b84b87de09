"""One error shape everywhere: every route of the API, asked wrongly in every way that routes have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from flask import Flask
from openapi_schema_validator import OAS31Validator
from referencing import Registry, Resource

from registry.server.app import add_routes
from registry.server.openapi.document import Route, document, routes
from tests.registry_server import Api, RunningServer, problem_of

APP = Flask("test")
APP.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
add_routes(APP)
ROUTES = routes(APP)
DOCUMENT = document(APP)
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
CREDENTIALS = {"none": "", "wrong": "hrw_0000000000000000000000000000000000000000000", "not even a token": "x y"}
SHAPE = OAS31Validator(
    {"$ref": "openapi:#/components/schemas/ProblemAnswer"},
    registry=Registry().with_resource("openapi:", Resource.opaque(DOCUMENT)),
)


@pytest.fixture(scope="module")
def owner(server: RunningServer) -> Iterator[Api]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def device(server: RunningServer, owner: Api) -> Iterator[Api]:
    """With a device's own token, for what only devices may."""
    enrolled = owner.post("/api/v1/devices", json={"name": "asks-wrongly"}).json()
    with server.client(enrolled["config"]["pull_token"]) as client:
        yield client


@pytest.fixture(scope="module")
def newcomer(server: RunningServer, owner: Api) -> Iterator[Api]:
    """With an enrolment key."""
    made = owner.post("/api/v1/enrollment-keys", json={"name": "line", "uses_max": None}).json()
    with server.client(made["secret"]) as client:
        yield client


@pytest.fixture
def api(request: pytest.FixtureRequest, owner: Api) -> Api:
    """Whoever may ask for the route of the test: its owner, unless that is for devices only."""
    route = request.getfixturevalue("route") if "route" in request.fixturenames else None
    if route is not None and route.operation.by_key:
        return request.getfixturevalue("newcomer")  # type: ignore[no-any-return]  # a fixture of this module
    if route is not None and route.operation.roles == ("device",):
        return request.getfixturevalue("device")  # type: ignore[no-any-return]  # a fixture of this module
    return owner


def address(route: Route) -> str:
    """The route with a name that no record has in every brace."""
    path = route.path.replace("{digest}", f"sha256:{'0' * 64}").replace("{version}", "7").replace("{number}", "7")
    return re.sub(r"{\w+}", "absent", path)


def check(answered: httpx.Response, route: Route, *expected: int) -> str:
    """The error's code, after checking status and shape, and that the document promises this status."""
    assert answered.status_code in expected, f"{answered.request.method} {answered.request.url}: {answered.text[:500]}"
    problem = problem_of(answered)
    SHAPE.validate(answered.json())
    assert len(problem["message"]) < 1000
    described = DOCUMENT["paths"][route.path][route.method]["responses"]
    assert str(answered.status_code) in described or answered.status_code == 405
    return str(problem["code"])


def ask(api: Api, route: Route, **how: object) -> httpx.Response:
    return api.request(route.method.upper(), address(route), **how)  # type: ignore[arg-type]  # passed on


def by_id(route: Route) -> str:
    return route.id


@pytest.mark.parametrize("route", ROUTES, ids=by_id)
def test_without_a_good_token(server: RunningServer, route: Route) -> None:
    for name, token in CREDENTIALS.items():
        with server.client(token) as stranger:
            code = check(ask(stranger, route), route, 401)
        assert code in ("token_missing", "token_refused", "enrollment_key_refused"), name


@pytest.mark.parametrize("route", ROUTES, ids=by_id)
def test_with_an_argument_that_nobody_declared(api: Api, route: Route) -> None:
    answered = ask(api, route, params={"nonsense": "1"}, **body_of(route))
    assert check(answered, route, 400) == "unknown_argument"
    assert "nonsense" in problem_of(answered)["message"]


# With a body, what is wrong with it is said first.
@pytest.mark.parametrize("route", [r for r in ROUTES if "{" in r.path and r.operation.body is None], ids=by_id)
def test_of_something_that_is_not_there(api: Api, route: Route) -> None:
    check(ask(api, route), route, 404)


@pytest.mark.parametrize("route", [route for route in ROUTES if "{" in route.path], ids=by_id)
def test_with_a_name_that_none_can_be(api: Api, route: Route) -> None:
    path = re.sub(r"{\w+}", "A%20B", route.path)
    check(api.request(route.method.upper(), path, **body_of(route)), route, 400, 404)  # type: ignore[arg-type]  # passed on


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method != "get"], ids=by_id)
def test_with_content_of_a_kind_that_is_not_taken(api: Api, route: Route) -> None:
    answered = ask(api, route, content=b"a=1", headers={"content-type": "application/x-www-form-urlencoded"})
    assert check(answered, route, 415) == "content_type_refused"


@pytest.mark.parametrize("route", [route for route in ROUTES if isinstance(route.operation.body, type)], ids=by_id)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"\xff": 1}', b'{"nonsense": 1}', b"[" * 100_000])
def test_with_a_body_that_is_none(api: Api, route: Route, content: bytes) -> None:
    answered = ask(api, route, content=content, headers={"content-type": "application/json"})
    assert check(answered, route, 400, 413) in ("invalid_document", "document_too_large")


@pytest.mark.parametrize("path", sorted({address(route) for route in ROUTES}))
def test_with_a_method_that_is_not_possible(api: Api, path: str) -> None:
    adapter = APP.url_map.bind("localhost")
    for method in METHODS - set(adapter.allowed_methods(path)):
        answered = api.request(method, path)
        assert answered.status_code == 405, f"{method} {path}"
        assert problem_of(answered)["code"] == "method_not_allowed"
        assert set(answered.headers["allow"].split(", ")) == set(adapter.allowed_methods(path))


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/nothing", "/api/v1/devices/a/b/c", "/api/v1//devices", "/api/v1/../x"])
def test_where_nothing_is(api: Api, path: str) -> None:
    answered = api.get(path)
    assert (answered.status_code, problem_of(answered)["code"]) == (404, "no_such_path")


def body_of(route: Route) -> dict[str, object]:
    """Something of the kind that the operation takes, so that what else is wrong comes to light."""
    if route.operation.body is None:
        return {}
    kind = route.operation.body if isinstance(route.operation.body, str) else "application/json"
    return {"content": json.dumps({}).encode(), "headers": {"content-type": kind}}
