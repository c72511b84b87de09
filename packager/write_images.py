"""Writes the layers, configs and manifests of an image into its layout, one manifest for each platform.

What can fail early does: bases and locks of all platforms come before the first layer. Runtime, models and configuration
are the same on every platform and are written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.build import BuildRequest
from hedgerow.contracts.environment import EnvironmentLock
from hedgerow.contracts.image import ScoringConfig
from hedgerow.contracts.model import FileEntry, digest_of_files
from hedgerow.contracts.names import MEDIA_MODEL_CONFIG, MEDIA_MODEL_MANIFEST, MEDIA_OCI_CONFIG
from packager.bases import BaseImage, fetch_base
from packager.engine import ContainerEngine
from packager.environment_lock import lock_environment, uv_platform
from packager.errors import BaseMissing, ModelChanged
from packager.image_config import container_config, model_config
from packager.layer_cache import LayerCache
from packager.oci_documents import Descriptor, Platform
from packager.oci_layout import OciLayout
from packager.recipe import (
    SOURCE_FOLDER,
    ModelFacts,
    PlannedLayer,
    SourceFacts,
    check_base,
    docker_layers,
    onnx_layers,
)
from packager.runtime_code import code_entries, package_folders
from packager.settings import IMAGE_ROOT, RUNTIME_REQUIREMENTS, SITE_FOLDER
from packager.tar_layer import StoredLayer, tar_chunks, write_layer
from packager.uv_command import Uv
from packager.wheels import environment_layers

# Told how far the build is (0 to 1) and what it does now.
Report = Callable[[float, str], None]
ANY_PLATFORM = "any"


@dataclass(frozen=True)
class Inputs:
    """The request with what was found on disk."""

    request: BuildRequest
    models: tuple[ModelFacts, ...]
    source: SourceFacts | None
    config: ScoringConfig


@dataclass(frozen=True)
class Workshop:
    """Where and with what layers are made. ``uv`` and ``engine`` are asked for only when a build needs them."""

    layout: OciLayout
    cache: LayerCache
    uv: Callable[[Path], Uv]
    engine: Callable[[], ContainerEngine | None]
    default_base: str | None
    tool_version: str
    report: Report


@dataclass(frozen=True)
class BuiltImage:
    """One platform of the image, written but not tested yet.

    ``own_layers`` are those above the base; ``parts`` are all blobs: manifest, config and every layer.
    """

    platform: str
    manifest: Descriptor
    own_layers: tuple[StoredLayer, ...]
    parts: tuple[Descriptor, ...]
    base_digest: str | None = None
    lock_digest: str | None = None
    script_digest: str | None = None

    @property
    def size_bytes(self) -> int:
        return size_of(self.parts)


@dataclass(frozen=True)
class _Foundation:
    """What carries the image on one platform."""

    platform: str
    base: BaseImage
    lock: EnvironmentLock


def size_of(parts: Iterable[Descriptor]) -> int:
    """Bytes of the blobs together, each counted once."""
    return sum({part.digest: part.size for part in parts}.values())


def write_onnx_image(inputs: Inputs, workshop: Workshop) -> BuiltImage:
    """An OCI artifact in ModelPack media types; it has no machine code, so one serves every platform."""
    workshop.report(0.1, "writing model layers")
    layers, _ = _write_layers(onnx_layers(inputs.models, inputs.config), workshop.layout)
    config = workshop.layout.add_document(model_config(inputs.models, layers), MEDIA_MODEL_CONFIG)
    descriptors = [_descriptor(layer) for layer in layers]
    manifest = workshop.layout.add_manifest(config, descriptors, artifact_type=MEDIA_MODEL_MANIFEST)
    return BuiltImage(ANY_PLATFORM, manifest, tuple(layers), (manifest, config, *descriptors))


def write_docker_images(inputs: Inputs, workshop: Workshop) -> list[BuiltImage]:
    """Base, wheels, runtime, models and configuration for each platform of the request.

    Raises the errors of `bases.py`, `environment_lock.py`, `wheels.py` and `tar_layer.py`; ModelChanged.
    """
    for platform in inputs.request.platforms or [""]:
        uv_platform(platform)
    uv = workshop.uv(workshop.cache.folder)
    foundations = [_foundation(inputs.request, platform, uv, workshop) for platform in inputs.request.platforms]
    environments = []
    for found in foundations:
        workshop.report(0.25, f"building the layers of {len(found.lock.packages)} packages for {found.platform}")
        environments.append(environment_layers(found.lock, SITE_FOLDER, workshop.cache, uv))
    workshop.report(0.6, "writing runtime, model and configuration layers")
    code = code_entries(package_folders(), SITE_FOLDER, workshop.tool_version)
    shared, files = _write_layers(docker_layers(inputs.models, inputs.source, inputs.config, code), workshop.layout)
    script_digest = _script_digest(files) if inputs.source else None
    return [
        _write_docker(found, [*wheels, *shared], inputs, workshop, script_digest)
        for found, wheels in zip(foundations, environments, strict=True)
    ]


def _foundation(request: BuildRequest, platform: str, uv: Uv, workshop: Workshop) -> _Foundation:
    workshop.report(0.05, f"fetching the base image for {platform}")
    reference = request.base or workshop.default_base
    if not reference:
        raise BaseMissing(python_version=request.python_version)
    wanted = Platform.parse(platform)
    base = fetch_base(reference, wanted, workshop.cache, workshop.engine)
    check_base(base, reference, wanted, request.python_version)
    workshop.report(0.15, f"locking the environment for {platform}")
    requirements = [*RUNTIME_REQUIREMENTS, *request.requirements]
    return _Foundation(platform, base, lock_environment(requirements, request.python_version, platform, workshop.cache, uv))


def _write_docker(
    found: _Foundation, own: list[StoredLayer], inputs: Inputs, workshop: Workshop, script_digest: str | None
) -> BuiltImage:
    layout, base = workshop.layout, found.base
    descriptors = [*base.layers, *(_descriptor(layer) for layer in own)]
    for descriptor in descriptors:
        if not layout.blobs.path(descriptor.digest).exists():
            layout.blobs.take(workshop.cache.blobs, descriptor.digest)
    config_bytes = container_config(base.config, base.digest, own, inputs.models, workshop.tool_version)
    config = layout.add_document(config_bytes, MEDIA_OCI_CONFIG)
    manifest = layout.add_manifest(config, descriptors, platform=base.config.platform)
    parts = (manifest, config, *descriptors)
    return BuiltImage(found.platform, manifest, tuple(own), parts, base.digest, found.lock.digest, script_digest)


def _write_layers(planned: list[PlannedLayer], layout: OciLayout) -> tuple[list[StoredLayer], list[FileEntry]]:
    """The layers, and their files by path in the image."""
    layers, files = [], []
    for plan in planned:
        layer, found = _write_layer(plan, layout)
        layers.append(layer)
        files += found
    return layers, files


def _write_layer(planned: PlannedLayer, layout: OciLayout) -> tuple[StoredLayer, list[FileEntry]]:
    """Write one layer; the files of a model's layer must be those that were registered. Raises ModelChanged."""
    files: list[FileEntry] = []

    def seen(path: str, digest: str, size_bytes: int) -> None:
        files.append(FileEntry(path=path, digest=digest, size_bytes=size_bytes))

    layer = write_layer(layout.blobs, planned.purpose, planned.media_type, tar_chunks(planned.entries, seen))
    if planned.facts:
        model, found = planned.facts.model, _digest_below(planned.prefix, files)
        if found != model.ref.digest:
            raise ModelChanged(model=planned.facts.title, folder=model.folder, expected=model.ref.digest, found=found)
    return layer, files


def _script_digest(files: list[FileEntry]) -> str:
    return _digest_below(f"{IMAGE_ROOT}/{SOURCE_FOLDER}/", files)


def _digest_below(prefix: str, files: list[FileEntry]) -> str:
    """Content digest of the files below ``prefix``, as if that were their folder."""
    return digest_of_files(
        FileEntry(path=file.path.removeprefix(prefix), digest=file.digest, size_bytes=file.size_bytes)
        for file in files
        if file.path.startswith(prefix)
    )


def _descriptor(layer: StoredLayer) -> Descriptor:
    return Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size_bytes)
