"""Image builds with the real controller and packager: stored whole or not at all, told step by step, cancelled cleanly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hedgerow.contracts.document import digest_of, encode
from hedgerow.contracts.names import MEDIA_OCI_MANIFEST
from hedgerow.contracts.proof import ParityIndex
from hedgerow.sdk.client import Client
from hedgerow.sdk.served_image import ready_image
from registry.store.database import open_database
from registry.store.tables import image_blobs
from tests.controller_process import Plane, add_model, doubling_model, ended, plane
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane(tmp_path_factory.mktemp("builds")) as started:
        yield started


@pytest.fixture
def client(made: Plane) -> Client:
    return made.client


def nothing_left(made: Plane) -> bool:
    return not list((made.folder / "work").glob("builds/*")) and not made.supervised("job-")


def test_a_build_is_told_step_by_step_and_stored_whole(made: Plane, client: Client, tmp_path: Path) -> None:
    doubling_model(tmp_path / "m")
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "m" / "parity.npz", input_0=rows, output_0=rows * 2)
    (tmp_path / "m" / "parity.json").write_bytes(encode(ParityIndex(inputs=["x"], outputs=["y"])))
    manifest = client.models.register("proven", tmp_path / "m")
    build = client.images.build("proven", ["proven"], tags={"site": "hangar"})
    events = list(client.activities.follow(build.id))
    activity = client.activities.get(build.id)
    steps = [event.step for event in events]
    assert {"laying files out", "testing the image", "storing the image", "succeeded"} <= set(steps), steps
    shown = [step for step, _ in groupby(steps)]
    assert len(shown) == len(set(shown)), "a step that was left does not come back"
    assert [event.progress for event in events] == sorted(event.progress for event in events)
    record = client.images.get("proven:1")
    assert activity.result == {"image": "proven:1", "digest": record.digest}
    assert record.models[0].digest == manifest.digest
    assert (record.tags, record.kind) == ({"site": "hangar"}, "onnx")
    assert record.verification is not None
    assert (record.verification.state, record.verification.rows) == ("passed", 2)
    served = ready_image("proven:1", tmp_path / "cache", lambda: nullcontext(client))
    assert (served.batchable, served.python) == (tuple(record.verification.batchable), None)
    assert record.verification.batchable == ["proven"]
    with closing(open_database(None, made.folder)) as database, database.read() as connection:
        media_types = {row.digest: row.media_type for row in connection.execute(image_blobs.select())}
    beside = [digest for digest, kind in media_types.items() if kind == MEDIA_OCI_MANIFEST and digest != record.digest]
    assert len(beside) == 3, "what the build was made of, its parts (SBOM), and what its test measured"
    assert len(media_types) == 4 + 3 + 3 + 1, "manifest, config, two layers; beside it manifests, documents, the empty config"
    assert nothing_left(made)
    token = client.transport.token
    for digest, media_type in media_types.items():
        kind = "manifests" if media_type == MEDIA_OCI_MANIFEST else "blobs"
        pulled = httpx.get(f"{client.info().url}/v2/proven/{kind}/{digest}", headers={"authorization": f"Bearer {token}"})
        assert pulled.status_code == 200
        assert pulled.headers["docker-content-digest"] == digest
    manifest_answer = httpx.get(f"{client.info().url}/v2/proven/manifests/1", headers={"authorization": f"Bearer {token}"})
    assert manifest_answer.headers["content-type"] == MEDIA_OCI_MANIFEST


def built(client: Client, name: str, model: str, **options: Any) -> dict[str, str]:
    return client.activities.wait(client.images.build(name, [model], **options).id).result


def versions(client: Client, name: str) -> list[int]:
    return [image.version for image in client.images.list(name=name).items]


def test_an_unchanged_build_is_the_version_that_is_there(made: Plane, client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="same")
    first = built(client, "same", model, verify=False)
    again = built(client, "same", model, verify=False, tags={"stage": "prod"})
    assert again == {**first, "unchanged": "true"}
    assert versions(client, "same") == [1]
    assert client.images.get("same:1").tags == {"stage": "prod"}
    assert nothing_left(made)


def test_a_test_that_is_wanted_now_makes_a_version(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="tested", factor=2.5)
    first = built(client, "tested", model, verify=False)
    second = built(client, "tested", model)
    assert (second["image"], second["digest"]) == ("tested:2", first["digest"])
    assert built(client, "tested", model, verify=False) == {**second, "unchanged": "true"}


def test_rebuilt_it_is_made_anew_and_equal(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="rebuilt", factor=3.5)
    results = [built(client, "rebuilt", model, verify=False, rebuild=rebuild) for rebuild in (False, True)]
    assert results[0]["digest"] == results[1]["digest"]
    assert versions(client, "rebuilt") == [2, 1]


def test_under_another_name_it_is_another_image_with_the_same_digest(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="named", factor=4.5)
    results = [built(client, name, model, verify=False) for name in ("named-a", "named-b")]
    assert [result["image"] for result in results] == ["named-a:1", "named-b:1"]
    assert results[0]["digest"] == results[1]["digest"]


def test_a_build_that_fails_says_why_in_the_packagers_words(made: Plane, client: Client, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model at all")
    client.models.register("notes", tmp_path / "notes.txt")
    activity = ended(client, client.images.build("notes", ["notes"]).id)
    assert activity.state == "failed"
    assert activity.problem is not None
    assert activity.problem.code == "no_onnx_file"
    assert "notes:1" in activity.problem.message
    assert activity.problem.remedy
    assert [image for image in client.images.list().items if image.name == "notes"] == []
    assert nothing_left(made)


def test_an_image_with_wrong_answers_is_not_built(client: Client, tmp_path: Path) -> None:
    doubling_model(tmp_path / "m", factor=3.0)
    rows = np.ones((2, 3), dtype=np.float32)
    np.savez(tmp_path / "m" / "parity.npz", input_0=rows, output_0=rows * 2)
    (tmp_path / "m" / "parity.json").write_bytes(encode(ParityIndex(inputs=["x"], outputs=["y"])))
    client.models.register("wrong", tmp_path / "m")
    activity = ended(client, client.images.build("wrong", ["wrong"]).id)
    assert activity.problem is not None
    assert "does not answer as recorded" in activity.problem.message
    assert [image for image in client.images.list().items if image.name == "wrong"] == []


def test_script_source_and_environment_reach_the_packager(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="scripted")
    source = tmp_path / "src"
    source.mkdir()
    (source / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    (source / "runtime.py").write_text("")
    client.environments.create("lean", requirements=["requests==2.0"], python_version="3.11")
    build = client.images.build(
        "scripted", [model], kind="docker", script="score.py", source=source, environment="lean", base=f"oci:{tmp_path}/absent"
    )
    activity = ended(client, build.id)
    assert activity.problem is not None
    assert "runtime.py" in activity.problem.message, "a reserved name is refused, so the source was there to be read"
    (source / "runtime.py").unlink()
    build = client.images.build(
        "scripted", [model], kind="docker", script="score.py", source=source, environment="lean", base=f"oci:{tmp_path}/absent"
    )
    activity = ended(client, build.id)
    assert activity.problem is not None
    assert "absent" in activity.problem.message, "what was not there was the base"


def test_conda_packages_reach_the_packager_which_names_what_has_no_wheel(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="conda")
    conda = tmp_path / "conda.yml"
    conda.write_text("name: x\ndependencies: [python=3.11, numpy=1.26, r-base, git, {pip: [flask]}]\n")
    client.environments.create_from_conda("with-conda", conda)
    build = client.images.build("conda", [model], kind="docker", environment="with-conda", base=f"oci:{tmp_path}/absent")
    activity = ended(client, build.id)
    assert activity.problem is not None
    assert activity.problem.code == "conda_only"
    assert all(name in activity.problem.message for name in ("r-base", "git"))
    assert "numpy" not in activity.problem.message


def test_a_build_can_be_cancelled(made: Plane, client: Client, tmp_path: Path) -> None:
    build = client.images.build("cancelled", [add_model(client, tmp_path / "m", name="cancelled")])
    made.one_running("job-")
    modes = {place.stat().st_mode & 0o777 for place in (made.folder / "work").glob("builds/*")}
    assert modes == {0o700}, "images under test may pass through the folders above, and read nothing of what is built"
    client.activities.cancel(build.id)
    assert ended(client, build.id).state == "cancelled"
    assert [image for image in client.images.list().items if image.name == "cancelled"] == []
    wait_for(lambda: nothing_left(made), what="its files and processes to be gone")


def test_several_builds_wait_for_their_turn(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="many")
    builds = [client.images.build(f"many-{number}", [model], verify=False) for number in range(4)]
    assert [ended(client, build.id, timeout_s=60).state for build in builds] == ["succeeded"] * 4


def test_a_damaged_blob_fails_the_build(made: Plane, client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="damaged", factor=7.0)
    digest = client.models.get(model).files[0].digest.removeprefix("sha256:")
    blob = made.folder / "blobs" / "sha256" / digest[:2] / digest
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    activity = ended(client, client.images.build("damaged", [model], verify=False).id)
    assert activity.state == "failed"
    assert activity.problem is not None
    assert activity.problem.code == "model_changed"


def test_a_damaged_source_fails_the_build(made: Plane, client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="sourced")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "score.py").write_text("def init(): pass\ndef run(data): return 'of the damaged source'\n")
    asked: dict[str, Any] = {"kind": "docker", "script": "score.py", "source": tmp_path / "src", "base": f"oci:{tmp_path}/absent"}
    ended(client, client.images.build("sourced", [model], **asked).id)
    digest = digest_of((tmp_path / "src" / "score.py").read_bytes()).removeprefix("sha256:")
    blob = made.folder / "blobs" / "sha256" / digest[:2] / digest
    blob.chmod(0o644)
    blob.write_bytes(b"?" + blob.read_bytes()[1:])
    activity = ended(client, client.images.build("sourced", [model], **asked).id)
    assert activity.problem is not None
    assert activity.problem.code == "blob_damaged"
    assert nothing_left(made)
