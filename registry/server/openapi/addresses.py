"""URL rules in OpenAPI's words: path templates, and what stands in their braces."""

from __future__ import annotations

import re
from typing import Any

from werkzeug.routing import Rule

from hedgerow.contracts.methods import METHOD_PATTERN
from hedgerow.contracts.names import DIGEST_PATTERN, KNOWN_NAME_PATTERN, MAX_NAME_LENGTH, NAME_PATTERN

API = "/api/v1"
_VARIABLE = re.compile(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>")
_NAME_BODY, _KNOWN_NAME_BODY = (
    pattern.removeprefix("^").removesuffix(r"$(?!\n)") for pattern in (NAME_PATTERN, KNOWN_NAME_PATTERN)
)
_NAME: dict[str, Any] = {"type": "string", "pattern": NAME_PATTERN, "maxLength": MAX_NAME_LENGTH}
_KNOWN_NAME: dict[str, Any] = _NAME | {"pattern": KNOWN_NAME_PATTERN}
# 0.1.0 had none of these, so that their names are of today's grammar.
_NOUNS_SINCE_THEN = ("secrets", "webhooks")
_NUMBER: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_REFERENCE: dict[str, Any] = {
    "type": "string",
    "pattern": rf"^{_KNOWN_NAME_BODY}(:[1-9][0-9]{{0,8}}|@sha256:[0-9a-f]{{64}})?$(?!\n)",
    "maxLength": MAX_NAME_LENGTH + 72,
}
_MODEL_REFERENCE: dict[str, Any] = _REFERENCE | {
    "pattern": rf"^{_KNOWN_NAME_BODY}(:[1-9][0-9]{{0,8}}|@sha256:[0-9a-f]{{64}}|@{_NAME_BODY})?$(?!\n)",
    "maxLength": 2 * MAX_NAME_LENGTH + 1,
}
_MEANINGS: dict[str, tuple[dict[str, Any], str]] = {
    "activity_id": (_NAME, "the activity's `id`"),
    "alias": (_NAME, "the alias, for example `champion`"),
    "call_id": ({"type": "string", "pattern": r"^[0-9a-f]{32}$(?!\n)"}, "the call's `id`"),
    "deployment": (_KNOWN_NAME, "the deployment's name"),
    "digest": ({"type": "string", "pattern": DIGEST_PATTERN}, "`sha256:` and 64 hexadecimal digits"),
    "endpoint": (_KNOWN_NAME, "the endpoint's name"),
    "event_number": (_NUMBER, "the event's `number`"),
    "key_id": (_NAME, "the enrolment key's `id`"),
    "keyid": ({"type": "string", "pattern": r"^(sha256:)?[0-9a-f]{1,64}$(?!\n)"}, "the signing key's `keyid`, or its beginning"),
    "method": ({"type": "string", "pattern": METHOD_PATTERN}, "the method's name; case-sensitive"),
    "module": (_KNOWN_NAME, "the module's name"),
    "name": (_KNOWN_NAME, "its name"),
    "number": (_NUMBER, "its number"),
    "path": ({"type": "string", "minLength": 1, "maxLength": 1024}, "the file's path inside of its folder; it may hold `/`"),
    "reference": (_REFERENCE, "`NAME` (the newest), `NAME:VERSION` or `NAME@sha256:…`"),
    "run_id": (_NAME, "the run's `id`"),
    "serial": ({"type": "string", "pattern": r"^[0-9a-f]{1,40}$(?!\n)"}, "the certificate's `serial`"),
    "token_id": (_NAME, "the token's `id`"),
    "version": (_NUMBER, "the version"),
}


def template(rule: Rule) -> str:
    """``/api/v1/devices/<name>`` as ``/api/v1/devices/{name}``."""
    return _VARIABLE.sub(r"{\1}", rule.rule)


def noun(rule: Rule) -> str:
    """The part of the API that the rule belongs to: ``devices``."""
    return rule.rule.removeprefix(API).strip("/").partition("/")[0]


def parameters(rule: Rule) -> list[dict[str, Any]]:
    """What stands in the braces, in order. Raises KeyError for a variable that nobody described."""
    return [_parameter(rule, name) for name in _VARIABLE.findall(rule.rule)]


def _parameter(rule: Rule, name: str) -> dict[str, Any]:
    schema, meaning = _MEANINGS[name]
    if name == "reference" and noun(rule) == "models":
        schema, meaning = _MODEL_REFERENCE, "`NAME` (the newest), `NAME:VERSION`, `NAME@ALIAS` or `NAME@sha256:…`"
    if name == "name" and noun(rule) in _NOUNS_SINCE_THEN:
        schema = _NAME
    return {"name": name, "in": "path", "required": True, "description": meaning, "schema": schema}
