"""A build of what was built before: answered at once, without a process, and only while nothing that it rests on has changed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hedgerow.contracts.document import encode
from hedgerow.contracts.proof import ParityIndex
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError
from tests.controller_process import Plane, add_model, doubling_model, plane
from tests.packager_builders import write_base_archive, write_base_layout, write_runtime_wheels, write_wheel


@dataclass(frozen=True)
class Yard:
    """A control plane whose package index is a folder, ``wheels``."""

    plane: Plane
    wheels: Path

    @property
    def client(self) -> Client:
        return self.plane.client


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    wheels = tmp_path_factory.mktemp("wheels")
    write_wheel(wheels, "extra", "1.0")
    environment = {**write_runtime_wheels(wheels), "PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    with plane(tmp_path_factory.mktemp("known"), environment=environment) as started:
        yield Yard(started, wheels)


@pytest.fixture
def client(yard: Yard) -> Client:
    return yard.client


@dataclass(frozen=True)
class Told:
    """What came of a build, and what its activity told."""

    result: dict[str, str]
    steps: list[str]
    log: str

    @property
    def at_once(self) -> bool:
        """No process was started for it."""
        return "building" not in self.steps


def build(client: Client, name: str, model: str, **options: Any) -> Told:
    asked = client.images.build(name, [model], **{"verify": False, **options})
    ended = client.activities.wait(asked.id)
    events = list(client.activities.follow(asked.id))
    return Told(ended.result, [event.step for event in events], "\n".join(event.log for event in events))


def boxed(folder: Path, **changes: Any) -> dict[str, Any]:
    """The options of a container image of a script in ``folder``."""
    source = folder / "source"
    if not source.exists():
        source.mkdir()
        (source / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    base = write_base_archive(folder / "base.tar") if not (folder / "base.tar").exists() else folder / "base.tar"
    return {"kind": "docker", "script": "score.py", "source": source, "base": f"docker-archive:{base}", **changes}


def hedgerow(yard: Yard, *words: str) -> str:
    program = "from hedgerow.cli.main import main; main()"
    argv = [sys.executable, "-P", "-c", program, "--workspace", str(yard.plane.folder), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout


def versions(client: Client, name: str) -> list[int]:
    return [image.version for image in client.images.list(name=name).items]


def test_an_unchanged_build_starts_nothing_and_says_so(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="at-once")
    first = build(client, "at-once", model)
    again = build(client, "at-once", model, tags={"stage": "prod"})
    assert (first.at_once, again.at_once) == (False, True)
    assert again.result == {**first.result, "unchanged": "true"}
    assert again.steps == ["queued", "started", "started", "succeeded"]
    assert again.log.strip() == f"nothing changed: {first.result['digest']}"
    assert client.images.get("at-once:1").tags == {"stage": "prod"}
    assert versions(client, "at-once") == [1]


def test_the_command_line_says_so_too(yard: Yard, client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="by-hand")
    words = ["image", "build", "by-hand", "--model", model, "--no-verify"]
    said = [hedgerow(yard, *words) for _ in range(2)]
    assert [text.split(" by-hand:1 ")[0] for text in said] == ["Built", "Nothing changed:"]


def test_what_was_tested_is_not_tested_again(client: Client, tmp_path: Path) -> None:
    doubling_model(tmp_path / "m")
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "m" / "parity.npz", input_0=rows, output_0=rows * 2)
    (tmp_path / "m" / "parity.json").write_bytes(encode(ParityIndex(inputs=["x"], outputs=["y"])))
    model = f"proven:{client.models.register('proven', tmp_path / 'm').version}"
    untested = build(client, "proven", model)
    tested = build(client, "proven", model, verify=True)
    assert "testing the image" in tested.steps, "what nobody tested is no answer to who wants a test"
    again = build(client, "proven", model, verify=True)
    assert (again.at_once, again.result["image"]) == (True, tested.result["image"])
    assert tested.result["digest"] == untested.result["digest"]
    verification = client.images.get("proven").verification
    assert verification is not None
    assert verification.state == "passed"


def test_a_container_image_is_answered_at_once(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="boxed")
    first = build(client, "boxed", model, **boxed(tmp_path))
    again = build(client, "boxed", model, **boxed(tmp_path))
    assert (first.at_once, again.at_once) == (False, True)
    assert again.result == {**first.result, "unchanged": "true"}


def _another_script(folder: Path, _client: Client) -> dict[str, Any]:
    (folder / "source" / "score.py").write_text("def init(): pass\ndef run(data): return 2\n")
    return {}


def _another_file(folder: Path, _client: Client) -> dict[str, Any]:
    (folder / "source" / "labels.txt").write_text("cat, dog")
    return {}


def _another_base_in_its_place(folder: Path, _client: Client) -> dict[str, Any]:
    write_base_archive(folder / "base.tar", settings={"Labels": {"from": "another"}})
    return {}


def _variables(_folder: Path, client: Client) -> dict[str, Any]:
    client.environments.create("changing", [], python_version="3.11", variables={"LEVEL": "9"})
    return {"environment": "changing"}


def _compression(_folder: Path, _client: Client) -> dict[str, Any]:
    return {"compression": "zstd"}


def _platform(folder: Path, _client: Client) -> dict[str, Any]:
    base = write_base_archive(folder / "arm.tar", architecture="arm64")
    return {"platforms": ["linux/arm64"], "base": f"docker-archive:{base}"}


def _model(folder: Path, client: Client) -> dict[str, Any]:
    return {"model": add_model(client, folder / "m2", name="changing", factor=17.0)}


@pytest.mark.parametrize(
    "change", [_another_script, _another_file, _another_base_in_its_place, _variables, _compression, _platform, _model]
)
def test_what_changed_is_built(client: Client, tmp_path: Path, change: Callable[[Path, Client], dict[str, Any]]) -> None:
    name = change.__name__.strip("_").replace("_", "-")
    model = add_model(client, tmp_path / "m", name="changing")
    first = build(client, name, model, **boxed(tmp_path))
    changed = change(tmp_path, client)
    model = changed.pop("model", model)
    second = build(client, name, model, **boxed(tmp_path, **changed))
    assert not second.at_once
    assert second.result["digest"] != first.result["digest"]
    third = build(client, name, model, **boxed(tmp_path, **changed))
    assert (third.at_once, third.result["digest"]) == (True, second.result["digest"])


def test_a_layout_that_is_given_another_base_is_looked_at_again(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="moved")
    layout = tmp_path / "layout"
    built = []
    for number in range(2):
        root = tmp_path / f"root-{number}.tar"
        _root_with_python(root, f"release {number}")
        shutil.rmtree(layout, ignore_errors=True)
        write_base_layout(layout, root, "amd64")
        options = boxed(tmp_path, base=f"oci:{layout}")
        built += [build(client, "moved", model, **options), build(client, "moved", model, **options)]
    assert [one.at_once for one in built] == [False, True, False, True]
    assert built[2].result["digest"] != built[0].result["digest"]


def test_a_lock_that_another_build_renewed_counts(yard: Yard, client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="locked")
    client.environments.create("loose", ["extra"], python_version="3.11")
    options = boxed(tmp_path, environment="loose")
    first = build(client, "locked", model, **options)
    write_wheel(yard.wheels, "extra", "2.0")
    assert build(client, "locked", model, **options).at_once, "a lock is kept until somebody wants another one"
    build(client, "neighbour", model, **options, upgrade=True)
    second = build(client, "locked", model, **options)
    assert not second.at_once
    assert second.result["digest"] != first.result["digest"]


def test_a_deleted_image_is_no_answer(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="deleted")
    first = build(client, "deleted", model)
    client.images.delete("deleted:1")
    second = build(client, "deleted", model)
    assert (second.at_once, second.result["image"]) == (False, "deleted:2")
    assert second.result["digest"] == first.result["digest"]


def test_rebuild_and_upgrade_are_done(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="insisted")
    first = build(client, "insisted", model)
    assert not build(client, "insisted", model, upgrade=True).at_once
    rebuilt = build(client, "insisted", model, rebuild=True)
    assert (rebuilt.at_once, rebuilt.result) == (False, {**first.result, "image": "insisted:2"})


def test_another_environment_record_with_the_same_content_is_a_version_of_its_own(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="twin-env")
    for name in ("one-env", "other-env"):
        client.environments.create(name, [], python_version="3.11")
    first = build(client, "twin-env", model, **boxed(tmp_path, environment="one-env"))
    second = build(client, "twin-env", model, **boxed(tmp_path, environment="other-env"))
    assert first.result["digest"] == second.result["digest"]
    assert (second.result["image"], client.images.get("twin-env").environment) == ("twin-env:2", "other-env:1")


def test_a_model_that_was_deleted_is_still_an_error(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="gone", factor=31.0)
    build(client, "gone", model)
    client.images.delete("gone:1")
    client.models.delete(model)
    with pytest.raises(ApiError, match="gone"):
        build(client, "gone", model)


def test_what_is_remembered_may_be_lost_or_damaged(yard: Yard, client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="forgotten")
    first = build(client, "forgotten", model)
    answers = yard.plane.folder / "cache" / "answers"
    for lost in (False, True):
        for path in list(answers.iterdir()):
            path.unlink()
            if not lost:
                path.write_bytes(b"{")
        again = build(client, "forgotten", model)
        assert (again.at_once, again.result) == (False, {**first.result, "unchanged": "true"})


def test_a_controller_that_is_started_again_still_knows(yard: Yard, client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="lasting")
    first = build(client, "lasting", model)
    yard.plane.controller.stop()
    yard.plane.start_controller()
    assert build(client, "lasting", model).at_once
    assert versions(client, "lasting") == [1]
    assert first.result["image"] == "lasting:1"


def _root_with_python(target: Path, release: str) -> None:
    with tarfile.open(target, "w") as tar:
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, "python3.11"
        tar.addfile(link)
        told = tarfile.TarInfo("etc/release")
        told.size = len(release)
        tar.addfile(told, io.BytesIO(release.encode()))
