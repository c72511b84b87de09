"""What the OCI distribution specification (1.1) promises a client, as checks that drive any registry over plain HTTP.

Each check takes a :class:`Remote` and fails with an assertion. ``CHECKS`` hold for every registry; ``OPTIONAL_CHECKS`` for one
that has what the specification leaves open: pages of tags, lists of referrers. `end-N` are the specification's endpoints.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from hedgerow.contracts.names import MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST
from tests.oci_client import OCTETS, Image, artifact, container, digest_of, index, oci_code

# fmt: off
_CODES = frozenset({
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID",
    "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
})
# fmt: on
_ACCEPT = {"accept": f"{MEDIA_OCI_INDEX}, {MEDIA_OCI_MANIFEST}"}


@dataclass
class Remote:
    """``client`` has the registry's address and who asks. Every check works in repositories of its own."""

    client: httpx.Client
    name: str
    _count: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def other(self) -> str:
        return f"{self.name}-other"

    def fresh(self, size: int = 1000) -> bytes:
        """Content that nobody has yet."""
        return random.Random(f"{self.name} {next(self._count)}").randbytes(size)

    def at(self, path: str, name: str | None = None) -> str:
        return f"/v2/{name or self.name}/{path}"

    def begin(self, name: str | None = None) -> str:
        """An upload; its address (end-4a)."""
        begun = self.client.post(self.at("blobs/uploads/", name))
        assert begun.status_code == 202, begun.text
        return begun.headers["location"]

    def chunk(self, location: str, content: bytes, start: int) -> httpx.Response:
        headers = OCTETS | {"content-range": f"{start}-{start + len(content) - 1}"}
        return self.client.patch(location, content=content, headers=headers)

    def finish(self, location: str, digest: str, content: bytes = b"") -> httpx.Response:
        """An address may have a query of its own, which stays."""
        return self.client.put(httpx.URL(location).copy_merge_params({"digest": digest}), content=content, headers=OCTETS)

    def upload(self, content: bytes, name: str | None = None) -> None:
        done = self.finish(self.begin(name), digest_of(content), content)
        assert done.status_code == 201, done.text

    def put(self, image: Image, reference: str) -> httpx.Response:
        headers = {"content-type": image.media_type}
        return self.client.put(self.at(f"manifests/{reference}"), content=image.manifest, headers=headers)

    def push(self, image: Image, *references: str) -> httpx.Response:
        for content in image.blobs:
            self.upload(content)
        for reference in references:
            done = self.put(image, reference)
            assert done.status_code == 201, done.text
        return done


def refused(answered: httpx.Response, status: int | set[int], *codes: str) -> None:
    """An error in the form of the specification, with one of ``codes``."""
    assert answered.status_code in ({status} if isinstance(status, int) else status), answered.text
    found = oci_code(answered)
    assert found in _CODES, found
    assert not codes or found in codes, (found, codes)


def base_is_there(remote: Remote) -> None:
    """end-1."""
    assert remote.client.get("/v2/").status_code == 200


def blob_monolithic(remote: Remote) -> None:
    """end-4a, end-6; end-2 with GET and HEAD."""
    content = remote.fresh()
    done = remote.finish(remote.begin(), digest_of(content), content)
    assert (done.status_code, done.headers.get("docker-content-digest")) == (201, digest_of(content))
    for address in (remote.at(f"blobs/{digest_of(content)}"), done.headers["location"]):
        got, head = remote.client.get(address), remote.client.head(address)
        assert (got.status_code, got.content) == (200, content)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(content)))
        assert got.headers["docker-content-digest"] == head.headers["docker-content-digest"] == digest_of(content)


def blob_in_one_request(remote: Remote) -> None:
    """end-4b: 201, or an upload that was begun instead."""
    content = remote.fresh()
    done = remote.client.post(remote.at("blobs/uploads/"), params={"digest": digest_of(content)}, content=content, headers=OCTETS)
    assert done.status_code in (201, 202), done.text
    if done.status_code == 202:
        done = remote.finish(done.headers["location"], digest_of(content), content)
    assert done.status_code == 201, done.text
    assert remote.client.get(remote.at(f"blobs/{digest_of(content)}")).content == content


