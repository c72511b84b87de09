"""Every error of the control plane has a status that fits its family."""

from __future__ import annotations

import pytest

from hedgerow import errors as families
from registry import errors as registry_errors
from registry.server import errors as server_errors
from registry.server.http_errors import status_of

ALL = [
    kind
    for module in (registry_errors, server_errors)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, families.HedgerowError) and kind.__module__ == module.__name__
]
ALLOWED: dict[type[families.HedgerowError], set[int]] = {
    families.ForbiddenError: {403},
    families.AccessError: {401},
    families.NotFoundError: {404},
    families.UserError: {400, 404, 405, 408, 413, 414, 415, 416, 431},
    families.ConflictError: {409, 412},
    families.UnavailableError: {503},
}


def made(kind: type[families.HedgerowError]) -> families.HedgerowError:
    """An error of this kind without its fields: only its class matters here."""
    return kind.__new__(kind)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_the_status_fits_the_family(kind: type[families.HedgerowError]) -> None:
    family = next(family for family in ALLOWED if issubclass(kind, family))
    assert status_of(made(kind)) in ALLOWED[family]


def test_statuses_of_the_rest() -> None:
    assert status_of(made(families.Bug)) == 500
    assert status_of(made(families.ScriptError)) == 422
    assert status_of(made(families.HedgerowError)) == 500
    assert len(ALL) > 30
