"""``image push`` through the whole control plane: what is sent, who we are, what is written down, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hedgerow.contracts.api import Role
from hedgerow.contracts.names import ARTIFACT_BUILD_REPORT, MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ActivityFailed, ApiError
from tests.controller_process import Plane, add_image, plane
from tests.fixtures.oci_registry import OciRegistry
from tests.fixtures.parts import search_path
from tests.hostile_registry import hostile_registry

_PROGRAM = "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    allowed = {"HEDGEROW_EGRESS_ALLOW": "127.0.0.1"}
    with plane(tmp_path_factory.mktemp("plane"), environment=allowed) as running:
        yield running


@pytest.fixture(scope="module")
def image(made: Plane, tmp_path_factory: pytest.TempPathFactory) -> str:
    return add_image(made.client, tmp_path_factory.mktemp("model"))


def pushed(client: Client, reference: str, target: str, **options: Any) -> dict[str, str]:
    return client.activities.wait(client.images.push(reference, target, **options).id).result


def hedgerow(made: Plane, *arguments: str, said: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """``more`` goes into the environment."""
    environment = {"PATH": search_path(), "HOME": str(made.folder), "HEDGEROW_WORKSPACE": str(made.folder)} | more
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "image", "push", *arguments],
        cwd=made.folder,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def everywhere(folder: Path, word: str) -> list[str]:
    """Files of the workspace that hold ``word``."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


def test_only_the_layer_of_the_model_travels(made: Plane, image: str, tmp_path: Path, docker_registry: OciRegistry) -> None:
    target = f"{docker_registry.address}/travel/doubling"
    first = pushed(made.client, image, f"{target}:1")
    record = made.client.images.get(image)
    assert first["digest"] == record.digest
    assert first["reference"] == f"{target}@{record.digest}"
    second = pushed(made.client, add_image(made.client, tmp_path, factor=3.0), f"{target}:2")
    sent = [one.partition("=")[0] for one in second["pushed"].split()]
    assert 0 < len(sent) < len(first["pushed"].split()) + len(first["already_there"].split())
    assert int(second["pushed_bytes"]) == sum(int(one.partition("=")[2]) for one in second["pushed"].split())
    again = pushed(made.client, image, f"{target}:1")
    assert (again["pushed"], again["pushed_bytes"]) == ("", "0")
    with httpx.Client(base_url=f"http://{docker_registry.address}/v2/travel/doubling") as there:
        found = there.get("/manifests/1", headers={"Accept": MEDIA_OCI_MANIFEST})
        assert found.headers["docker-content-digest"] == record.digest
        tag = record.digest.replace(":", "-")
        beside = there.get(f"/manifests/{tag}", headers={"Accept": MEDIA_OCI_INDEX}).json()["manifests"]
    assert ARTIFACT_BUILD_REPORT in {one["artifactType"] for one in beside}
    told = [event.kind for event in made.client.events.iterate(subject=f"image/{image}")]
    assert {"image.push-requested", "image.pushed-elsewhere"} <= set(told)


def test_a_second_repository_takes_what_the_first_has(made: Plane, image: str, docker_registry: OciRegistry) -> None:
    pushed(made.client, image, f"{docker_registry.address}/near/one:1")
    second = pushed(made.client, image, f"{docker_registry.address}/near/two:1", referrers=False)
    assert second["pushed"] == ""
    assert second["mounted"]
    assert second["referrers"] == ""


def test_a_password_is_used_and_nowhere_written(made: Plane, image: str) -> None:
    with hostile_registry(scheme="bearer", login=("ada", "correct-horse-7391")) as registry:
        target = f"{registry.address}/churn:1"
        pushed(made.client, image, target, username="ada", password="correct-horse-7391")
        assert registry.manifests["1"]
        assert everywhere(made.folder, "correct-horse-7391") == []
        assert everywhere(made.logs, "correct-horse-7391") == []
        with pytest.raises(ActivityFailed) as failed:
            pushed(made.client, image, target, username="ada", password="wrong-horse-1842")
        assert failed.value.activity.problem is not None
        assert failed.value.activity.problem.code == "registry_login_failed"
        assert everywhere(made.folder, "wrong-horse-1842") == []


@pytest.mark.parametrize(("value", "username"), [("geheim-5521", "ada"), ("ada:geheim-5521", None)])
def test_a_secret_is_named_and_opened_by_the_controller(made: Plane, image: str, value: str, username: str | None) -> None:
    made.client.secrets.set("registry-login", value)
    with hostile_registry(scheme="basic", login=("ada", "geheim-5521")) as registry:
        pushed(made.client, image, f"{registry.address}/churn:1", secret="registry-login", username=username)
        assert registry.manifests["1"]
    assert everywhere(made.folder, "geheim-5521") == []


