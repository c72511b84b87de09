"""Payloads of the agent's methods, in IoT Edge's shapes: ``{"schemaVersion": "1.0", …}``."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from edge_agent.methods.errors import MethodPayloadInvalid


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What every payload has. Fields that a later version adds are left alone."""

    schema_version: str = msgspec.field(default="1.0", name="schemaVersion")


R = TypeVar("R", bound=Request)


def read_payload(method: str, payload: object, kind: type[R]) -> R:
    """Raises MethodPayloadInvalid, which names the field."""
    try:
        found = msgspec.convert(payload if payload is not None else {}, type=kind, strict=True)
    except msgspec.ValidationError as problem:
        raise MethodPayloadInvalid(method=method, problem=str(problem)) from None
    # As the edge agent of IoT Edge: the same major version.
    if found.schema_version.partition(".")[0] != "1":
        raise MethodPayloadInvalid(method=method, problem=f"schemaVersion {found.schema_version[:20]!r} is not known, use 1.0")
    return found