def blob_in_chunks(remote: Remote) -> None:
    """end-5, end-13, and end-6 with the last chunk."""
    content, location = remote.fresh(3000), remote.begin()
    for start in (0, 1000):
        done = remote.chunk(location, content[start : start + 1000], start)
        assert (done.status_code, done.headers["range"]) == (202, f"0-{start + 999}"), done.text
        location = done.headers["location"]
        shown = remote.client.get(location)
        assert (shown.status_code, shown.headers["range"]) == (204, f"0-{start + 999}"), shown.text
        location = shown.headers["location"]
    headers = OCTETS | {"content-range": "2000-2999"}
    address = httpx.URL(location).copy_merge_params({"digest": digest_of(content)})
    done = remote.client.put(address, content=content[2000:], headers=headers)
    assert done.status_code == 201, done.text
    assert remote.client.get(done.headers["location"]).content == content


def chunks_out_of_order(remote: Remote) -> None:
    """416, and the upload can go on."""
    content, location = remote.fresh(2000), remote.begin()
    assert remote.chunk(location, content[1000:], 1000).status_code == 416
    first = remote.chunk(location, content[:1000], 0)
    assert first.status_code == 202, first.text
    location = first.headers["location"]
    assert remote.chunk(location, content[:1000], 0).status_code == 416
    second = remote.chunk(location, content[1000:], 1000)
    assert second.status_code == 202, second.text
    assert remote.finish(second.headers["location"], digest_of(content)).status_code == 201


def blob_streamed(remote: Remote) -> None:
    """A PATCH without Content-Range, chunked by the transport."""
    content, location = remote.fresh(2000), remote.begin()
    done = remote.client.patch(location, content=iter((content[:700], content[700:])), headers=OCTETS)
    assert done.status_code == 202, done.text
    assert remote.finish(done.headers["location"], digest_of(content)).status_code == 201


def upload_cancelled(remote: Remote) -> None:
    """DELETE of an upload."""
    location = remote.begin()
    assert remote.client.delete(location).status_code in (202, 204)
    refused(remote.client.get(location), 404, "BLOB_UPLOAD_UNKNOWN")


def blob_digest_mismatch(remote: Remote) -> None:
    content, another = remote.fresh(), remote.fresh()
    refused(remote.finish(remote.begin(), digest_of(another), content), 400, "DIGEST_INVALID")
    for digest in (digest_of(content), digest_of(another)):
        refused(remote.client.get(remote.at(f"blobs/{digest}")), 404, "BLOB_UNKNOWN")
    refused(remote.finish(remote.begin(), "sha256:nonsense", content), 400, "DIGEST_INVALID")


def blob_missing(remote: Remote) -> None:
    remote.upload(remote.fresh())
    missing = remote.at(f"blobs/{digest_of(remote.fresh())}")
    refused(remote.client.get(missing), 404, "BLOB_UNKNOWN")
    assert remote.client.head(missing).status_code == 404


def blob_ranges(remote: Remote) -> None:
    content = remote.fresh(1000)
    remote.upload(content)
    address = remote.at(f"blobs/{digest_of(content)}")
    for asked, first, last in (
        ("bytes=100-199", 100, 199),
        ("bytes=900-", 900, 999),
        ("bytes=-10", 990, 999),
        ("bytes=990-5000", 990, 999),
    ):
        part = remote.client.get(address, headers={"range": asked})
        assert (part.status_code, part.content) == (206, content[first : last + 1]), asked
        assert part.headers["content-range"] == f"bytes {first}-{last}/1000"
    assert remote.client.get(address, headers={"range": "bytes=1000-"}).status_code == 416


