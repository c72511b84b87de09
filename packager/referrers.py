"""What lies beside an image as OCI artifacts that refer to it: the report of the build, SBOMs, and what its test measured.

The first two depend on the inputs alone and are equal in equal builds; the last one is measured, so it is never part of the
image. The registry lists all of them as the image's referrers.
"""

from __future__ import annotations

from collections.abc import Mapping

from hedgerow.contracts.build_report import BuildReport, LayerReport, PlatformReport
from hedgerow.contracts.document import encode
from hedgerow.contracts.image import ImageKind, ModelRef, Referrer, Verification
from hedgerow.contracts.names import ARTIFACT_BUILD_REPORT, ARTIFACT_SBOM, ARTIFACT_VERIFICATION
from hedgerow.contracts.oci import Descriptor
from packager.oci.layout import OciLayout
from packager.oci.tar_layer import MadeLayer
from packager.plan_key import plan_key
from packager.sbom import sbom_document
from packager.write_images import BuiltImage, Ground


class Referrers:
    """Adds artifacts that refer to the image ``top`` to its layout; remembers their manifests, and how the record lists them."""

    def __init__(self, layout: OciLayout, top: Descriptor) -> None:
        self._layout, self._top = layout, top
        self.descriptors: list[Descriptor] = []
        self.listed: list[Referrer] = []

    def add_report(self, report: BuildReport) -> None:
        self.add(ARTIFACT_BUILD_REPORT, encode(report))

    def add_sboms(self, kind: ImageKind, tool_version: str, images: list[BuiltImage], models: list[ModelRef]) -> None:
        """One for each platform, beside that platform's manifest."""
        for image in images:
            lock, base = (image.ground.lock, image.ground.base.digest) if image.ground else (None, None)
            document = sbom_document(kind, image.platform, tool_version, lock, image.wheels, models, base)
            self.add(ARTIFACT_SBOM, document, subject=image.manifest)

    def add_verification(self, verification: Verification) -> None:
        self.add(ARTIFACT_VERIFICATION, encode(verification))

    def add(self, artifact_type: str, data: bytes, subject: Descriptor | None = None) -> None:
        """``subject``: one platform's manifest, where ``data`` is about that one alone."""
        about = subject or self._top
        made = self._layout.add_artifact(about, artifact_type, data)
        self.descriptors.append(made)
        self.listed.append(
            Referrer(
                digest=made.digest,
                media_type=made.media_type,
                artifact_type=artifact_type,
                size_bytes=made.size,
                subject=about.digest,
            )
        )


def build_report(kind: ImageKind, tool_version: str, inputs: Mapping[str, str], images: list[BuiltImage]) -> BuildReport:
    """What ``images`` are made of; ``inputs`` decided their bytes (`plan_key.py`)."""
    platforms = [
        PlatformReport(
            platform=image.platform,
            manifest=image.manifest.digest,
            layers=[*_base_layers(image.ground), *(_layer(layer) for layer in image.own_layers)],
        )
        for image in images
    ]
    return BuildReport(kind=kind, plan_key=plan_key(inputs), tool_version=tool_version, inputs=dict(inputs), platforms=platforms)


def _base_layers(ground: Ground | None) -> list[LayerReport]:
    if ground is None:
        return []
    pairs = zip(ground.base.layers, ground.base.config.rootfs.diff_ids, strict=True)
    return [
        LayerReport(
            purpose=f"base layer {number}",
            digest=layer.digest,
            diff_id=diff_id,
            media_type=layer.media_type,
            size_bytes=layer.size,
            made_of={"base": ground.base.digest},
        )
        for number, (layer, diff_id) in enumerate(pairs, 1)
    ]


def _layer(made: MadeLayer) -> LayerReport:
    stored = made.stored
    return LayerReport(
        purpose=stored.purpose,
        digest=stored.digest,
        diff_id=stored.diff_id,
        media_type=stored.media_type,
        size_bytes=stored.size_bytes,
        made_of=made.made_of,
        files=list(made.files),
    )
