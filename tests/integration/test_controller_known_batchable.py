"""What the test of an image found out about its models reaches the replicas that serve it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.controller_process import Plane, add_image, deploy, plane, score


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane(tmp_path_factory.mktemp("known"), "--stop-services-on-exit") as started:
        yield started


def arguments_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


@pytest.mark.parametrize("verify", [True, False])
def test_a_replica_is_told_what_was_measured_and_only_that(made: Plane, tmp_path: Path, verify: bool) -> None:
    name = "tested" if verify else "untested"
    image = add_image(made.client, tmp_path, name=name, verify=verify)
    endpoint = deploy(made.client, image, endpoint=name)
    replicas = [pid for pid in made.running("replica-") if any(name in word for word in arguments_of(pid))]
    if verify:
        assert ["--batchable", name] == arguments_of(replicas[0])[-3:-1], arguments_of(replicas[0])
    else:
        assert replicas == []
    assert score(endpoint.scoring_url) == 2.0
    assert httpx.get(str(endpoint.scoring_url).removesuffix("/score") + "/v2/health/ready").status_code == 200
