"""The OpenAPI documents of a service."""

from __future__ import annotations

import pytest

from hedgerow.contracts.model import TensorSpec
from runtime.errors import UnknownSwaggerVersion
from runtime.swagger import ServiceFacts, example_body, swagger

IRIS = ServiceFacts("iris", "1", [TensorSpec(name="X", datatype="FP32", shape=[-1, 4])])


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
    document = swagger(IRIS, asked)
    assert document[key] == version
    paths = document["paths"]
    assert isinstance(paths, dict)
    operations = {method["operationId"] for path in paths.values() for method in path.values()}
    assert operations == {"ServiceHealthCheck", "RunMLService", "GetSwaggerSpec"}


def test_unknown_versions_are_refused_in_the_contracts_words() -> None:
    with pytest.raises(UnknownSwaggerVersion, match=r"Swagger version \[9\] is not valid\. Supported versions: \[2, 3, 3\.1\]\."):
        swagger(IRIS, "9")


def test_the_example_is_a_body_that_the_model_takes() -> None:
    assert example_body(IRIS.inputs) == {"data": [[0, 0, 0, 0]]}
    two = [TensorSpec(name="a", datatype="BYTES", shape=[-1]), TensorSpec(name="b", datatype="BOOL", shape=[])]
    assert example_body(two) == {"inputs": {"a": [""], "b": False}}
    assert example_body([]) == {}