def blob_mounted(remote: Remote) -> None:
    """end-11: 201, or an upload that was begun; what is not there is never mounted."""
    content = remote.fresh()
    remote.upload(content, remote.other)
    asked = {"mount": digest_of(content), "from": remote.other}
    done = remote.client.post(remote.at("blobs/uploads/"), params=asked)
    assert done.status_code in (201, 202), done.text
    assert done.headers["location"]
    if done.status_code == 201:
        assert remote.client.get(remote.at(f"blobs/{digest_of(content)}")).content == content
    missing = {"mount": digest_of(remote.fresh()), "from": remote.other}
    assert remote.client.post(remote.at("blobs/uploads/"), params=missing).status_code == 202


def manifest_by_tag_and_digest(remote: Remote) -> None:
    """end-7, end-3 with GET and HEAD."""
    image = container(remote.fresh())
    done = remote.push(image, image.digest, "v1.0_x-Y")
    assert done.headers["docker-content-digest"] == image.digest
    for address in (remote.at("manifests/v1.0_x-Y"), remote.at(f"manifests/{image.digest}"), done.headers["location"]):
        got, head = remote.client.get(address, headers=_ACCEPT), remote.client.head(address, headers=_ACCEPT)
        assert (got.status_code, got.content, got.headers["content-type"]) == (200, image.manifest, image.media_type)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(image.manifest)))
        assert got.headers["docker-content-digest"] == head.headers["docker-content-digest"] == image.digest


def manifest_missing(remote: Remote) -> None:
    remote.push(container(remote.fresh()), "there")
    for reference in ("missing", digest_of(b"missing")):
        refused(remote.client.get(remote.at(f"manifests/{reference}"), headers=_ACCEPT), 404, "MANIFEST_UNKNOWN")
        assert remote.client.head(remote.at(f"manifests/{reference}"), headers=_ACCEPT).status_code == 404


def manifest_of_missing_blobs(remote: Remote) -> None:
    """Refused, with a layer and with a config that are not there."""
    image = container(remote.fresh())
    remote.upload(image.blobs[0])
    refused(remote.put(image, "half"), {400, 404}, "MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN")
    refused(remote.client.get(remote.at("manifests/half"), headers=_ACCEPT), 404)


def manifest_digest_mismatch(remote: Remote) -> None:
    image = container(remote.fresh())
    remote.push(image, "v1")
    refused(remote.put(image, digest_of(b"another")), 400, "DIGEST_INVALID")


def manifest_that_is_none(remote: Remote) -> None:
    remote.push(container(remote.fresh()), "v1")
    for body in (b"", b"{", b"[]", b'{"schemaVersion": 2}'):
        refused(remote.put(Image(body, []), "none"), 400, "MANIFEST_INVALID", "DIGEST_INVALID")


def tag_grammar(remote: Remote) -> None:
    """[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}."""
    image = container(remote.fresh())
    remote.push(image, "_", "a" * 128)
    for tag in (".dot", "-dash", "a" * 129, "a+b"):
        assert remote.put(image, tag).status_code in (400, 404), tag


def index_of_platforms(remote: Remote) -> None:
    one, two = container(remote.fresh()), container(remote.fresh(), architecture="arm64")
    both = index(one, two)
    refused(remote.put(both, "early"), {400, 404})
    for image in (one, two):
        remote.push(image, image.digest)
    remote.push(both, "both")
    got = remote.client.get(remote.at("manifests/both"), headers=_ACCEPT)
    assert (got.content, got.headers["content-type"]) == (both.manifest, MEDIA_OCI_INDEX)


def tags_listed(remote: Remote) -> None:
    """end-8a, in lexical order."""
    image = container(remote.fresh())
    remote.push(image, *(f"t{number}" for number in (2, 0, 1)))
    listed = remote.client.get(remote.at("tags/list"))
    assert (listed.status_code, listed.json()["name"]) == (200, remote.name)
    tags = listed.json()["tags"]
    assert tags == sorted(tags)
    assert {"t0", "t1", "t2"} <= set(tags)
    refused(remote.client.get(remote.at("tags/list", f"{remote.name}-missing")), 404, "NAME_UNKNOWN")


