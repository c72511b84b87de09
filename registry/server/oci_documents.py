"""The documents of a push, read with care: manifests, indexes and configs that somebody else wrote. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

import msgspec

from hedgerow.contracts.image import ANY_PLATFORM, ImageKind, Referrer
from hedgerow.contracts.names import (
    CONTAINER_CONFIG_TYPES,
    INDEX_TYPES,
    LABEL_IMAGE_KIND,
    MANIFEST_TYPES,
    MEDIA_MODEL_CONFIG,
    MEDIA_MODEL_MANIFEST,
    is_digest,
)
from hedgerow.contracts.oci import ImageDocument, Platform, read_foreign_json
from registry.server.errors import DigestRefused, PushedManifestInvalid

T = TypeVar("T")
DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
LABEL_BASE_NAME = "org.opencontainers.image.base.name"
# Far beyond what anything real names; each is looked up.
_DESCRIPTORS_MOST = 5000
_TYPE_LENGTH_MAX = 255
# Of what refers to an image: the list of referrers repeats them all, and clients take a few megabytes of it.
_ANNOTATION_BYTES_MAX = 16 * 1024
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")


class RunConfig(msgspec.Struct, frozen=True):
    """What a container is started with; engines write capitals here."""

    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")


class ImageConfig(msgspec.Struct, frozen=True):
    """The config of a container image, as far as a record shows it."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    config: RunConfig | None = None

    @property
    def labels(self) -> dict[str, str]:
        return (self.config.labels if self.config else None) or {}

    @property
    def platform(self) -> str:
        return str(Platform(architecture=self.architecture, os=self.os, variant=self.variant)) or ANY_PLATFORM


@dataclass(frozen=True)
class Manifest:
    """A pushed manifest or index: its bytes, what they are and what they say."""

    digest: str
    media_type: str
    size_bytes: int
    document: ImageDocument

    @property
    def artifact_type(self) -> str:
        document = self.document
        return document.artifact_type or (document.config.media_type if document.config else "")

    @property
    def referrer(self) -> Referrer | None:
        """What it is beside its subject; None for what refers to nothing."""
        subject = self.document.subject
        if subject is None:
            return None
        return Referrer(
            digest=self.digest,
            media_type=self.media_type,
            artifact_type=self.artifact_type,
            size_bytes=self.size_bytes,
            subject=subject.digest,
            annotations=self.document.annotations or {},
        )


def is_tag(text: str) -> bool:
    """By the grammar of the distribution specification."""
    return bool(_TAG.match(text))


def read_manifest(data: bytes, media_type: str, reference: str) -> Manifest:
    """A manifest as it was pushed under ``reference`` (tag or digest). Raises PushedManifestInvalid, DigestRefused."""
    digest = f"sha256:{sha256(data).hexdigest()}"
    if ":" in reference and reference != digest:
        raise DigestRefused(value=reference[:80], problem=f"the manifest's own digest is {digest}")
    if ":" not in reference and not is_tag(reference):
        raise PushedManifestInvalid(problem=f"{reference[:80]!r} is no tag")
    if media_type not in INDEX_TYPES | MANIFEST_TYPES:
        raise PushedManifestInvalid(problem=f"the content type {media_type[:80]!r} is none of a manifest or index")
    document = decoded(data, ImageDocument, "it")
    _check(document, media_type)
    return Manifest(digest, media_type, len(data), document)


def decoded(data: bytes, kind: type[T], what: str) -> T:
    """Raises PushedManifestInvalid."""
    try:
        return read_foreign_json(data, kind)
    except ValueError as problem:
        raise PushedManifestInvalid(problem=f"{what} cannot be read ({problem})") from None


def kind_of(document: ImageDocument, labels: dict[str, str]) -> ImageKind | None:
    """What a single manifest is for us; None for an artifact that is no image. ``labels`` are its config's."""
    config = document.config.media_type if document.config else ""
    if document.artifact_type == MEDIA_MODEL_MANIFEST or config == MEDIA_MODEL_CONFIG:
        found = (document.annotations or {}).get(LABEL_IMAGE_KIND)
        return "fpga" if found == "fpga" else "onnx"
    if config in CONTAINER_CONFIG_TYPES:
        return "fpga" if labels.get(LABEL_IMAGE_KIND) == "fpga" else "docker"
    return None


def _check(document: ImageDocument, media_type: str) -> None:
    if document.schema_version != 2:
        raise PushedManifestInvalid(problem=f"its schemaVersion is {document.schema_version}, not 2")
    if document.media_type not in ("", media_type):
        raise PushedManifestInvalid(problem=f"it says mediaType {document.media_type[:80]!r} and was sent as {media_type}")
    # One document that is both would be an image for one reader and another one for the next.
    is_index = media_type in INDEX_TYPES
    if is_index and (document.manifests is None or document.config is not None or document.layers is not None):
        raise PushedManifestInvalid(problem="an index has manifests, and neither config nor layers")
    if not is_index and (document.config is None or document.layers is None or document.manifests is not None):
        raise PushedManifestInvalid(problem="a manifest has a config and layers, and no manifests")
    _check_words(document)


def _check_words(document: ImageDocument) -> None:
    named = [*document.below, *([document.subject] if document.subject else [])]
    if len(named) > _DESCRIPTORS_MOST:
        raise PushedManifestInvalid(problem=f"it names more than {_DESCRIPTORS_MOST} blobs")
    for text in (document.artifact_type, *(descriptor.media_type for descriptor in named)):
        if len(text) > _TYPE_LENGTH_MAX or not text.isprintable():
            raise PushedManifestInvalid(problem=f"{text[:80]!r} is no media type")
    annotations = document.annotations or {}
    if document.subject and sum(len(part) for pair in annotations.items() for part in pair) > _ANNOTATION_BYTES_MAX:
        raise PushedManifestInvalid(problem=f"its annotations have more than {_ANNOTATION_BYTES_MAX} characters")
    for descriptor in named:
        if not is_digest(descriptor.digest):
            raise DigestRefused(value=descriptor.digest[:80], problem="only sha256 digests are taken here")
        if descriptor.size < 0:
            raise PushedManifestInvalid(problem=f"{descriptor.digest} has the size {descriptor.size}")
