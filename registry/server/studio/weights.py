"""What the layers of an image weigh, out of the report that its build left beside it; the page is whole without it."""

from __future__ import annotations

import msgspec

from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.names import ARTIFACT_BUILD_REPORT
from hedgerow.errors import HedgerowError
from registry.image_artifacts import content_beside
from registry.server.context import ServerContext

# A report lists every file; of what is longer the command line tells.
_REPORT_AT_MOST = 32 * 1024 * 1024


class LayerWeight(msgspec.Struct, frozen=True):
    """Of a BuildReport's layer, what the page shows."""

    purpose: str
    digest: str
    size_bytes: int


class PlatformWeights(msgspec.Struct, frozen=True):
    """The layers of one platform, from the base upwards."""

    platform: str
    layers: list[LayerWeight]


class _Report(msgspec.Struct, frozen=True):
    platforms: list[PlatformWeights]


def weights_of(here: ServerContext, image: ImageRecord) -> list[PlatformWeights]:
    """Nothing for images without a report, or when it cannot be read now."""
    try:
        found = content_beside(here.database, here.blobs, image, ARTIFACT_BUILD_REPORT, image.digest)
        if found is None or found.size_bytes > _REPORT_AT_MOST:
            return []
        with here.blobs.open(found.digest) as content:
            return msgspec.json.decode(content.read(), type=_Report).platforms
    except (HedgerowError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return []
