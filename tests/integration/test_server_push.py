"""The push half of the OCI distribution API, step by step, on a real server: what a push makes, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hedgerow.contracts.names import ARTIFACT_SBOM, MEDIA_OCI_CONFIG, MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST
from tests.oci_client import OCTETS, Image, Pusher, artifact, container, descriptor, digest_of, image_of, index, oci_code
from tests.registry_server import Api, RunningServer

MISSING = "sha256:" + "0" * 64


def record(api: Api, reference: str) -> dict[str, Any]:
    answered = api.get(f"/api/v1/images/{reference}")
    assert answered.status_code == 200, answered.text
    return dict(answered.json())


def refusal(answered: Any) -> tuple[int, str]:
    return answered.status_code, oci_code(answered)


# --- content ------------------------------------------------------------------------------------------------------------


def test_a_blob_whole_in_two_requests_and_in_one(api: Api) -> None:
    pusher = Pusher(api, "whole")
    for content in (b"", b"small", b"x" * 3_000_000):
        stored = pusher.upload(content)
        assert stored.status_code == 201, stored.text
        assert stored.headers["docker-content-digest"] == digest_of(content)
        assert api.get(stored.headers["location"]).content == content
    at_once = api.post("/v2/whole/blobs/uploads/", params={"digest": digest_of(b"at once")}, content=b"at once", headers=OCTETS)
    assert at_once.status_code == 201
    assert pusher.get(f"blobs/{digest_of(b'at once')}").content == b"at once"
    assert api.head(f"/v2/whole/blobs/{digest_of(b'small')}").headers["content-length"] == "5"
    # Nobody else's, and not to be had by its digest alone.
    assert api.get(f"/v2/other/blobs/{digest_of(b'small')}").status_code == 404


def test_a_blob_in_chunks(api: Api) -> None:
    pusher, content = Pusher(api, "chunks"), b"0123456789" * 50_000
    location = pusher.begin().headers["location"]
    assert pusher.client.get(location).headers["range"] == "0-0"
    first = pusher.chunk(location, content[:200_000], 0)
    assert (first.status_code, first.headers["range"], first.headers["location"]) == (202, "0-199999", location)
    for start in (0, 199_999, 200_001, 10**12):
        early = pusher.chunk(location, content[start : start + 10] or b"x", start)
        assert refusal(early) == (416, "BLOB_UPLOAD_INVALID")
        assert (early.headers["range"], early.headers["location"]) == ("0-199999", location)
    assert pusher.chunk(location, content[200_000:400_000]).headers["range"] == "0-399999", "without a range it goes on"
    asked = pusher.client.get(location)
    assert (asked.status_code, asked.headers["range"]) == (204, "0-399999")
    assert pusher.finish(location, content[400_000:], digest_of(content)).status_code == 201
    assert pusher.get(f"blobs/{digest_of(content)}").content == content
    for ended in (pusher.client.get(location), pusher.chunk(location, b"more"), pusher.finish(location, b"", digest_of(b""))):
        assert refusal(ended) == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("announced", ["5-4", "x", "0-", "-5", "0-4, 6-9", "0-99999999999999999999", "bytes 0-4/3/3"])
def test_a_chunk_that_says_nonsense(api: Api, announced: str) -> None:
    location = Pusher(api, "nonsense").begin().headers["location"]
    answered = api.patch(location, content=b"12345", headers=OCTETS | {"content-range": announced})
    assert refusal(answered) == (416, "BLOB_UPLOAD_INVALID")
    assert api.get(location).headers["range"] == "0-0"


def test_a_chunk_of_another_length_than_it_says(api: Api) -> None:
    pusher = Pusher(api, "lengths")
    location = pusher.begin().headers["location"]
    longer = api.patch(location, content=b"12345", headers=OCTETS | {"content-range": "0-2"})
    assert longer.status_code == 400
    assert api.get(location).headers["range"] == "0-0", "nothing of what nobody announced"
    shorter = api.patch(location, content=b"12345", headers=OCTETS | {"content-range": "0-9"})
    assert shorter.status_code == 400
    assert api.get(location).headers["range"] == "0-4", "what came before a break is kept"
    assert pusher.finish(location, b"67890", digest_of(b"1234567890")).status_code == 201


def test_a_wrong_digest_ends_an_upload_and_stores_nothing(api: Api) -> None:
    pusher = Pusher(api, "wrong")
    location = pusher.begin().headers["location"]
    assert refusal(pusher.finish(location, b"content", MISSING)) == (400, "DIGEST_INVALID")
    assert refusal(api.get(location)) == (404, "BLOB_UPLOAD_UNKNOWN")
    for digest in ("", "sha256:abc", "sha512:" + "0" * 128, "sha256:../../etc/passwd"):
        assert refusal(pusher.begin(digest=digest)) == (400, "DIGEST_INVALID")
    assert refusal(pusher.finish(pusher.begin().headers["location"], b"x", "sha512:" + "0" * 128)) == (400, "DIGEST_INVALID")
    for digest in (MISSING, digest_of(b"content")):
        assert pusher.get(f"blobs/{digest}").status_code == 404


def test_a_cancelled_upload(api: Api, server: RunningServer) -> None:
    pusher = Pusher(api, "cancelled")
    location = pusher.begin().headers["location"]
    pusher.chunk(location, b"begun", 0)
    files = server.workspace / "work" / "pushes"
    assert [path.read_bytes() for path in files.glob("cancelled@*")] == [b"begun"]
    assert api.delete(location).status_code == 204
    assert refusal(api.delete(location)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert not list(files.glob("cancelled@*"))


def test_an_upload_is_its_repositorys(api: Api) -> None:
    location = Pusher(api, "one-of-two").begin().headers["location"]
    upload = location.rpartition("/")[2]
    for address in (f"/v2/two-of-two/blobs/uploads/{upload}", "/v2/one-of-two/blobs/uploads/..%2f..%2fkeys", location + "0"):
        assert api.get(address).status_code == 404, address
        assert api.patch(address, content=b"x", headers=OCTETS).status_code == 404, address
    for name in ("..", "a%2fb", "UPPER", "a..b", ".hidden", "a@b", "%00", "-", "x" * 129):
        assert api.post(f"/v2/{name}/blobs/uploads/").status_code in (400, 404, 405), name


def test_a_blob_is_mounted_from_next_door(api: Api, server: RunningServer) -> None:
    Pusher(api, "source").upload(b"shared layer")
    digest = digest_of(b"shared layer")
    mounted = Pusher(api, "target").begin(mount=digest, **{"from": "source"})
    assert (mounted.status_code, mounted.headers["location"]) == (201, f"/v2/target/blobs/{digest}")
    assert api.get(mounted.headers["location"]).content == b"shared layer"
    unlike = ({"mount": digest}, {"mount": digest, "from": "no"}, *({"mount": one, "from": "source"} for one in (MISSING, "x")))
    for query in unlike:
        assert Pusher(api, "elsewhere").begin(**query).status_code == 202, query
    with server.client(api.token("contributor", scopes=["images:mine"])) as limited:
        assert Pusher(limited, "mine").begin(mount=digest, **{"from": "source"}).status_code == 202, "a name that it may not read"
        assert Pusher(limited, "mine").get(f"blobs/{digest}").status_code == 404


# --- manifests ----------------------------------------------------------------------------------------------------------


def test_a_push_makes_the_next_version(api: Api) -> None:
    pusher = Pusher(api, "churn")
    one, two = container(b"layer one"), container(b"layer two", labels={"hedgerow.tool.version": "9.9"})
    put = pusher.push(one, "stable")
    assert put.headers["docker-content-digest"] == one.digest
    assert pusher.client.get(put.headers["location"]).content == one.manifest
    made = record(api, "churn:1")
    assert (made["kind"], made["digest"], made["tags"]) == ("docker", one.digest, {"oci.tag": "stable"})
    assert [platform["platform"] for platform in made["platforms"]] == ["linux/amd64"]
    assert (made["models"], made["size_bytes"]) == ([], sum(map(len, [one.manifest, *one.blobs])))
    pusher.push(two, "stable")
    assert record(api, "churn")["version"] == 2
    assert record(api, "churn")["tool_version"] == "9.9"
    found = {tag: pusher.get(f"manifests/{tag}").headers["docker-content-digest"] for tag in ("1", "2", "stable", "latest")}
    assert found == {"1": one.digest, "2": two.digest, "stable": two.digest, "latest": two.digest}
    assert pusher.tags() == ["1", "2", "stable"]


def test_pushing_again_changes_nothing(api: Api) -> None:
    pusher, image = Pusher(api, "again"), container(b"layer")
    for _ in range(2):
        for tag in ("1", "stable", "latest"):
            pusher.push(image, tag)
    # "1" was the first; "stable" is a name of its own; "latest" is the newest, which holds it.
    assert pusher.tags() == ["1", "2", "stable"]
    kinds = [event["kind"] for event in api.get("/api/v1/events", params={"subject": "image/again:2"}).json()["items"]]
    assert kinds == ["image.pushed"]


def test_a_tag_moves_back(api: Api) -> None:
    pusher, old, new = Pusher(api, "moving"), container(b"old"), container(b"new")
    for image in (old, new, old):
        pusher.push(image, "prod")
    assert pusher.get("manifests/prod").headers["docker-content-digest"] == old.digest
    assert record(api, "moving")["version"] == 3


def test_a_number_is_that_version_or_none(api: Api) -> None:
    pusher, image = Pusher(api, "numbers"), container(b"layer")
    for content in image.blobs:
        pusher.upload(content)
    assert refusal(pusher.manifest(image, "2")) == (409, "MANIFEST_INVALID")
    assert api.get("/api/v1/images/numbers").status_code == 404, "what was refused reserves nothing"
    pusher.push(image, "1")
    other = container(b"other")
    for content in other.blobs:
        pusher.upload(content)
    assert refusal(pusher.manifest(other, "1")) == (409, "MANIFEST_INVALID")
    assert api.delete("/api/v1/images/numbers:1").status_code == 204
    assert refusal(pusher.manifest(image, "1")) == (409, "MANIFEST_INVALID"), "a deleted number is never given again"
    assert pusher.manifest(image, "2").status_code == 201


def test_an_index_of_platforms(api: Api) -> None:
    pusher = Pusher(api, "platforms")
    amd64, arm64 = container(b"for amd64"), container(b"for arm64", architecture="arm64")
    both = index(amd64, arm64)
    assert refusal(pusher.manifest(both, "1")) == (400, "MANIFEST_BLOB_UNKNOWN")
    pusher.push(amd64)
    pusher.push(arm64)
    # A manifest without a tag is there, and is no image yet.
    assert pusher.get(f"manifests/{arm64.digest}").headers["content-type"] == MEDIA_OCI_MANIFEST
    assert api.get("/api/v1/images/platforms").status_code == 404
    assert pusher.get("tags/list").status_code == 404
    pusher.push(both, "1")
    made = record(api, "platforms:1")
    assert (made["media_type"], made["kind"]) == (MEDIA_OCI_INDEX, "docker")
    assert [(one["platform"], one["digest"]) for one in made["platforms"]] == [
        ("linux/amd64", amd64.digest),
        ("linux/arm64", arm64.digest),
    ]


def test_a_manifest_that_names_what_is_not_there(api: Api) -> None:
    pusher, image = Pusher(api, "lacking"), container(b"a layer that nobody pushed")
    pusher.upload(image.blobs[0])
    refused = pusher.manifest(image, "1")
    assert refusal(refused) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert digest_of(image.blobs[1]) in refused.text
    # Content of another repository, or of models, is nobody's to name.
    api.upload(image.blobs[1])
    Pusher(api, "having").upload(image.blobs[1])
    assert refusal(pusher.manifest(image, "1")) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert refusal(pusher.manifest(image)) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert pusher.get("tags/list").status_code == 404


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (b"not json", "MANIFEST_INVALID"),
        (b"[]", "MANIFEST_INVALID"),
        (b"\xff\xfe", "MANIFEST_INVALID"),
        (b'{"a":' * 100_000, "MANIFEST_INVALID"),
        (b'{"artifactType":"\\ud800"}', "MANIFEST_INVALID"),
        ({"schemaVersion": 1}, "MANIFEST_INVALID"),
        ({"schemaVersion": 10**40}, "MANIFEST_INVALID"),
        ({"mediaType": MEDIA_OCI_INDEX}, "MANIFEST_INVALID"),
        ({"manifests": []}, "MANIFEST_INVALID"),
        ({"config": None}, "MANIFEST_INVALID"),
        ({"layers": None}, "MANIFEST_INVALID"),
        ({"artifactType": "a\0b"}, "MANIFEST_INVALID"),
        ({"config": descriptor(b"{}", "x" * 256)}, "MANIFEST_INVALID"),
        ({"config": {"mediaType": "x", "digest": "sha256:abc", "size": 1}}, "DIGEST_INVALID"),
        ({"layers": [{"mediaType": "x", "digest": MISSING, "size": -1}]}, "MANIFEST_INVALID"),
        ({"layers": [{"mediaType": "x", "digest": MISSING, "size": 1}] * 5001}, "MANIFEST_INVALID"),
        ({"config": descriptor(b"{}", "application/vnd.cncf.helm.config.v1+json")}, "MANIFEST_INVALID"),
        ({"config": descriptor(b"{}", "application/vnd.oci.image.config.v1+json") | {"size": 3}}, "MANIFEST_INVALID"),
        ({"config": descriptor(b"{}", "application/vnd.oci.image.config.v1+json") | {"size": 10**30}}, "MANIFEST_INVALID"),
        ({"subject": descriptor(b"other", MEDIA_OCI_MANIFEST)}, "MANIFEST_INVALID"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_no_manifest(api: Api, change: Any, code: str) -> None:
    pusher, image = Pusher(api, "broken"), container(b"layer")
    for content in (*image.blobs, b"{}"):
        pusher.upload(content)
    data = change if isinstance(change, bytes) else json.dumps(json.loads(image.manifest) | change).encode()
    assert refusal(pusher.manifest(Image(data), "1")) == (400, code)
    assert pusher.get("tags/list").status_code == 404


@pytest.mark.parametrize(
    "config",
    [
        b'{"architecture": "a\\u0000", "os": "linux"}',
        b'{"architecture": "\\u001b[2J", "os": "linux"}',
        b'{"config": {"Labels": {"org.opencontainers.image.base.name": "\\u001b[2J"}}}',
        b'{"config": ' * 50_000 + b"{}" + b"}" * 50_000,
        b'{"architecture": "\\ud800"}',
        b'{"architecture": 1e999}',
    ],
    ids=lambda config: config[:40].decode(),
)
def test_a_config_that_cannot_be_read_or_shown(api: Api, config: bytes) -> None:
    pusher, image = Pusher(api, "odd"), image_of(config, MEDIA_OCI_CONFIG, [b"layer"])
    for content in image.blobs:
        pusher.upload(content)
    assert refusal(pusher.manifest(image, "1")) == (400, "MANIFEST_INVALID")
    assert pusher.get("tags/list").status_code == 404


def test_a_platform_that_would_write_to_a_terminal(api: Api) -> None:
    pusher, image = Pusher(api, "escapes"), container(b"layer")
    pusher.push(image)
    body = {"schemaVersion": 2, "mediaType": MEDIA_OCI_INDEX}
    named = descriptor(image.manifest, image.media_type, platform={"os": "linux", "architecture": "\x1b]0;mine\x07"})
    both = Image(json.dumps(body | {"manifests": [named]}).encode(), [], MEDIA_OCI_INDEX)
    assert refusal(pusher.manifest(both, "2")) == (400, "MANIFEST_INVALID")


def test_a_manifest_under_a_wrong_address(api: Api) -> None:
    pusher, image = Pusher(api, "addresses"), container(b"layer")
    for content in image.blobs:
        pusher.upload(content)
    assert refusal(pusher.manifest(image, MISSING)) == (400, "DIGEST_INVALID")
    for tag in ("-x", "a" * 129, "a b", "%2e%2e", "a+b"):
        assert refusal(pusher.manifest(image, tag)) == (400, "MANIFEST_INVALID"), tag
    for media_type in ("application/json", "text/plain", "application/vnd.docker.distribution.manifest.v1+json"):
        assert pusher.manifest(image, "1", media_type).status_code in (400, 415), media_type
    large = Image(b" " * (4 * 1024 * 1024) + image.manifest)
    assert refusal(pusher.manifest(large, "1")) == (413, "SIZE_INVALID")
    for method, path in (("DELETE", f"manifests/{image.digest}"), ("DELETE", f"blobs/{digest_of(b'layer')}")):
        assert refusal(api.request(method, f"/v2/addresses/{path}")) == (405, "UNSUPPORTED")
    assert refusal(api.post("/v2/models/addresses/blobs/uploads/"))[0] in (404, 405)


# --- referrers ----------------------------------------------------------------------------------------------------------


def referrers(pusher: Pusher, subject: Image, **query: str) -> list[dict[str, Any]]:
    answered = pusher.client.get(f"/v2/{pusher.name}/referrers/{subject.digest}", params=query)
    assert answered.status_code == 200, answered.text
    assert answered.headers["content-type"] == MEDIA_OCI_INDEX
    assert ("artifactType" if query else None) == answered.headers.get("oci-filters-applied")
    return list(answered.json()["manifests"])


def test_what_lies_beside_an_image(api: Api) -> None:
    pusher, image = Pusher(api, "beside"), container(b"layer of an image")
    early = artifact(image, b"sbom", ARTIFACT_SBOM, author="me")
    late = artifact(image, b"signature", "application/vnd.example.signature")
    assert pusher.push(early).headers["oci-subject"] == image.digest
    assert [one["digest"] for one in referrers(pusher, image)] == [early.digest], "in either order"
    pusher.push(image, "1")
    assert pusher.push(late).headers["oci-subject"] == image.digest
    pusher.push(late)
    listed = {one["digest"]: one for one in referrers(pusher, image)}
    assert listed == {
        early.digest: descriptor(early.manifest, MEDIA_OCI_MANIFEST, artifactType=ARTIFACT_SBOM, annotations={"author": "me"}),
        late.digest: descriptor(late.manifest, MEDIA_OCI_MANIFEST, artifactType="application/vnd.example.signature"),
    }
    assert [one["digest"] for one in referrers(pusher, image, artifactType=ARTIFACT_SBOM)] == [early.digest]
    assert pusher.get(f"blobs/{digest_of(b'sbom')}").content == b"sbom"
    assert pusher.get(f"manifests/{late.digest}").content == late.manifest
    # What refers to what lies beside it, and the same content as another version.
    proof = artifact(early, b"proof of the sbom", "application/vnd.example.proof")
    pusher.push(proof)
    pusher.push(image, "again")
    assert api.delete("/api/v1/images/beside:1").status_code == 204
    assert {one["digest"] for one in referrers(pusher, image)} == {early.digest, late.digest}
    assert [one["digest"] for one in referrers(pusher, early)] == [proof.digest]
    assert referrers(Pusher(api, "elsewhere"), image) == []
    assert pusher.tags() == ["2", "again"]


def test_an_artifact_type_that_is_its_configs(api: Api) -> None:
    pusher, image = Pusher(api, "config-typed"), container(b"layer")
    pusher.push(image, "1")
    beside = container(b"note", subject=descriptor(image.manifest, MEDIA_OCI_MANIFEST))
    pusher.push(beside)
    assert [one["artifactType"] for one in referrers(pusher, image)] == ["application/vnd.oci.image.config.v1+json"]


def test_what_would_fill_the_list_of_referrers(api: Api) -> None:
    pusher, image = Pusher(api, "wordy"), container(b"layer")
    pusher.push(image, "1")
    wordy = artifact(image, b"{}", ARTIFACT_SBOM, words="x" * 20_000)
    for content in wordy.blobs:
        pusher.upload(content)
    refused = pusher.manifest(wordy)
    assert refusal(refused) == (400, "MANIFEST_INVALID")
    assert "annotations" in refused.text
    # Of an image they are its own business.
    pusher.push(container(b"layer", annotations={"words": "x" * 20_000}), "2")


def test_an_index_of_manifests_that_would_fill_the_memory(api: Api) -> None:
    pusher = Pusher(api, "vast")
    images = [container(b"layer", annotations={"words": str(number) * 3_900_000}) for number in range(9)]
    for image in images:
        pusher.push(image)
    named = [descriptor(one.manifest, one.media_type) for one in images]
    body = {"schemaVersion": 2, "mediaType": MEDIA_OCI_INDEX, "manifests": named}
    refused = pusher.manifest(Image(json.dumps(body).encode(), [], MEDIA_OCI_INDEX), "1")
    assert refusal(refused) == (400, "MANIFEST_INVALID")
    assert "bytes together" in refused.text
