"""Build reports and bills of materials of stored images: through the API, the SDK and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from hedgerow.contracts.build_report import BuildReport
from hedgerow.contracts.document import encode
from hedgerow.contracts.image import ImageRecord, ModelRef, PlatformImage, Referrer
from hedgerow.contracts.names import (
    ARTIFACT_BUILD_REPORT,
    ARTIFACT_SBOM,
    MEDIA_OCI_EMPTY,
    MEDIA_OCI_INDEX,
    MEDIA_OCI_MANIFEST,
)
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError
from hedgerow.sdk.transport import Transport
from packager.sbom import sbom_document
from registry.store import images
from registry.store.database import Database, open_database
from tests.registry_server import Api, RunningServer, problem_of
from tests.registry_stores import NOW
from tests.report_builders import digest_of_words, model_layer, report_of, wheel_layer

PLATFORMS = ("linux/amd64", "linux/arm64")


@pytest.fixture(scope="module")
def database(server: RunningServer) -> Iterator[Database]:
    opened = open_database(None, server.workspace)
    yield opened
    opened.close()


@pytest.fixture
def shelf(server: RunningServer, database: Database) -> Iterator[Shelf]:
    with server.client() as api:
        yield Shelf(api, database)


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(Transport(server.url, server.owner_token)) as made:
        yield made


@dataclass
class Shelf:
    """Puts images with something beside them into the registry, as a build or a push does."""

    api: Api
    database: Database

    def put(self, name: str, *beside: tuple[str, str, bytes], platforms: tuple[str, ...] = ("linux/amd64",)) -> ImageRecord:
        """``beside``: artifact type, subject (``top`` or a platform) and content."""
        with self.database.write() as connection:
            version = images.next_version(connection, name)
        manifests = {
            platform: self._store({"image": f"{name}:{version} {platform}"}, MEDIA_OCI_MANIFEST) for platform in platforms
        }
        top = (
            next(iter(manifests.values())) if len(platforms) == 1 else self._store({"index": name, "v": version}, MEDIA_OCI_INDEX)
        )
        parts, referrers = [*manifests.values(), top], []
        for artifact_type, subject, content in beside:
            blob = self.api.upload(content)
            about = top if subject == "top" else manifests[subject]
            made = self._artifact(artifact_type, about, blob.digest, len(content))
            referrers.append(made)
            parts += [(made.digest, MEDIA_OCI_MANIFEST), (blob.digest, artifact_type)]
        record = ImageRecord(
            name=name,
            version=version,
            kind="docker",
            digest=top[0],
            media_type=top[1],
            size_bytes=1,
            platforms=[PlatformImage(platform=platform, digest=one[0], size_bytes=1) for platform, one in manifests.items()],
            models=[],
            tool_version="test",
            created_at=NOW,
        )
        with self.database.write() as connection:
            images.insert(connection, record, parts, referrers)
        return record

    def _artifact(self, artifact_type: str, about: tuple[str, str], digest: str, size_bytes: int) -> Referrer:
        layer = {"mediaType": artifact_type, "digest": digest, "size": size_bytes}
        subject = {"mediaType": about[1], "digest": about[0], "size": 1}
        body = {"schemaVersion": 2, "artifactType": artifact_type, "layers": [layer], "subject": subject}
        made = self._store(body, MEDIA_OCI_MANIFEST)
        return Referrer(digest=made[0], media_type=made[1], artifact_type=artifact_type, size_bytes=300, subject=about[0])

    def _store(self, document: object, media_type: str) -> tuple[str, str]:
        return self.api.upload(msgspec.json.encode(document)).digest, media_type


def report(model_version: int) -> BuildReport:
    model = model_layer("churn", model_version, f"weights {model_version}", size_bytes=1_000)
    return report_of(wheel_layer("numpy", "2.4.6", size_bytes=9_000), model, inputs={"model churn": str(model_version)})


def bill(platform: str = "linux/amd64") -> bytes:
    model = ModelRef(name="churn", version=1, digest=digest_of_words("model"))
    return sbom_document("docker", platform, "0.1.0", None, {}, [model], digest_of_words("base"))


def test_a_version_is_explained_against_the_one_before(shelf: Shelf, client: Client) -> None:
    for version in (1, 2):
        shelf.put("churn", (ARTIFACT_BUILD_REPORT, "top", encode(report(version))))
    shelf.put("churn-of-others")
    assert client.images.report("churn:1") == report(1)
    found = client.images.explain("churn")
    assert (found.image, found.against, found.shared_bytes, found.fetch_bytes) == ("churn:2", "churn:1", 9_000, 1_000)
    assert [layer.state for layer in found.platforms[0].layers] == ["same", "rebuilt"]
    first = client.images.explain("churn:1")
    assert (first.against, first.fetch_bytes) == (None, 10_000)
    assert client.images.explain("churn:1", "churn:2").against == "churn:2"


def test_an_image_without_a_report_says_so(shelf: Shelf, client: Client) -> None:
    shelf.put("foreign")
    answered = shelf.api.get("/api/v1/images/foreign:1/report")
    problem = problem_of(answered)
    assert (answered.status_code, problem["code"]) == (404, "nothing_beside_image")
    assert "foreign:1 has no build report" in problem["message"]
    shelf.put("foreign", (ARTIFACT_BUILD_REPORT, "top", encode(report(1))))
    assert client.images.explain("foreign").against is None, "nothing is known of the version before"
    with pytest.raises(ApiError, match="foreign:1 has no build report"):
        client.images.explain("foreign", "foreign:1")
    assert shelf.api.get("/api/v1/images/absent/report").status_code == 404


def test_readers_read_and_others_do_not(shelf: Shelf) -> None:
    shelf.put("guarded", (ARTIFACT_BUILD_REPORT, "top", encode(report(1))), (ARTIFACT_SBOM, "linux/amd64", bill()))
    for leaf in ("report", "sbom"):
        path = f"/api/v1/images/guarded:1/{leaf}"
        for token, status in (
            (shelf.api.token("reader"), 200),
            (shelf.api.token("reader", scopes=["images:guarded"]), 200),
            (shelf.api.token("reader", scopes=["images:other"]), 403),
            (shelf.api.token("puller"), 403),
            ("no-token", 401),
        ):
            answered = shelf.api.get(path, headers={"authorization": f"Bearer {token}"})
            assert answered.status_code == status, (leaf, status, answered.text)


def test_what_others_pushed_leads_nowhere_else(shelf: Shelf) -> None:
    """A pushed manifest may call anything a report: a blob of another image, several blobs, or no JSON at all."""
    secret = shelf.put("secret", (ARTIFACT_BUILD_REPORT, "top", encode(report(7))))
    found = shelf.api.get(f"/v2/secret/referrers/{secret.digest}").json()["manifests"][0]["digest"]
    foreign = json.loads(shelf.api.get(f"/v2/secret/manifests/{found}").content)["layers"][0]
    hostile: list[object] = [{"layers": [foreign]}, {"layers": [foreign, foreign]}, {"layers": []}, [1], "x"]
    parts, referrers = [], []
    with shelf.database.write() as connection:
        version = images.next_version(connection, "hostile")
    top = shelf.api.upload(b"hostile top").digest
    for document in hostile:
        data = msgspec.json.encode(document)
        made = shelf.api.upload(data).digest
        parts.append((made, MEDIA_OCI_MANIFEST))
        facts = {"artifact_type": ARTIFACT_BUILD_REPORT, "size_bytes": len(data), "subject": top}
        referrers.append(msgspec.convert({"digest": made, "media_type": MEDIA_OCI_MANIFEST, **facts}, Referrer))
    record = msgspec.structs.replace(secret, name="hostile", version=version, digest=top)
    with shelf.database.write() as connection:
        images.insert(connection, record, [(top, MEDIA_OCI_EMPTY), *parts], referrers)
    assert problem_of(shelf.api.get("/api/v1/images/hostile:1/report"))["code"] == "nothing_beside_image"


def test_a_bill_of_materials_is_one_platforms(shelf: Shelf, client: Client) -> None:
    shelf.put("both", *((ARTIFACT_SBOM, platform, bill(platform)) for platform in PLATFORMS), platforms=PLATFORMS)
    assert client.images.sbom("both", "linux/arm64") == bill("linux/arm64")
    for asked in (None, "linux/riscv64"):
        with pytest.raises(ApiError) as refused:
            client.images.sbom("both", asked)
        assert refused.value.problem.code == "invalid_argument"
        assert "linux/amd64, linux/arm64" in refused.value.problem.remedy
    shelf.put("one", (ARTIFACT_SBOM, "linux/amd64", bill()))
    assert client.images.sbom("one") == bill()
    answered = shelf.api.get("/api/v1/images/one/sbom")
    assert answered.headers["content-type"] == ARTIFACT_SBOM


def test_the_page_lists_the_layers(shelf: Shelf) -> None:
    shelf.put("paged", (ARTIFACT_BUILD_REPORT, "top", encode(report(1))))
    shelf.put("paged", (ARTIFACT_BUILD_REPORT, "top", b"no report at all"))
    for version, told in ((1, True), (2, False)):
        page = shelf.api.get(f"/images/paged:{version}", headers={"accept": "text/html"})
        assert (page.status_code, "wheel numpy 2.4.6" in page.text, "9.0 kB" in page.text) == (200, told, told)


def hedgerow(server: RunningServer, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "HEDGEROW_URL": server.url,
        "HEDGEROW_TOKEN": server.owner_token,
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
    }
    argv = [str(Path(sys.executable).with_name("hedgerow")), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, cwd=folder, env=environment, timeout=60, check=False)


def test_the_command_line(shelf: Shelf, server: RunningServer, tmp_path: Path) -> None:
    for version in (1, 2):
        beside = (ARTIFACT_BUILD_REPORT, "top", encode(report(version))), (ARTIFACT_SBOM, "linux/amd64", bill())
        shelf.put("shown", *beside)
    told = hedgerow(server, "image", "explain", "shown", folder=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "1.0 kB to fetch, 9.0 kB shared" in told.stdout
    assert "model churn:1 → 2" in told.stdout
    as_json = hedgerow(server, "image", "explain", "shown", "--layer", "2", "--json", folder=tmp_path)
    (layer,) = json.loads(as_json.stdout)["platforms"][0]["layers"]
    assert (layer["number"], layer["state"], layer["files"][0]["state"]) == (2, "rebuilt", "changed")
    wrong = hedgerow(server, "image", "explain", "shown", "--layer", "scipy", folder=tmp_path)
    assert (wrong.returncode, "There is no layer 'scipy'" in wrong.stderr) == (2, True)
    printed = hedgerow(server, "image", "sbom", "shown", folder=tmp_path)
    assert json.loads(printed.stdout)["bomFormat"] == "CycloneDX"
    written = hedgerow(server, "image", "sbom", "shown", "-o", "sbom.json", folder=tmp_path)
    assert written.returncode == 0
    assert (tmp_path / "sbom.json").read_bytes() == bill()
    (tmp_path / "sbom.json").write_text("mine")
    kept = hedgerow(server, "image", "sbom", "shown", "-o", "sbom.json", folder=tmp_path)
    assert (kept.returncode, "sbom.json is there already" in kept.stderr, "--force" in kept.stderr) == (1, True, True)
    assert (tmp_path / "sbom.json").read_text() == "mine"
    assert hedgerow(server, "image", "sbom", "shown", "-o", "sbom.json", "--force", folder=tmp_path).returncode == 0
    assert (tmp_path / "sbom.json").read_bytes() == bill()
    nowhere = hedgerow(server, "image", "sbom", "shown", "-o", "absent/sbom.json", folder=tmp_path)
    assert (nowhere.returncode, "cannot be written" in nowhere.stderr) == (1, True)
