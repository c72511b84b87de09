"""BuildReport: what an image was made of, layer by layer and file by file. Lies beside the image (ARTIFACT_BUILD_REPORT).

Nothing in it is measured and no time of day stands in it: equal builds have equal reports. ``image explain`` reads two of
them and says why a layer differs.
"""

from __future__ import annotations

import msgspec

from hedgerow.contracts.document import Document
from hedgerow.contracts.image import ImageKind
from hedgerow.contracts.names import Digest


class LayerFile(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One file of a layer. ``origin`` says where it came from: `numpy 2.4.6`, `model churn:3`, `source`, `hedgerow 0.1.0`."""

    path: str
    size_bytes: int
    digest: Digest
    origin: str


class LayerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One layer. ``made_of`` is everything that decided its bytes, by name: when it is rebuilt, one of these has changed.

    ``size_bytes`` is what is stored and transferred. ``files`` is empty for layers of the base, which are taken as they are.
    """

    purpose: str
    digest: Digest
    diff_id: Digest
    media_type: str
    size_bytes: int
    made_of: dict[str, str] = {}
    files: list[LayerFile] = []


class PlatformReport(msgspec.Struct, frozen=True, kw_only=True):
    """The image of one platform: its layers from the base upwards."""

    platform: str
    manifest: Digest
    layers: list[LayerReport]


class BuildReport(Document, frozen=True, kw_only=True):
    """``inputs`` name what the whole build depends on: `base linux/amd64`, `lock linux/amd64`, `model churn`, `script`, …"""

    kind: ImageKind
    plan_key: Digest
    tool_version: str
    inputs: dict[str, str]
    platforms: list[PlatformReport]
