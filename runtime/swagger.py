"""The OpenAPI document of what is served: Swagger 2.0 by default, 3.0 and 3.1 when asked, as azmlinfsrv offers them.

Operation ids are azmlinfsrv's, because generated clients are named after them. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hedgerow.contracts.model import TensorSpec
from runtime.errors import UnknownSwaggerVersion

_VERSIONS = {"2": "2.0", "2.0": "2.0", "3": "3.0.3", "3.0": "3.0.3", "3.1": "3.1.0"}
_ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}


@dataclass(frozen=True)
class ServiceFacts:
    """What the document says. ``inputs`` are those of the one model that /score means; empty for a script."""

    name: str
    version: str
    inputs: Sequence[TensorSpec] = ()


def swagger(facts: ServiceFacts, wanted: str) -> dict[str, object]:
    """Raises UnknownSwaggerVersion."""
    version = _VERSIONS.get(wanted)
    if version is None:
        raise UnknownSwaggerVersion(version=wanted)
    schemas = {
        "ServiceInput": {"type": "object", "example": example_body(facts.inputs)},
        # 3.x and 2.0 alike: an answer may be a list or an object, so its type is left open.
        "ServiceOutput": {"example": {}},
        "ErrorResponse": _ERROR,
    }
    info = {"title": facts.name, "version": facts.version, "description": "Scoring service"}
    if version == "2.0":
        security = {"Bearer": {"type": "apiKey", "name": "Authorization", "in": "header"}}
        head: dict[str, object] = {"swagger": "2.0", "consumes": ["application/json"], "produces": ["application/json"]}
        body: dict[str, object] = {"definitions": schemas, "securityDefinitions": security}
        return {**head, "info": info, "paths": _paths("#/definitions/", is_2=True), **body}
    security = {"Bearer": {"type": "apiKey", "name": "Authorization", "in": "header"}}
    components = {"schemas": schemas, "securitySchemes": security}
    return {"openapi": version, "info": info, "paths": _paths("#/components/schemas/", is_2=False), "components": components}


def example_body(inputs: Sequence[TensorSpec]) -> dict[str, object]:
    """A body that scores: one row of zeros; an empty object where only a script knows."""
    if not inputs:
        return {}
    if len(inputs) == 1:
        return {"data": _zeros(inputs[0])}
    return {"inputs": {spec.name: _zeros(spec) for spec in inputs}}


def _zeros(spec: TensorSpec) -> object:
    zero: object = "" if spec.datatype == "BYTES" else (False if spec.datatype == "BOOL" else 0)
    value = zero
    for length in reversed(spec.shape):
        value = [value] * (1 if length == -1 else length)
    return value


def _paths(schemas: str, *, is_2: bool) -> dict[str, object]:
    failure = _answer("The request failed", f"{schemas}ErrorResponse", is_2=is_2)
    score = {
        "operationId": "RunMLService",
        "description": "Score the model",
        "security": [{"Bearer": []}],
        "responses": {"200": _answer("The scores", f"{schemas}ServiceOutput", is_2=is_2), "default": failure},
    }
    schema = {"$ref": f"{schemas}ServiceInput"}
    if is_2:
        score["parameters"] = [{"name": "serviceInputPayload", "in": "body", "required": True, "schema": schema}]
    else:
        score["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return {
        "/": {"get": _plain("ServiceHealthCheck", "Whether the service is up", "text/plain", is_2=is_2)},
        "/swagger.json": {"get": _plain("GetSwaggerSpec", "This document", "application/json", is_2=is_2)},
        "/score": {"post": score},
    }


def _plain(operation: str, text: str, kind: str, *, is_2: bool) -> dict[str, object]:
    answer: dict[str, object] = {"description": text}
    if is_2:
        return {"operationId": operation, "description": text, "produces": [kind], "responses": {"200": answer}}
    answer["content"] = {kind: {"schema": {}}}
    return {"operationId": operation, "description": text, "responses": {"200": answer}}


def _answer(text: str, schema: str, *, is_2: bool) -> dict[str, object]:
    reference = {"$ref": schema}
    if is_2:
        return {"description": text, "schema": reference}
    return {"description": text, "content": {"application/json": {"schema": reference}}}
