"""``/v2/`` keeps the OCI distribution specification; the same checks pass with somebody else's registry, so they are fair."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.fixtures.oci_registry import OciRegistry
from tests.oci_conformance import CHECKS, OPTIONAL_CHECKS, Check, Remote, refused
from tests.registry_server import Api, RunningServer

# Debian's registry (2.8) takes chunks out of order, without a look at their Content-Range, and answers a range behind the end
# with a body that is shorter than it says.
_NOT_THEIRS = frozenset({"chunks-out-of-order", "blob-ranges"})


def named(check: Check) -> str:
    return check.__name__.replace("_", "-")


@pytest.fixture
def theirs(docker_registry: OciRegistry) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{docker_registry.address}", timeout=30) as client:
        yield client


@pytest.mark.parametrize("check", [*CHECKS, *OPTIONAL_CHECKS], ids=named)
def test_our_registry(api: Api, check: Check) -> None:
    check(Remote(api, f"conformance-{named(check)}"))


@pytest.mark.parametrize("check", [one for one in CHECKS if named(one) not in _NOT_THEIRS], ids=named)
def test_their_registry(theirs: httpx.Client, check: Check) -> None:
    check(Remote(theirs, f"conformance-{named(check)}"))


def test_who_is_not_known_is_asked_who_they_are(server: RunningServer) -> None:
    with server.client("") as nobody:
        for path in ("/v2/", "/v2/conformance/tags/list", "/v2/conformance/manifests/1"):
            answered = nobody.get(path)
            refused(answered, 401, "UNAUTHORIZED")
            assert answered.headers["www-authenticate"].startswith("Bearer ")
