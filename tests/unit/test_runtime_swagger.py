"""The OpenAPI documents of a service."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.aml.swagger import ServiceFacts, declared_by, swagger
from runtime.errors import SwaggerVersionImpossible, UnknownSwaggerVersion

PLAIN = ServiceFacts("iris", "1.0")


def document(facts: ServiceFacts, asked: str) -> dict[str, Any]:
    found = swagger(facts, asked)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("asked", "key", "version"),
    [
        ("2", "swagger", "2.0"),
        ("2.0", "swagger", "2.0"),
        ("3", "openapi", "3.0.3"),
        ("3.0", "openapi", "3.0.3"),
        ("3.1", "openapi", "3.1.0"),
    ],
)
def test_each_version_names_itself_and_the_operations_that_clients_are_generated_from(asked: str, key: str, version: str) -> None:
    found = document(PLAIN, asked)
    assert found[key] == version
    operations = {method["operationId"] for path in found["paths"].values() for method in path.values()}
    assert operations == {"ServiceHealthCheck", "RunMLService", "GetSwaggerSpec"}


@pytest.mark.parametrize("asked", ["9", "", "2.1", "two"])
def test_unknown_versions_are_refused_in_the_contracts_words(asked: str) -> None:
    with pytest.raises(UnknownSwaggerVersion) as refused:
        swagger(PLAIN, asked)
    assert str(refused.value) == f"Swagger version [{asked}] is not valid. Supported versions: [2, 3, 3.1]."


def test_a_version_that_cannot_say_the_scripts_schemas_is_refused_in_the_contracts_words() -> None:
    mixed = ServiceFacts("s", "1.0", declared={"input": {}, "output": {}, "versions": ["3.0", "3.1"]})
    with pytest.raises(SwaggerVersionImpossible) as refused:
        swagger(mixed, "2.0")
    words = "Swagger version [2.0] is not supported for the scoring script. Supported swagger versions: [3, 3.1]."
    assert str(refused.value) == words
    assert document(mixed, "3")["openapi"] == "3.0.3"


@pytest.mark.parametrize("asked", ["2", "3.1"])
def test_what_the_script_declares_is_told(asked: str) -> None:
    declared = {"input": {"type": "object", "example": {"x": 1}}, "output": {"type": "integer"}}
    found = document(ServiceFacts("s", "2.5", "/a/b/", declared), asked)
    schemas = found["definitions"] if asked == "2" else found["components"]["schemas"]
    assert (schemas["ServiceInput"], schemas["ServiceOutput"]) == (declared["input"], declared["output"])
    assert sorted(found["paths"]) == ["/a/b/", "/a/b/score", "/a/b/swagger.json"]
    assert (found["info"]["title"], found["info"]["version"]) == ("s", "2.5")


def test_a_users_own_document_wins_and_makes_its_version_possible() -> None:
    declared = {"versions": ["3.0", "3.1"], "files": {"2": {"mine": True}}}
    facts = ServiceFacts("s", "1.0", declared=declared)
    assert swagger(facts, "2.0") == {"mine": True}
    assert document(facts, "3")["openapi"] == "3.0.3"


@pytest.mark.parametrize("text", ["", "[1]", "{", "null"])
def test_a_script_process_that_says_nonsense_declares_nothing(text: str) -> None:
    assert declared_by(text) == {}
