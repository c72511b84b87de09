"""A container tool in a few lines, for the push half of ``/v2/``: documents, uploads, tags."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx

from hedgerow.contracts.names import MEDIA_OCI_CONFIG, MEDIA_OCI_EMPTY, MEDIA_OCI_INDEX, MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_MANIFEST

OCTETS = {"content-type": "application/octet-stream"}


def digest_of(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def descriptor(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


@dataclass
class Image:
    """A manifest with what it names: a config and layers."""

    manifest: bytes
    blobs: list[bytes] = field(default_factory=list)
    media_type: str = MEDIA_OCI_MANIFEST

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


def container(*layers: bytes, labels: dict[str, str] | None = None, architecture: str = "amd64", **more: Any) -> Image:
    """``more`` goes into the manifest."""
    config = {"architecture": architecture, "os": "linux", "config": {"Labels": labels or {}}}
    body = json.dumps(config | {"rootfs": {"type": "layers", "diff_ids": [digest_of(one) for one in layers]}}).encode()
    return image_of(body, MEDIA_OCI_CONFIG, layers, **more)


def artifact(subject: Image, content: bytes, artifact_type: str, **annotations: str) -> Image:
    """What lies beside ``subject``."""
    about = descriptor(subject.manifest, subject.media_type)
    more = {"artifactType": artifact_type, "subject": about} | ({"annotations": annotations} if annotations else {})
    return image_of(b"{}", MEDIA_OCI_EMPTY, [content], **more)


def index(*images: Image) -> Image:
    """Of platforms amd64, arm64, in that order."""
    platforms = [{"os": "linux", "architecture": name} for name in ("amd64", "arm64", "s390x")]
    named = [descriptor(one.manifest, one.media_type, platform=there) for one, there in zip(images, platforms, strict=False)]
    body = {"schemaVersion": 2, "mediaType": MEDIA_OCI_INDEX, "manifests": named}
    return Image(json.dumps(body).encode(), [], MEDIA_OCI_INDEX)


def image_of(config: bytes, config_type: str, layers: Any, **more: Any) -> Image:
    """A manifest over any config; ``more`` goes into it."""
    body = {
        "schemaVersion": 2,
        "mediaType": MEDIA_OCI_MANIFEST,
        "config": descriptor(config, config_type),
        "layers": [descriptor(layer, MEDIA_OCI_LAYER_GZIP) for layer in layers],
    }
    return Image(json.dumps(body | more).encode(), [config, *layers])


class Pusher:
    """Pushes into one repository."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self.client, self.name = client, name

    def begin(self, **query: str) -> httpx.Response:
        return self.client.post(f"/v2/{self.name}/blobs/uploads/", params=query)

    def upload(self, content: bytes) -> httpx.Response:
        """In two requests, as most tools do."""
        begun = self.begin()
        assert begun.status_code == 202, begun.text
        return self.finish(begun.headers["location"], content, digest_of(content))

    def finish(self, location: str, content: bytes, digest: str) -> httpx.Response:
        return self.client.put(location, params={"digest": digest}, content=content, headers=OCTETS)

    def chunk(self, location: str, content: bytes, start: int | None = None) -> httpx.Response:
        chunk = {} if start is None else {"content-range": f"{start}-{start + len(content) - 1}"}
        return self.client.patch(location, content=content, headers=OCTETS | chunk)

    def manifest(self, image: Image, reference: str | None = None, media_type: str | None = None) -> httpx.Response:
        headers = {"content-type": media_type or image.media_type}
        address = f"/v2/{self.name}/manifests/{reference or image.digest}"
        return self.client.put(address, content=image.manifest, headers=headers)

    def push(self, image: Image, reference: str | None = None) -> httpx.Response:
        """Content first, then the manifest, which must be taken."""
        for content in image.blobs:
            stored = self.upload(content)
            assert stored.status_code == 201, stored.text
        put = self.manifest(image, reference)
        assert put.status_code == 201, put.text
        return put

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(f"/v2/{self.name}/{path}", headers=headers)

    def tags(self) -> list[str]:
        return list(self.get("tags/list").json()["tags"])


def oci_code(answered: httpx.Response) -> str:
    """The code of an error, after checking that it has the shape that the specification prescribes."""
    body = answered.json()
    assert body.keys() == {"errors"}, answered.text
    return str(body["errors"][0]["code"])