def names_that_are_none(remote: Remote) -> None:
    for name in ("UPPER", "-dash", "a..b"):
        assert remote.client.post(remote.at("blobs/uploads/", name)).status_code in (400, 404), name


def deletes(remote: Remote) -> None:
    """end-9, end-10: done (202, and gone), or not offered (405)."""
    image = container(remote.fresh())
    remote.push(image, "v1")
    for path in (f"manifests/{image.digest}", f"blobs/{digest_of(image.blobs[0])}"):
        done = remote.client.delete(remote.at(path))
        if done.status_code == 405:
            refused(done, 405, "UNSUPPORTED")
            assert remote.client.get(remote.at(path), headers=_ACCEPT).status_code == 200
        else:
            assert done.status_code == 202, done.text
            assert remote.client.get(remote.at(path), headers=_ACCEPT).status_code == 404


def tags_in_pages(remote: Remote) -> None:
    """end-8b."""
    remote.push(container(remote.fresh()), *(f"t{number}" for number in range(4)))
    every = remote.client.get(remote.at("tags/list")).json()["tags"]
    assert remote.client.get(remote.at("tags/list"), params={"n": 0}).json()["tags"] == []
    assert remote.client.get(remote.at("tags/list"), params={"last": every[1]}).json()["tags"] == every[2:]
    seen, answered = list[str](), remote.client.get(remote.at("tags/list"), params={"n": 2})
    while True:
        page = answered.json()["tags"]
        assert len(page) <= 2
        seen += page
        if "next" not in answered.links:
            break
        answered = remote.client.get(answered.links["next"]["url"])
    assert seen == every


def referrers_listed(remote: Remote) -> None:
    """end-12a, end-12b, and OCI-Subject; also of what is not there yet."""
    image = container(remote.fresh())
    sbom, notes = (artifact(image, remote.fresh(), f"application/vnd.example.{kind}", about=kind) for kind in ("sbom", "notes"))
    empty = remote.client.get(remote.at(f"referrers/{image.digest}"))
    assert (empty.status_code, empty.headers["content-type"], empty.json()["manifests"]) == (200, MEDIA_OCI_INDEX, [])
    early = remote.push(sbom, sbom.digest)
    assert early.headers["oci-subject"] == image.digest
    remote.push(image, "v1")
    remote.push(notes, notes.digest)
    listed = remote.client.get(remote.at(f"referrers/{image.digest}"))
    assert listed.headers["content-type"] == MEDIA_OCI_INDEX
    assert "oci-filters-applied" not in listed.headers
    found = {one["digest"]: one for one in listed.json()["manifests"]}
    assert found.keys() == {sbom.digest, notes.digest}
    assert found[sbom.digest] == {
        "mediaType": MEDIA_OCI_MANIFEST,
        "digest": sbom.digest,
        "size": len(sbom.manifest),
        "artifactType": "application/vnd.example.sbom",
        "annotations": {"about": "sbom"},
    }
    asked = {"artifactType": "application/vnd.example.notes"}
    filtered = remote.client.get(remote.at(f"referrers/{image.digest}"), params=asked)
    assert filtered.headers["oci-filters-applied"] == "artifactType"
    assert [one["digest"] for one in filtered.json()["manifests"]] == [notes.digest]
    refused(remote.client.get(remote.at("referrers/nonsense")), {400, 404})


Check = Callable[[Remote], None]
CHECKS: tuple[Check, ...] = (
    base_is_there,
    blob_monolithic,
    blob_in_one_request,
    blob_in_chunks,
    chunks_out_of_order,
    blob_streamed,
    upload_cancelled,
    blob_digest_mismatch,
    blob_missing,
    blob_ranges,
    blob_mounted,
    manifest_by_tag_and_digest,
    manifest_missing,
    manifest_of_missing_blobs,
    manifest_digest_mismatch,
    manifest_that_is_none,
    tag_grammar,
    index_of_platforms,
    tags_listed,
    names_that_are_none,
    deletes,
)
OPTIONAL_CHECKS: tuple[Check, ...] = (tags_in_pages, referrers_listed)
