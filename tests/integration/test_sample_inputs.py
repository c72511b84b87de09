"""The sample input of a registered model is what the test of an image tries its scoring script with."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.contracts.image import Verification
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ActivityFailed
from tests.controller_process import plane
from tests.packager_builders import write_base_archive
from tests.verified_images import package_index

SCRIPT = "import json\ndef init(): pass\ndef run(raw): return json.loads(raw)['data'][0]\n"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Not below pytest's own folder, which nobody else may enter: a user for tests has to.
    with tempfile.TemporaryDirectory(prefix="hedgerow-samples-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    environment = {**package_index(), "DOCKER_HOST": "unix:///nonexistent/docker.sock", "HOME": str(folder)}
    with plane(folder / "plane", environment=environment) as started:
        yield started.client


def register(client: Client, folder: Path, name: str, sample: str, content: str) -> None:
    (folder / "weights").write_text(name)
    (folder / sample).write_text(content)
    client.models.register(name, folder / "weights", sample_input=folder / sample)


def build(client: Client, folder: Path, name: str) -> dict[str, str]:
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source" / "score.py").write_text(SCRIPT)
    base = write_base_archive(folder / "base.tar", python=f"{sys.version_info.major}.{sys.version_info.minor}")
    activity = client.images.build(
        name, [name], kind="docker", script="score.py", source=folder / "source", base=f"docker-archive:{base}"
    )
    return client.activities.wait(activity.id).result


def seen_of(client: Client, image: str) -> Verification:
    found = client.images.get(image).verification
    assert found is not None
    return found


def test_the_script_is_tried_with_the_sample_of_its_model(client: Client, tmp_path: Path) -> None:
    register(client, tmp_path, "sampled", "input.json", '{"data": [1, 2]}')
    made = build(client, tmp_path, "sampled")
    assert "run() answered the sample input of model sampled:1" in seen_of(client, made["image"]).reason
    again = build(client, tmp_path, "sampled")
    assert (again["image"], again["unchanged"]) == (made["image"], "true")


def test_a_script_that_cannot_score_it_is_not_built(client: Client, tmp_path: Path) -> None:
    register(client, tmp_path, "unfit", "input.json", '{"rows": []}')
    with pytest.raises(ActivityFailed, match=r"cannot score the sample input of model unfit:1: .*KeyError: 'data'"):
        build(client, tmp_path, "unfit")


def test_a_sample_that_is_no_request_is_not_sent(client: Client, tmp_path: Path) -> None:
    register(client, tmp_path, "arrays", "input.npy", "\x93NUMPY")
    assert "run() was not tried for want of a sample input" in seen_of(client, build(client, tmp_path, "arrays")["image"]).reason
