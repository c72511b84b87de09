"""The OpenAPI document of what is served: Swagger 2.0 by default, 3.0 and 3.1 when asked, as azmlinfsrv offers them.

Operation ids are azmlinfsrv's, because generated clients are named after them. What a script declares about its input and output
is told; a document of the user's own (swagger.json, swagger2.json, swagger3.json, swagger3.1.json) wins. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import SwaggerVersionImpossible, UnknownSwaggerVersion

# What may be asked for -> how the contract calls it -> what the document says.
_NAMES = {"2": "2", "2.0": "2", "3": "3", "3.0": "3", "3.1": "3.1"}
_SAYS = {"2": "2.0", "3": "3.0.3", "3.1": "3.1.0"}
_ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}
_SECURITY = {"type": "apiKey", "name": "Authorization", "in": "header", "description": "For example: Bearer abc123"}


@dataclass(frozen=True)
class ServiceText:
    """What the service calls itself (settings). ``server_version`` is the header of that name; None leaves it out."""

    title: str | None = None
    version: str = "1.0"
    prefix: str = ""
    server_version: str | None = None


@dataclass(frozen=True)
class ServiceFacts:
    """What the document says. ``declared`` is what a script or a model (models/model_words.py) says of itself.

    That is ``input`` and ``output`` schema, ``versions``, and ``files`` by version (runtime/scripts/swagger_parts.py).
    """

    name: str
    version: str
    prefix: str = ""
    declared: Mapping[str, Any] = field(default_factory=dict)


def declared_by(text: str) -> dict[str, Any]:
    """What a script process said about itself. It is foreign code's: what is no object counts as nothing."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def swagger(facts: ServiceFacts, wanted: str) -> object:
    """The document. Raises UnknownSwaggerVersion, or SwaggerVersionImpossible for one that cannot say the script's schemas."""
    files = facts.declared.get("files", {})
    able = facts.declared.get("versions", list(_NAMES))
    known = sorted({name for alias, name in _NAMES.items() if alias in able or name in files})
    name = _NAMES.get(wanted)
    if name is None:
        raise UnknownSwaggerVersion(version=wanted, known=", ".join(known))
    if name in files:
        return files[name]
    if name not in known:
        raise SwaggerVersionImpossible(version=wanted, known=", ".join(known))
    return _document(facts, _SAYS[name])


def _document(facts: ServiceFacts, version: str) -> dict[str, object]:
    schemas = {
        "ServiceInput": facts.declared.get("input", {"type": "object", "example": {}}),
        "ServiceOutput": facts.declared.get("output", {"type": "object", "example": {}}),
        "ErrorResponse": _ERROR,
    }
    info = {"title": facts.name, "version": facts.version, "description": f"Scoring service {facts.name}"}
    prefix = f"/{facts.prefix.strip('/')}" if facts.prefix.strip("/") else ""
    if version == "2.0":
        head: dict[str, object] = {"swagger": "2.0", "consumes": ["application/json"], "produces": ["application/json"]}
        body: dict[str, object] = {"definitions": schemas, "securityDefinitions": {"Bearer": _SECURITY}}
        return {**head, "info": info, "paths": _paths(prefix, "#/definitions/", is_2=True), **body}
    components = {"schemas": schemas, "securitySchemes": {"Bearer": _SECURITY}}
    paths = _paths(prefix, "#/components/schemas/", is_2=False)
    return {"openapi": version, "info": info, "paths": paths, "components": components}


def _paths(prefix: str, schemas: str, *, is_2: bool) -> dict[str, object]:
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
        f"{prefix}/": {"get": _plain("ServiceHealthCheck", "Whether the service is up", "text/plain", is_2=is_2)},
        f"{prefix}/score": {"post": score},
        f"{prefix}/swagger.json": {"get": _plain("GetSwaggerSpec", "This document", "application/json", is_2=is_2)},
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
