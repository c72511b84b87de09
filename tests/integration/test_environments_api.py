"""Environments over the REST API, the SDK and the command line of a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError, NoEnvironmentAsked
from hedgerow.sdk.transport import Transport
from registry.store.database import open_database
from registry.store.tables import image_environments
from tests.registry_server import Api, RunningServer, problem_of
from tests.registry_stores import add_image

PATH = "/api/v1/environments"
MLFLOW = Path(__file__).parent.parent / "fixtures" / "mlflow"
CONDA = "name: x\nchannels: [conda-forge]\ndependencies:\n- python=3.10\n- numpy=1.26\n- pip:\n  - requests\n"


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(Transport(server.url, server.owner_token)) as opened:
        yield opened


def hedgerow(server: RunningServer, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", "from hedgerow.cli.main import main; main()", "--workspace", str(server.workspace), *arguments],
        cwd=cwd,
        env={"PATH": os.defpath, "HOME": str(cwd), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def build_in(server: RunningServer, name: str, version: int) -> None:
    """An image that was built in this environment."""
    database = open_database(None, server.workspace)
    try:
        with database.write() as connection:
            image = add_image(connection, f"image-of-{name}")
            of = {"environment_name": name, "environment_version": version}
            connection.execute(image_environments.insert().values(image_name=image.name, image_version=image.version, **of))
    finally:
        database.close()


def test_a_conda_file_over_the_api(api: Api) -> None:
    made = api.post(PATH, json={"name": "conda", "conda_file": CONDA, "variables": {"A": "1"}})
    assert made.status_code == 201, made.text
    assert {key: made.json()[key] for key in ("python_version", "requirements", "conda_packages", "channels", "variables")} == {
        "python_version": "3.10",
        "requirements": ["requests"],
        "conda_packages": ["numpy=1.26"],
        "channels": ["conda-forge"],
        "variables": {"A": "1"},
    }
    assert api.post(PATH, json={"name": "conda", "conda_file": CONDA, "variables": {"A": "1"}}).json() == made.json()
    assert api.post(PATH, json={"name": "conda", "conda_file": CONDA}).json()["version"] == 2
    # The first content again, although it is no longer the newest.
    assert api.post(PATH, json={"name": "conda", "conda_file": CONDA, "variables": {"A": "1"}}).json()["version"] == 1
    by_digest = api.get(PATH, params={"digest": made.json()["digest"]}).json()["items"]
    assert by_digest == [made.json()]
    assert [item["version"] for item in api.get(PATH, params={"name": "conda", "package": "NumPy"}).json()["items"]] == [2, 1]
    assert api.get(PATH, params={"name": "conda", "python": "3.11"}).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"requirements": ["a", "numpy=1"]}, "environment_refused", "Line 2 of the requirements"),
        ({"requirements": ["a\n--index-url https://evil"]}, "environment_refused", "line break"),
        ({"requirements": ["a" * 3000]}, "invalid_document", "requirements"),
        ({"conda_file": "- numpy\n"}, "environment_refused", "Line 1 of the conda file"),
        ({"conda_file": "dependencies:\n- pip: {a: 1}\n"}, "environment_refused", "pip is no list"),
        ({"conda_file": "a: &a [x]\nb: [*a, *a]\n"}, "environment_refused", "anchors"),
        ({"conda_file": "x" * (512 * 1024 + 1)}, "invalid_document", "conda_file"),
        ({"conda_file": CONDA, "requirements": ["a"]}, "environment_refused", "beside a conda file"),
        ({"conda_file": "a: \0"}, "invalid_document", "NUL"),
        ({"python_version": "2.7"}, "environment_refused", "Python version"),
        ({"variables": {"A-B": "1"}}, "environment_refused", "A-B"),
        ({"variables": {"A": "\0"}}, "invalid_document", "NUL"),
        ({"name": "n" * 10_000}, "invalid_document", "name"),
        ({"name": "../up"}, "invalid_document", "name"),
        ({"condafile": ""}, "invalid_document", "condafile"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_refused(api: Api, body: dict[str, object], code: str, words: str) -> None:
    answered = api.post(PATH, json={"name": "refused"} | body)
    assert answered.status_code == 400
    problem = problem_of(answered)
    assert problem["code"] == code
    assert words in problem["message"]
    assert api.get(PATH, params={"name": "refused"}).json()["items"] == []


def test_text_that_is_no_text(api: Api) -> None:
    for content in (b'{"name": "e", "conda_file": "\xff"}', rb'{"name": "e", "conda_file": "dependencies: [\ud800]"}'):
        answered = api.post(PATH, content=content, headers={"content-type": "application/json"})
        assert (answered.status_code, problem_of(answered)["code"]) in ((400, "invalid_document"), (400, "environment_refused"))


def test_arguments_that_are_none(api: Api) -> None:
    for arguments in ({"digest": "x"}, {"python": "2"}, {"package": "a b"}, {"name": "../x"}, {"nmae": "x"}, {"limit": "0"}):
        assert api.get(PATH, params=arguments).status_code == 400, arguments


def test_etags_and_deletion(server: RunningServer, api: Api) -> None:
    made = api.post(PATH, json={"name": "kept", "requirements": ["a"]})
    etag = made.headers["etag"]
    shown = api.get(f"{PATH}/kept:1")
    assert shown.headers["etag"] == etag
    assert api.get(f"{PATH}/kept:1", headers={"if-none-match": etag}).status_code == 304
    assert api.get(f"{PATH}/kept@champion").status_code == 404, "aliases are for models"
    refused = api.delete(f"{PATH}/kept:1", headers={"if-match": '"another"'})
    assert (refused.status_code, problem_of(refused)["code"]) == (412, "precondition_failed")
    build_in(server, "kept", 1)
    in_use = api.delete(f"{PATH}/kept:1", headers={"if-match": etag})
    assert (in_use.status_code, problem_of(in_use)["code"]) == (409, "in_use")
    assert "image image-of-kept:1" in problem_of(in_use)["message"]
    with server.client(api.token("contributor")) as contributor:
        assert contributor.delete(f"{PATH}/kept:1", params={"force": "true"}).status_code == 403
    assert api.delete(f"{PATH}/kept:1", params={"force": "true"}).status_code == 204
    assert api.get(f"{PATH}/kept:1").status_code == 404
    assert api.post(PATH, json={"name": "kept", "requirements": ["a"]}).json()["version"] == 2
    assert api.delete(f"{PATH}/kept").status_code == 204
    assert api.delete(f"{PATH}/kept").status_code == 404


def test_who_may(server: RunningServer, api: Api) -> None:
    api.post(PATH, json={"name": "seen", "requirements": ["a"]})
    with server.client(api.token("reader")) as reader:
        assert reader.get(f"{PATH}/seen").status_code == 200
        assert reader.post(PATH, json={"name": "seen", "requirements": ["b"]}).status_code == 403
        assert reader.delete(f"{PATH}/seen").status_code == 403
    with server.client(api.token("contributor", scopes=["environments:team-*"])) as scoped:
        assert scoped.post(PATH, json={"name": "team-a", "requirements": ["b"]}).status_code == 201
        assert scoped.post(PATH, json={"name": "seen", "requirements": ["b"]}).status_code == 403
        assert scoped.get(f"{PATH}/seen").status_code == 403
    with server.client(api.token("puller")) as puller:
        assert puller.get(PATH).status_code == 403


def test_each_change_is_an_event_and_nothing_else_is(server: RunningServer, api: Api) -> None:
    body = {"name": "told", "requirements": ["a"]}
    for _ in range(2):
        api.post(PATH, json=body)
    build_in(server, "told", 1)
    api.delete(f"{PATH}/told:1")
    api.delete(f"{PATH}/told:1", params={"force": "true"})
    events = [
        e for e in api.get("/api/v1/events", params={"limit": 1000}).json()["items"] if e["subject"] == "environment/told:1"
    ]
    assert sorted(event["kind"] for event in events) == ["environment.created", "environment.force-deleted"]
    assert next(e for e in events if e["kind"] == "environment.force-deleted")["details"]["users"] == "image image-of-told:1"


def test_a_repeated_request_with_its_key_is_done_once(api: Api) -> None:
    headers = {"idempotency-key": "env-1"}
    first = api.post(PATH, json={"name": "once", "requirements": ["a"]}, headers=headers)
    api.delete(f"{PATH}/once:1")
    again = api.post(PATH, json={"name": "once", "requirements": ["a"]}, headers=headers)
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert api.get(PATH, params={"name": "once"}).json()["items"] == []


def test_the_sdk(client: Client, tmp_path: Path) -> None:
    (tmp_path / "top.txt").write_text("numpy==1.26.4\n-r more.txt\n")
    (tmp_path / "more.txt").write_text("# more\nscipy\n")
    made = client.environments.create_from_requirements("sdk", tmp_path / "top.txt", python_version="3.12")
    assert (made.requirements, made.python_version) == (["numpy==1.26.4", "scipy"], "3.12")
    (tmp_path / "env.yml").write_text(CONDA)
    conda = client.environments.create_from_conda("sdk", tmp_path / "env.yml", variables={"A": "1"})
    assert (conda.version, conda.conda_packages) == (2, ["numpy=1.26"])
    assert [item.version for item in client.environments.list(name="sdk", package="numpy").items] == [2, 1]
    with pytest.raises(ApiError, match="Line 2 of the requirements") as refused:
        client.environments.create("sdk", ["fine", "-e ."])
    assert "Build a wheel" in refused.value.sentence()
    client.environments.delete("sdk:1")
    assert [item.version for item in client.environments.list(name="sdk").items] == [2]


@pytest.mark.parametrize("folder", ["sklearn", "pyfunc"])
def test_the_environment_of_an_mlflow_model(client: Client, folder: str) -> None:
    model = client.models.register(f"mlflow-{folder}", MLFLOW / folder)
    assert model.environment is not None, "an MLmodel is recognised when its folder is registered"
    made = client.environments.create_from_model(f"of-{folder}", f"{model.name}:{model.version}")
    for field in ("python_version", "requirements", "conda_packages", "channels"):
        assert getattr(made, field) == getattr(model.environment, field)


def test_a_model_that_asks_for_nothing(client: Client, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"w")
    client.models.register("silent", tmp_path / "m.onnx")
    with pytest.raises(NoEnvironmentAsked, match="silent:1"):
        client.environments.create_from_model("of-silent", "silent")


def test_the_command_line(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "env.yml").write_text(CONDA)
    (tmp_path / "r.txt").write_text("numpy\n-r more.txt\n")
    (tmp_path / "more.txt").write_text("scipy\n")
    made = hedgerow(server, tmp_path, "env", "create", "cli", "--conda", "env.yml", "--variable", "A=1")
    assert (made.returncode, made.stdout.strip()) == (0, "Created cli:1 (Python 3.10, 2 requirements)")
    as_json = json.loads(hedgerow(server, tmp_path, "env", "create", "cli", "--requirements", "r.txt", "--json").stdout)
    assert (as_json["version"], as_json["requirements"]) == (2, ["numpy", "scipy"])
    listed = hedgerow(server, tmp_path, "env", "create", "cli", "requests==2.0", "numpy", "--python", "3.12")
    assert listed.stdout.strip() == "Created cli:3 (Python 3.12, 2 requirements)"
    shown = hedgerow(server, tmp_path, "env", "show", "cli:1").stdout
    assert "numpy=1.26" in shown
    assert "A=1" in shown
    found = json.loads(hedgerow(server, tmp_path, "env", "list", "--name", "cli", "--package", "scipy", "--json").stdout)
    assert [item["version"] for item in found] == [2]
    assert hedgerow(server, tmp_path, "env", "delete", "cli:2", "--yes").stdout.strip() == "Deleted cli:2"
    for arguments, status, words in (
        (["create", "cli"], 2, "one of them"),
        (["create", "cli", "a", "--conda", "env.yml"], 2, "one of them"),
        (["create", "cli", "a", "--variable", "A"], 2, "KEY=VALUE"),
        (["create", "cli", "--requirements", "absent.txt"], 2, "absent.txt"),
        (["create", "cli", "numpy=1"], 1, "Line 1 of the requirements"),
        (["create", "cli", "--python", "3.99", "numpy"], 1, "3.99"),
        (["create", "cli", "--from-model", "absent"], 1, "There is no model absent"),
        (["show", "cli:2"], 1, "There is no environment cli:2"),
    ):
        done = hedgerow(server, tmp_path, "env", *arguments)
        assert (done.returncode, words in done.stderr) == (status, True), done.stderr
