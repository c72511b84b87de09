"""The JSON documents of the OCI image specification that a build reads and writes, as typed structs.

Written canonically (keys sorted, no spaces) and without times of day, so that equal content has an equal digest.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from hedgerow.contracts.document import encode
from hedgerow.contracts.names import MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST
from packager.errors import BaseUnreadable

T = TypeVar("T")
CREATED = "1970-01-01T00:00:00Z"


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


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "layers"
    diff_ids: list[str]


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


def manifest_bytes(
    config: Descriptor,
    layers: list[Descriptor],
    artifact_type: str = "",
    subject: Descriptor | None = None,
    annotations: dict[str, str] | None = None,
) -> bytes:
    return encode(
        Manifest(
            schema_version=2,
            media_type=MEDIA_OCI_MANIFEST,
            artifact_type=artifact_type,
            config=config,
            layers=layers,
            subject=subject,
            annotations=annotations or {},
        )
    )


def index_bytes(manifests: list[Descriptor]) -> bytes:
    return encode(Index(schema_version=2, media_type=MEDIA_OCI_INDEX, manifests=manifests))


def read_foreign(data: bytes, kind: type[T], base: str) -> T:
    """Decode a document that somebody else wrote. Raises BaseUnreadable."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as problem:
        raise BaseUnreadable(base=base, problem=f"one of its documents is not valid ({str(problem)[:200]})") from None
