"""Documents of images (hedgerow/contracts/oci.py) as a build writes and reads them."""

from __future__ import annotations

from typing import TypeVar

from hedgerow.contracts.document import encode
from hedgerow.contracts.names import MEDIA_OCI_MANIFEST
from hedgerow.contracts.oci import Descriptor, Manifest, read_foreign_json
from packager.errors import BaseUnreadable

T = TypeVar("T")
CREATED = "1970-01-01T00:00:00Z"


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


def read_foreign(data: bytes, kind: type[T], base: str) -> T:
    """Decode a document that somebody else wrote. Raises BaseUnreadable."""
    try:
        return read_foreign_json(data, kind)
    except ValueError as problem:
        raise BaseUnreadable(base=base, problem=f"one of its documents is not valid ({problem})") from None
