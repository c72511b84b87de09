"""``/api/v1/images/REF/report`` and ``…/sbom``: what was recorded beside an image when it was built."""

from __future__ import annotations

from flask import Blueprint, Response

from hedgerow.contracts.build_report import BuildReport
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.names import ARTIFACT_BUILD_REPORT, ARTIFACT_SBOM, Reference
from registry.blobs.errors import BlobDamaged
from registry.errors import NothingBesideImage, RecordDeleted
from registry.image_artifacts import content_beside
from registry.server import arguments
from registry.server.content import send_blob
from registry.server.errors import InvalidArgument, RangeRefused, TooManyTransfers
from registry.server.http import context
from registry.server.operation import QueryField, operation
from registry.store import images

_ERRORS = (RecordDeleted, NothingBesideImage, BlobDamaged, RangeRefused, TooManyTransfers)
_PLATFORM = QueryField("platform", "for which platform, as the image's record names it; may be left out where there is one")


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("image_referrers", __name__, url_prefix="/api/v1/images")
    blueprint.get("/<reference>/report")(show_report)
    blueprint.get("/<reference>/sbom")(show_sbom)
    return blueprint


@operation("What an image is made of, file by file", "reader", scope="images", result=BuildReport, errors=_ERRORS)
def show_report(reference: str) -> Response:
    """Written by the build. Images that were pushed from elsewhere have none."""
    here = context()
    with here.database.read() as connection:
        image = images.get(connection, Reference.parse(reference))
    found = content_beside(here.database, here.blobs, image, ARTIFACT_BUILD_REPORT, image.digest)
    if found is None:
        raise NothingBesideImage(name=f"{image.name}:{image.version}", what="build report")
    return send_blob(here.blobs, found.digest, "application/json")


@operation("An image's bill of materials", "reader", scope="images", result=ARTIFACT_SBOM, query=(_PLATFORM,), errors=_ERRORS)
def show_sbom(reference: str) -> Response:
    """CycloneDX in JSON, of one platform: packages with hashes and licences, models, base."""
    here = context()
    with here.database.read() as connection:
        image = images.get(connection, Reference.parse(reference))
    platform, manifest = _platform(image)
    found = content_beside(here.database, here.blobs, image, ARTIFACT_SBOM, manifest)
    if found is None:
        raise NothingBesideImage(name=f"{image.name}:{image.version} ({platform})", what="bill of materials")
    return send_blob(here.blobs, found.digest, ARTIFACT_SBOM)


def _platform(image: ImageRecord) -> tuple[str, str]:
    """The platform that is asked for, and its manifest. Raises InvalidArgument."""
    asked = arguments.text("platform")
    manifests = {one.platform: one.digest for one in image.platforms}
    if asked is None and len(manifests) == 1:
        asked = next(iter(manifests))
    if asked is None or asked not in manifests:
        value = "left out for an image of several platforms" if asked is None else asked[:80]
        raise InvalidArgument(name="platform", value=value, hint=f"Use one of: {', '.join(manifests)}.")
    return asked, manifests[asked]
