"""The OpenAPI document: valid by its own specification, true to the code, the same bytes each time, with examples that fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from registry.server.app import add_routes
from registry.server.openapi import document as made
from registry.server.openapi.examples import example
from registry.server.openapi.page import entries, shapes
from registry.server.openapi.schemas import structs_of
from scripts import golden, inventory

APP = Flask("test")
add_routes(APP)
ROUTES = made.routes(APP)
DOCUMENT = made.document(APP)
WITH_BODY = [route for route in ROUTES if structs_of(route.operation.body)]


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, described in item.items():
            yield f"{method.upper()} {path}", described


OPERATIONS = dict(operations())


def test_it_is_openapi_3_1() -> None:
    problems = [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()]
    assert not problems


def test_it_stands_in_the_reference_as_it_is_served() -> None:
    ((path, text),) = golden.openapi().items()
    target = inventory.TOP / path
    assert target.exists(), f"{path} is missing: run `make golden` and commit it"
    assert target.read_text(encoding="utf-8") == text, f"{path} is stale: run `make golden`, read the difference, commit it"


def test_another_application_gives_the_same_bytes() -> None:
    other = Flask("other")
    add_routes(other)
    assert made.document_bytes(other) == made.document_bytes(APP)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_says_what_people_need(name: str) -> None:
    described = OPERATIONS[name]
    assert described["summary"]
    assert not described["summary"].endswith(".")
    assert described["x-hedgerow-roles"] or described["security"] == [{"enrollment_key": []}]
    assert all(parameter["description"] for parameter in described["parameters"])
    good = [status for status in described["responses"] if status < "400"]
    assert good, "it never goes well"
    assert {"400", "401", "403", "503"} <= described["responses"].keys()
    names = [(parameter["in"], parameter["name"]) for parameter in described["parameters"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_error_has_the_one_shape(name: str) -> None:
    for status, answer in OPERATIONS[name]["responses"].items():
        if status < "400":
            continue
        if "$ref" in answer:
            answer = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        schema = answer["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ProblemAnswer"}, status
        assert answer["description"].startswith("- `"), status


def test_no_component_is_unused_and_none_is_missing() -> None:
    text = json.dumps(DOCUMENT)
    names = DOCUMENT["components"]["schemas"].keys()
    assert [name for name in names if f'"#/components/schemas/{name}"' not in text] == []


def test_pages_of_lists_have_plain_names() -> None:
    names = DOCUMENT["components"]["schemas"].keys()
    assert "PageOfDevice" in names
    assert not [name for name in names if not name.isalnum()]


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: route.id)
def test_examples_of_bodies_are_taken(route: made.Route) -> None:
    (kind,) = structs_of(route.operation.body)
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    shown = example(schema, DOCUMENT["components"]["schemas"], route.noun)
    msgspec.convert(shown, kind)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.id)
def test_every_operation_can_be_read(route: made.Route) -> None:
    (entry,) = entries([route], DOCUMENT)
    assert entry.request.startswith("curl ")
    assert "{" not in entry.request.partition(" -d ")[0], "a variable of the path has no example"
    known = {shape.name for shape in shapes([entry], DOCUMENT)}
    assert {kind.shape for _, _, kind in entry.results if kind and kind.shape} <= known
    assert {error.status for error in entry.errors} == {int(s) for s in OPERATIONS[_name(route)]["responses"] if s >= "400"}


def _name(route: made.Route) -> str:
    return f"{route.method.upper()} {route.path}"
