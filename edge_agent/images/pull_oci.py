"""Pulls images by digest through the OCI distribution API, without Docker: manifest, layers, verified, resumed, unpacked.

Nothing is trusted but the digest in the signed desired state: the manifest must hash to it, and every blob to the digest
in the manifest. A blob in part stays in ``downloads/`` and is continued with a range request.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from edge_agent.errors import ImageRefused, PullFailed
from edge_agent.images.image_store import ImageStore, Layer, Packing
from edge_agent.registry_http import connection_to, refusal, words_of
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.names import MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST
from hedgerow.contracts.oci import Descriptor, ImageDocument, Platform, read_image_document
from hedgerow.contracts.platforms import of_machine
from hedgerow.contracts.service import ImagePin

MANIFEST_BYTES_MAX = 4 << 20
READ_BYTES = 1 << 18
Progress = Callable[[str], None]


class OciImages:
    """The workspace's registry as an image source for process modules. ``token`` None: that of device.toml."""

    def __init__(self, config: DeviceConfig, store: ImageStore, token: Callable[[], str] | None = None) -> None:
        self._config = config
        self._token = token or (lambda: config.pull_token)
        self._store = store
        self._url = urlsplit(config.registry_url)

    def present(self, image: ImagePin) -> bool:
        return self._store.has(image)

    def pull(self, image: ImagePin, progress: Progress) -> None:
        progress("its manifest is being fetched")
        try:
            layers = self._layers(image)
            self._store.claim(image, [layer.digest for layer in layers])
            fetched = [self._fetch_layer(image, layer, progress) for layer in layers]
            progress("it is being unpacked")
            self._store.unpack(image, fetched)
        except (OSError, http.client.HTTPException) as problem:
            raise self._failed(image, words_of(problem)) from problem
        for layer in fetched:
            layer.path.unlink(missing_ok=True)

    def _layers(self, image: ImagePin) -> list[Descriptor]:
        manifest = self._manifest(image, image.digest)
        if manifest.media_type == MEDIA_OCI_INDEX or manifest.manifests is not None:
            manifest = self._manifest(image, choose_platform(image, manifest))
        if manifest.layers is None:
            raise ImageRefused(image=image.digest, problem="its manifest names no layers")
        return manifest.layers

    def _manifest(self, image: ImagePin, digest: str) -> ImageDocument:
        accept = f"{MEDIA_OCI_MANIFEST}, {MEDIA_OCI_INDEX}"
        with self._get(image, f"manifests/{digest}", {"Accept": accept}) as answer:
            body = answer.read(MANIFEST_BYTES_MAX + 1)
        if digest_of(body) != digest:
            raise ImageRefused(image=image.digest, problem=f"its manifest hashes to {digest_of(body)}, not to {digest}")
        try:
            return read_image_document(body)
        except ValueError as problem:
            raise ImageRefused(image=image.digest, problem=f"its manifest cannot be read: {problem}") from problem

    def _fetch_layer(self, image: ImagePin, layer: Descriptor, progress: Progress) -> Layer:
        digest, size = layer.digest, layer.size
        path = self._store.downloads() / digest.replace(":", "-")
        blob = _Blob(path, digest, size)
        if blob.size_here() < size:
            self._continue(image, blob, progress)
        found = blob.digest_here()
        if found != digest:
            path.unlink(missing_ok=True)
            raise ImageRefused(image=image.digest, problem=f"a layer hashes to {found}, not to {digest}")
        return Layer(path, _packing(layer.media_type))

    def _continue(self, image: ImagePin, blob: _Blob, progress: Progress) -> None:
        have = blob.size_here()
        if shutil.disk_usage(blob.path.parent).free < blob.size - have:
            raise self._failed(image, f"the disk has no room for {blob.size - have} bytes")
        headers = {"Range": f"bytes={have}-{blob.size - 1}"} if have else {}
        with self._get(image, f"blobs/{blob.digest}", headers) as answer:
            # A server that knows no ranges answers 200 with all of it.
            self._receive(image, blob, answer, "ab" if answer.status == http.HTTPStatus.PARTIAL_CONTENT else "wb", progress)
        if blob.size_here() < blob.size:
            raise self._failed(image, f"the connection ended after {blob.size_here()} of {blob.size} bytes")

    def _receive(
        self, image: ImagePin, blob: _Blob, answer: http.client.HTTPResponse, mode: Literal["ab", "wb"], progress: Progress
    ) -> None:
        with blob.path.open(mode) as file:
            while chunk := answer.read(READ_BYTES):
                file.write(chunk)
                if file.tell() > blob.size:
                    raise self._failed(image, f"the registry sent more than the {blob.size} bytes of {blob.digest}")
                progress(f"{file.tell() * 100 // max(1, blob.size)} % of {blob.size} bytes are here")

    @contextmanager
    def _get(self, image: ImagePin, rest: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        connection = connection_to(self._url)
        path = f"{self._url.path.rstrip('/')}/v2/{image.name}/{rest}"
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token()}", **headers})
            with connection.getresponse() as answer:
                if answer.status not in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
                    raise self._failed(image, f"{path}: {refusal(answer)}")
                yield answer
        finally:
            connection.close()

    def _failed(self, image: ImagePin, problem: str) -> PullFailed:
        return PullFailed(image=f"{image.name}:{image.version}", registry=self._config.registry_url, problem=problem)


class _Blob:
    """A blob in ``downloads/``, whole or in part."""

    def __init__(self, path: Path, digest: str, size: int) -> None:
        self.path = path
        self.digest = digest
        self.size = size

    def size_here(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def digest_here(self) -> str:
        with self.path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def choose_platform(image: ImagePin, index: ImageDocument, machine: str = "") -> str:
    """Digest of the manifest for this machine (or for any machine) in an image index."""
    machine = machine or os.uname().machine
    architecture = Platform.parse(of_machine(machine) or f"linux/{machine}").architecture
    for entry in index.manifests or []:
        found = entry.platform.architecture if entry.platform else ""
        if found in (architecture, "any", ""):
            return entry.digest
    raise ImageRefused(image=image.digest, problem=f"it has no variant for {architecture}")


def _packing(media_type: str) -> Packing:
    return "gz" if media_type.endswith("+gzip") else ""
