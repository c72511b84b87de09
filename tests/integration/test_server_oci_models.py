"""Models as OCI artifacts, pulled from a real server by OCI tools of somebody else."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from registry.store.database import Database, open_database
from registry.store.tables import blobs
from tests.fixtures.parts import program
from tests.registry_server import Api, RunningServer, running_server
from tests.registry_stores import digest_of_text

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# Incompressible, larger than one chunk, and an empty file beside it.
WEIGHTS = os.urandom(3_000_000)
FILES = {"model.onnx": WEIGHTS, "docs/README.md": "# Größe\n".encode(), "conf/labels.json": b"[1]\n", "same.bin": WEIGHTS}


@pytest.fixture(scope="module")
def database(server: RunningServer) -> Iterator[Database]:
    opened = open_database(None, server.workspace)
    yield opened
    opened.close()


def register(api: Api, name: str, files: dict[str, bytes] | None = None, **facts: Any) -> dict[str, Any]:
    entries = [api.upload(content, path) for path, content in (files or FILES).items()]
    return api.register(name, *entries, framework="onnx", **facts)


def oci_code(answered: Any) -> str:
    return str(answered.json()["errors"][0]["code"])


def test_a_model_is_pulled_as_any_client_does(server: RunningServer, api: Api, database: Database) -> None:
    register(api, "pulled")
    with database.read() as connection:
        before = connection.execute(select(func.count()).select_from(blobs)).scalar_one()
    with server.client(api.token("puller")) as client:
        answered = client.get("/v2/models/pulled/manifests/1", headers={"accept": MANIFEST})
        assert (answered.status_code, answered.headers["content-type"]) == (200, MANIFEST), answered.text
        digest = answered.headers["docker-content-digest"]
        assert digest == f"sha256:{sha256(answered.content).hexdigest()}"
        manifest = answered.json()
        assert [layer["annotations"]["org.cncf.model.filepath"] for layer in manifest["layers"]] == sorted(FILES)
        for layer in manifest["layers"]:
            content = FILES[layer["annotations"]["org.cncf.model.filepath"]]
            assert client.get(f"/v2/models/pulled/blobs/{layer['digest']}").content == content
        config = client.get(f"/v2/models/pulled/blobs/{manifest['config']['digest']}")
        assert config.json()["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
        for tag in ("1", "latest", digest):
            head = client.head(f"/v2/models/pulled/manifests/{tag}")
            assert (head.status_code, head.content) == (200, b""), tag
            assert head.headers["docker-content-digest"] == digest
            assert head.headers["content-length"] == str(len(answered.content))
    with database.read() as connection:
        after = connection.execute(select(func.count()).select_from(blobs)).scalar_one()
    assert after - before == 2, "manifest and config; the layers are the model's own files"


def test_ranges_and_etags(api: Api) -> None:
    register(api, "ranged")
    answered = api.get("/v2/models/ranged/manifests/1")
    layer = f"/v2/models/ranged/blobs/sha256:{sha256(WEIGHTS).hexdigest()}"
    part = api.get(layer, headers={"range": "bytes=1500000-1500009"})
    assert (part.status_code, part.content) == (206, WEIGHTS[1_500_000:1_500_010])
    for path in ("/v2/models/ranged/manifests/latest", layer):
        etag = api.head(path).headers["etag"]
        again = api.get(path, headers={"if-none-match": etag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert api.get(path, headers={"if-none-match": '"other"'}).status_code == 200
    assert api.head("/v2/models/ranged/manifests/latest").headers["etag"] == f'"{answered.headers["docker-content-digest"]}"'


def test_tags_are_versions_aliases_and_latest(api: Api) -> None:
    for number in range(11):
        register(api, "tagged", {"m.onnx": b"%d" % number})
    assert api.put("/api/v1/models/tagged/aliases/champion", json={"version": 4}).status_code in (200, 201)
    every = [*sorted(str(number) for number in range(1, 12)), "champion", "latest"]
    assert api.get("/v2/models/tagged/tags/list").json() == {"name": "models/tagged", "tags": every}
    first = api.get("/v2/models/tagged/tags/list", params={"n": 5})
    assert first.json()["tags"] == every[:5]
    following = first.headers["link"].partition(">")[0].removeprefix("<")
    assert api.get(following).json()["tags"] == every[5:10]

    def digest(tag: str) -> str:
        return str(api.get(f"/v2/models/tagged/manifests/{tag}").headers["docker-content-digest"])

    assert digest("champion") == digest("4") != digest("latest") == digest("11")
    assert api.put("/api/v1/models/tagged/aliases/champion", json={"version": 5}).status_code == 200
    assert digest("champion") == digest("5")


def test_what_is_not_there(api: Api) -> None:
    register(api, "present", {"m.onnx": b"present"})
    other = register(api, "other", {"m.onnx": b"of another model"})
    assert api.get("/v2/models/other/manifests/1").status_code == 200
    manifest = api.get("/v2/models/other/manifests/1").headers["docker-content-digest"]
    layer = other["files"][0]["digest"]
    expected = {
        "/v2/models/absent/tags/list": (404, "NAME_UNKNOWN"),
        "/v2/models/absent/manifests/1": (404, "MANIFEST_UNKNOWN"),
        "/v2/models/present/manifests/2": (404, "MANIFEST_UNKNOWN"),
        "/v2/models/present/manifests/01": (404, "MANIFEST_UNKNOWN"),
        "/v2/models/present/manifests/99999999999999999999": (404, "MANIFEST_UNKNOWN"),
        "/v2/models/present/manifests/champion": (404, "MANIFEST_UNKNOWN"),
        f"/v2/models/present/manifests/{'x' * 1000}": (404, "MANIFEST_UNKNOWN"),
        # Another model's artifact and files are not this one's, and a file is no manifest.
        f"/v2/models/present/manifests/{manifest}": (404, "MANIFEST_UNKNOWN"),
        f"/v2/models/other/manifests/{layer}": (404, "MANIFEST_UNKNOWN"),
        f"/v2/models/present/blobs/{layer}": (404, "BLOB_UNKNOWN"),
        "/v2/models/present/blobs/sha256:abc": (404, "BLOB_UNKNOWN"),
        "/v2/models/UPPER/manifests/1": (400, "NAME_INVALID"),
        "/v2/models/present/tags/list?n=x": (400, "UNSUPPORTED"),
        "/v2/models/present/referrers/x": (404, "BLOB_UNKNOWN"),
        f"/v2/models/absent/referrers/{layer}": (404, "NAME_UNKNOWN"),
        # An image called "models" is another repository, and there is none.
        "/v2/models/tags/list": (404, "NAME_UNKNOWN"),
        "/v2/models/manifests/1": (404, "MANIFEST_UNKNOWN"),
    }
    assert {path: (answered.status_code, oci_code(answered)) for path in expected for answered in [api.get(path)]} == expected


def test_nothing_refers_to_an_artifact(api: Api) -> None:
    register(api, "lonely", {"m.onnx": b"lonely"})
    digest = api.get("/v2/models/lonely/manifests/1").headers["docker-content-digest"]
    answered = api.get(f"/v2/models/lonely/referrers/{digest}", params={"artifactType": "application/x"})
    assert answered.json() == {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
    assert answered.headers["content-type"] == "application/vnd.oci.image.index.v1+json"
    assert answered.headers["oci-filters-applied"] == "artifactType"


def test_who_may_pull(server: RunningServer, api: Api) -> None:
    register(api, "guarded", {"m.onnx": b"guarded"})
    paths = ["/v2/models/guarded/manifests/1", "/v2/models/guarded/tags/list"]
    paths.append(f"/v2/models/guarded/blobs/{digest_of_text('guarded')}")

    def statuses(token: str) -> list[int]:
        with server.client(token) as client:
            return [client.get(path).status_code for path in ["/v2/", *paths]]

    for role in ("puller", "reader", "contributor"):
        assert statuses(api.token(role)) == [200] * 4, role
    assert statuses("") == [401] * 4
    assert statuses(api.token("puller", scopes=["models:guarded"])) == [200] * 4
    assert statuses(api.token("puller", scopes=["models:other", "models:guarded-"])) == [200, 403, 403, 403]
    # Being allowed to pull images says nothing about models, not even for an image of that name.
    assert statuses(api.token("puller", scopes=["images:*"])) == [200, 403, 403, 403]


def test_a_first_pull_by_many_at_once(server: RunningServer) -> None:
    _first_pull_by_many(server)


def test_a_first_pull_by_many_at_once_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    with running_server(tmp_path, "--database", postgres_url) as server:
        _first_pull_by_many(server)


def _first_pull_by_many(server: RunningServer) -> None:
    with server.client() as client:
        for name in ("crowd", "people"):
            register(client, name, {"m.onnx": b"crowd"})

    def pull(number: int) -> tuple[int, int, str]:
        with server.client() as client:
            answered = client.get(f"/v2/models/{('crowd', 'people')[number % 2]}/manifests/{('1', 'latest')[number % 3 == 0]}")
        return number % 2, answered.status_code, answered.headers.get("docker-content-digest", "")

    with ThreadPoolExecutor(12) as pool:
        found = set(pool.map(pull, range(36)))
    assert {(name, status) for name, status, _ in found} == {(0, 200), (1, 200)}
    assert len(found) == 2, "each model has one artifact"


def test_a_deleted_version_is_pulled_no_more(api: Api) -> None:
    made = register(api, "short-lived", {"m.onnx": b"short-lived"})
    digest = api.get("/v2/models/short-lived/manifests/1").headers["docker-content-digest"]
    assert api.delete("/api/v1/models/short-lived:1").status_code == 204
    for path in ("manifests/1", "manifests/latest", f"manifests/{digest}", f"blobs/{made['files'][0]['digest']}", "tags/list"):
        assert api.get(f"/v2/models/short-lived/{path}").status_code == 404, path


def skopeo(folder: Path, *arguments: str) -> str:
    policy = folder / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    argv = [program("skopeo"), "--policy", str(policy), *arguments]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_skopeo_copies_a_model_by_tag_and_by_digest(server: RunningServer, api: Api, tmp_path: Path) -> None:
    register(api, "copied")
    secret = api.token("puller")
    digest = api.get("/v2/models/copied/manifests/1").headers["docker-content-digest"]
    source = f"docker://{server.url.removeprefix('http://')}/models/copied"
    for number, reference in enumerate((":1", ":latest", f"@{digest}")):
        layout = tmp_path / f"layout-{number}"
        skopeo(
            tmp_path, "copy", "--src-tls-verify=false", f"--src-creds=any:{secret}", source + reference, f"oci:{layout}:pulled"
        )
        index = json.loads((layout / "index.json").read_bytes())
        assert index["manifests"][0]["digest"] == digest, "skopeo kept the manifest's bytes"
        manifest = json.loads(_blob(layout, digest))
        found = {layer["annotations"]["org.cncf.model.filepath"]: _blob(layout, layer["digest"]) for layer in manifest["layers"]}
        assert found == FILES
    tags = skopeo(tmp_path, "list-tags", "--tls-verify=false", f"--creds=any:{secret}", source)
    assert json.loads(tags)["Tags"] == ["1", "latest"]


def _blob(layout: Path, digest: str) -> bytes:
    content = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    assert f"sha256:{sha256(content).hexdigest()}" == digest
    return content


def test_oras_pulls_the_files(server: RunningServer, api: Api, tmp_path: Path) -> None:
    from oras.provider import Registry

    files = FILES | {"empty.txt": b""}
    register(api, "fetched", files)
    registry = Registry(insecure=True, auth_backend="basic")
    try:
        registry.auth.set_basic_auth("any", api.token("puller"))
        pulled = registry.pull(f"{server.url.removeprefix('http://')}/models/fetched:latest", outdir=str(tmp_path))
    finally:
        registry.session.close()
    assert {Path(path).relative_to(tmp_path).as_posix() for path in pulled} == set(files)
    assert {path: (tmp_path / path).read_bytes() for path in files} == files