def test_our_own_registry_takes_it_too(made: Plane, image: str) -> None:
    """One Hedgerow pushes to another; here to itself, under another name."""
    host = httpx.URL(made.client.info().url).netloc.decode()
    token = made.client.tokens.create("pusher", role="contributor").secret
    done = pushed(made.client, image, f"{host}/copied:1", username="hedgerow", password=token)
    copied = made.client.images.get("copied:1")
    assert done["digest"] == copied.digest == made.client.images.get(image).digest
    beside = httpx.get(f"http://{host}/v2/copied/referrers/{copied.digest}", auth=("hedgerow", token or "")).json()["manifests"]
    assert sorted(one["digest"] for one in beside) == sorted(done["referrers"].split())
    again = pushed(made.client, image, f"{host}/copied:1", username="hedgerow", password=token)
    assert again["pushed"] == ""


def test_a_secret_that_holds_no_user_is_told(made: Plane, image: str) -> None:
    made.client.secrets.set("password-only", "geheim")
    with pytest.raises(ActivityFailed) as failed:
        pushed(made.client, image, "127.0.0.1:1/churn:1", secret="password-only")
    assert failed.value.activity.problem is not None
    assert failed.value.activity.problem.code == "registry_login_missing"


@pytest.mark.parametrize(
    ("target", "options", "code"),
    [
        ("10.0.0.1/a:1", {}, "egress_refused"),
        ("169.254.169.254/a:1", {}, "egress_refused"),
        ("registry.example.com/UPPER", {}, "remote_reference_invalid"),
        ("team/churn:4", {}, "remote_reference_invalid"),
        ("http://churn:4", {}, "remote_reference_invalid"),
        ("127.0.0.1:1/a:1", {"username": "ada"}, "registry_login_missing"),
        ("127.0.0.1:1/a:1", {"password": "geheim"}, "registry_login_missing"),
        ("127.0.0.1:1/a:1", {"username": "a", "password": "b", "secret": "c"}, "registry_login_missing"),
        ("127.0.0.1:1/a:1", {"secret": "none-such"}, "not_found"),
    ],
)
def test_what_cannot_be_is_refused_at_once(made: Plane, image: str, target: str, options: dict[str, str], code: str) -> None:
    with pytest.raises(ApiError) as refused:
        made.client.images.push(image, target, **options)  # type: ignore[arg-type]  # words of a table
    found = refused.value.problem.code
    assert found == code or (code == "not_found" and "not_found" in found)


def test_a_password_of_the_wrong_form_is_not_repeated(made: Plane, image: str) -> None:
    with pytest.raises(ApiError) as refused:
        made.client.images.push(image, "127.0.0.1:1/a:1", username="a", password="geheim" * 10_000)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    ("role", "scopes", "body"),
    [
        ("reader", [], {}),
        ("contributor", ["images:another"], {}),
        ("contributor", ["images:*"], {"secret": "registry-login"}),
    ],
)
def test_who_may_not_is_refused(made: Plane, image: str, role: Role, scopes: list[str], body: dict[str, str]) -> None:
    token = made.client.tokens.create(f"{role}-{len(scopes)}-{len(body)}", role, scopes=scopes)
    address = f"{made.client.info().url.rstrip('/')}/api/v1/images/{image}/push"
    asked = {"target": "127.0.0.1:1/a:1", **body}
    answered = httpx.post(address, json=asked, headers={"Authorization": f"Bearer {token.secret}"})
    assert answered.status_code == 403, answered.text


def test_the_command_line_pushes(made: Plane, image: str) -> None:
    with hostile_registry(scheme="basic", login=("ada", "geheim-9917")) as registry:
        target = f"{registry.address}/churn:1"
        done = hedgerow(made, image, target, "--username", "ada", "--password-stdin", said="geheim-9917\n")
        assert done.returncode == 0, done.stderr
        assert f"Pushed {image} to {registry.address}/churn@sha256:" in done.stdout
        assert "sent, 0 mounted" in done.stdout
        done = hedgerow(made, image, target, "--username", "ada", "--password-stdin", "--json", said="geheim-9917\n")
        assert json.loads(done.stdout)["pushed"] == ""
        refused = hedgerow(made, image, target)
        assert refused.returncode == 1
        assert "wants to know who asks" in refused.stderr
        assert hedgerow(made, image, target, "--username", "ada").returncode == 2


def test_the_command_line_logs_in_as_docker_did(made: Plane, image: str, tmp_path: Path) -> None:
    config, run = tmp_path / "config.json", tmp_path / "containers"
    run.mkdir()
    with hostile_registry(scheme="bearer", identity="identity-4471") as registry:
        target = f"{registry.address}/churn:1"
        config.write_text(json.dumps({"auths": {registry.address: {"identitytoken": "identity-4471"}}}))
        done = hedgerow(made, image, target, "--docker-login", DOCKER_CONFIG=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert everywhere(made.folder, "identity-4471") == []
        nobody = hedgerow(made, image, target, "--docker-login")
        assert (nobody.returncode, "docker login" in nobody.stderr) == (1, True)
        assert hedgerow(made, image, target, "--docker-login", "--username", "ada").returncode == 2
    with hostile_registry(scheme="basic", login=("ada", "geheim-3310")) as registry:
        kept = {"auths": {registry.address: {"username": "ada", "password": "geheim-3310"}}}
        (run / "auth.json").write_text(json.dumps(kept))
        done = hedgerow(made, image, f"{registry.address}/churn:1", "--docker-login", XDG_RUNTIME_DIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
