"""The JSON documents of the OCI image specification: what the packager writes, registries keep, and SDK and devices read.

Written canonically (keys sorted, no spaces) and without times of day, so that equal content has an equal digest. Digests are
text here: a registry refuses a strange one in its own words. Who makes paths or addresses of what somebody else wrote reads it
with :func:`read_image_document`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from hedgerow.contracts.document import encode
from hedgerow.contracts.names import MEDIA_OCI_INDEX, is_digest

T = TypeVar("T")


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`linux/amd64`, `linux/arm64/v8`."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        system, _, rest = text.partition("/")
        architecture, _, variant = rest.partition("/")
        return cls(os=system, architecture=architecture, variant=variant)

    def suits(self, wanted: Platform) -> bool:
        """Whether an image of this platform runs where ``wanted`` is asked for (arm64 and arm64/v8 are one)."""
        same = (self.os, self.architecture) == (wanted.os, wanted.architecture)
        return same and (not wanted.variant or not self.variant or self.variant == wanted.variant)

    @property
    def is_real(self) -> bool:
        """Builders hide attestations in an index as manifests of the platform "unknown/unknown"."""
        return "unknown" not in (self.os, self.architecture)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What points at a blob."""

    media_type: str
    digest: str
    size: int
    artifact_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One image or artifact. With a ``subject`` it lies beside that one and says something about it."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: list[Descriptor]
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Several platforms of one image; also `index.json` of a layout."""

    schema_version: int
    media_type: str = ""
    manifests: list[Descriptor]


class ImageDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A manifest (config and layers) or an index (manifests), before it is known which. Only read, never written."""

    schema_version: int = 0
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None

    @property
    def below(self) -> list[Descriptor]:
        """Everything that must be there with it; what it refers to (its subject) need not be."""
        return [*([self.config] if self.config else []), *(self.layers or []), *(self.manifests or [])]


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    """The layers of an image by the digests of their tars, not compressed."""

    type: str = "layers"
    diff_ids: list[str]


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one layer, or a step without one, was made by."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The config of a runnable image. ``config`` stays open: engines know keys that the specification does not."""

    created: str = ""
    architecture: str
    os: str
    variant: str = ""
    config: dict[str, Any] | None = None
    rootfs: RootFs
    history: list[History] | None = None

    @property
    def platform(self) -> Platform:
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)


def index_bytes(manifests: list[Descriptor]) -> bytes:
    return encode(Index(schema_version=2, media_type=MEDIA_OCI_INDEX, manifests=manifests))


def read_foreign_json(data: bytes, kind: type[T]) -> T:
    """Decode what somebody else wrote. Raises ValueError, whose text says why it cannot be."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as problem:
        raise ValueError(str(problem)[:200]) from None


def read_image_document(data: bytes) -> ImageDocument:
    """A manifest or index that somebody else wrote, whose digests are digests. Raises ValueError, which says what is wrong."""
    document = read_foreign_json(data, ImageDocument)
    for one in (*document.below, *([document.subject] if document.subject else [])):
        if not is_digest(one.digest):
            raise ValueError(f"{one.digest[:80]!r} is no digest")
        if one.size < 0:
            raise ValueError(f"{one.digest} has the size {one.size}")
    return document
