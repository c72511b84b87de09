"""Writes the layers, configs and manifests of an image into its layout, one manifest for each platform.

What can fail early does: :func:`lay_grounds` brings bases and locks of all platforms before the first layer. Runtime, models
and configuration are the same on every platform and are written once. Every layer is made in the cache and linked from
there: what was made for another image before is not made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from hedgerow.contracts.build import BuildRequest
from hedgerow.contracts.build_report import LayerFile
from hedgerow.contracts.environment import EnvironmentLock
from hedgerow.contracts.image import ANY_PLATFORM, ScoringConfig
from hedgerow.contracts.model import FileEntry
from hedgerow.contracts.names import LABEL_IMAGE_KIND, MEDIA_MODEL_CONFIG, MEDIA_MODEL_MANIFEST, MEDIA_OCI_CONFIG
from hedgerow.contracts.oci import Descriptor, Platform
from packager.bases.fetch import BaseImage, fetch_base
from packager.cache.layers import LayerCache, cache_key
from packager.environment.azure_ml import without_server
from packager.environment.lock import lock_environment
from packager.environment.uv_command import Uv
from packager.environment.wheel_metadata import WheelMetadata
from packager.environment.wheels import EnvironmentLayers, environment_layers
from packager.errors import BaseMissing, ModelChanged, PackedFileChanged
from packager.image_config import container_config, model_config
from packager.oci.compress import compressor_name, layer_type
from packager.oci.tar_layer import TAR_GENERATION, MadeLayer, StoredLayer, digest_below, tar_chunks, write_layer
from packager.recipe import ModelFacts, PlannedLayer, SourceFacts, check_base, docker_layers, onnx_layers
from packager.runtime_code import Code
from packager.settings import RUNTIME_REQUIREMENTS, SITE_FOLDER
from packager.stages import seen_as
from packager.tools import Workshop


@dataclass(frozen=True)
class Inputs:
    """The request with what was found on disk. ``code`` is ours, which goes into docker images only.

    ``proof``: of stages, the model whose recorded vectors are those of all of them.
    """

    request: BuildRequest
    models: tuple[ModelFacts, ...]
    source: SourceFacts | None
    config: ScoringConfig
    code: Code | None
    proof: ModelFacts | None = None

    @property
    def tested(self) -> tuple[ModelFacts, ...]:
        """The models as callers of the image see them: stages are one."""
        return seen_as(self.models, self.proof) if self.request.kind == "fpga" else self.models


@dataclass(frozen=True)
class _Base:
    """The base for one platform; ``name`` is how it was asked for."""

    platform: str
    name: str
    image: BaseImage


@dataclass(frozen=True)
class Ground:
    """What carries the image on one platform. ``base_name`` is the base as it was asked for.

    ``uv`` finds the wheels of ``lock``, also those that an engine made for it; ``notes`` are for a person.
    """

    platform: str
    base_name: str
    base: BaseImage
    lock: EnvironmentLock
    uv: Uv
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltImage:
    """One platform of the image, written but not tested yet.

    ``own_layers`` are those above the base; ``parts`` are all blobs: manifest, config and every layer. ``ground`` is None for
    an artifact, which stands on nothing; ``wheels`` is what the wheels in it say of themselves, by name.
    """

    platform: str
    manifest: Descriptor
    own_layers: tuple[MadeLayer, ...]
    parts: tuple[Descriptor, ...]
    ground: Ground | None = None
    wheels: Mapping[str, WheelMetadata] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return size_of(self.parts)

    @property
    def stored_layers(self) -> list[StoredLayer]:
        return [layer.stored for layer in self.own_layers]


def size_of(parts: Iterable[Descriptor]) -> int:
    """Bytes of the blobs together, each counted once."""
    return sum({part.digest: part.size for part in parts}.values())


def lay_grounds(request: BuildRequest, workshop: Workshop) -> list[Ground]:
    """Bases and locks for every platform of a docker image; nothing for an artifact.

    Raises CondaSpecRefused, CondaOnly, BaseMissing, BasePlatform, BasePython and the errors of `bases/`, `environment/lock.py`
    and (with ``dockerfile``) `environment/engine_wheels.py`.
    """
    if request.kind != "docker":
        return []
    of_conda, notes = _of_conda(request)
    asked, left_out = without_server([*request.requirements, *of_conda])
    requirements = [*RUNTIME_REQUIREMENTS, *asked]
    uv = workshop.tools.uv(workshop.cache.folder)
    bases = [_base(request, platform, workshop) for platform in request.platforms]
    workshop.report(0.15, f"locking the environment for {', '.join(request.platforms)}")
    # Locking is mostly waiting for the index. An engine, though, builds for one platform after the other.
    with ThreadPoolExecutor(max_workers=1 if request.dockerfile else len(request.platforms)) as pool:
        grounds = list(pool.map(lambda found: _ground(request, found, requirements, uv, workshop), bases))
    return [replace(ground, notes=(*notes, *left_out, *ground.notes)) for ground in grounds]


def write_artifact(inputs: Inputs, workshop: Workshop) -> BuiltImage:
    """An OCI artifact in ModelPack media types; it has no machine code, so one serves every platform."""
    workshop.report(0.1, "writing model layers")
    made = _make_layers(onnx_layers(inputs.models, inputs.config, inputs.proof), workshop.cache)
    layers = [layer.stored for layer in made]
    config = workshop.layout.add_document(model_config(inputs.models, layers), MEDIA_MODEL_CONFIG)
    descriptors = _placed([_descriptor(layer) for layer in layers], workshop)
    # An artifact is of kind onnx unless it says otherwise; its digests are those of earlier versions.
    labels: dict[str, str] = {} if inputs.request.kind == "onnx" else {LABEL_IMAGE_KIND: inputs.request.kind}
    manifest = workshop.layout.add_manifest(config, descriptors, artifact_type=MEDIA_MODEL_MANIFEST, annotations=labels)
    return BuiltImage(ANY_PLATFORM, manifest, tuple(made), (manifest, config, *descriptors))


def write_docker_images(inputs: Inputs, grounds: list[Ground], workshop: Workshop) -> list[BuiltImage]:
    """Base, wheels, runtime, models and configuration for each platform of the request.

    Raises the errors of `environment/wheels.py`, `scripts/check_source.py` and `oci/tar_layer.py`; ModelChanged.
    """
    media_type = layer_type(inputs.request.compression)
    packages = ", ".join(f"{len(ground.lock.packages)} packages for {ground.platform}" for ground in grounds)
    workshop.report(0.25, f"building the layers of {packages}")
    # One platform is installed while another one is packed.
    with ThreadPoolExecutor(max_workers=max(1, len(grounds))) as pool:
        making = [
            pool.submit(environment_layers, ground.lock, SITE_FOLDER, media_type, workshop.cache, ground.uv) for ground in grounds
        ]
        environments = [one.result() for one in making]
    grounds = [_checked(ground, environment, inputs, workshop) for ground, environment in zip(grounds, environments, strict=True)]
    workshop.report(0.6, "writing runtime, model and configuration layers")
    planned = docker_layers(inputs.models, inputs.source, inputs.config, inputs.code, media_type) if inputs.code else []
    shared = _make_layers(planned, workshop.cache)
    return [
        replace(_write_docker(ground, (*environment.layers, *shared), inputs, workshop), wheels=environment.metadata)
        for ground, environment in zip(grounds, environments, strict=True)
    ]


# What only some builds need is loaded by those: an unchanged build is over in the time that the rest takes to load.
def _of_conda(request: BuildRequest) -> tuple[Sequence[str], Sequence[str]]:
    """Requirements for the packages of a conda file, and what is to be said about them."""
    if not request.conda_packages:
        return (), ()
    from packager.environment.conda_packages import conda_only, conda_requirements

    asked = conda_requirements(request.conda_packages, request.python_version)
    if asked.refused:
        raise conda_only(asked.refused)
    return asked.requirements, asked.notes


def _base(request: BuildRequest, platform: str, workshop: Workshop) -> _Base:
    workshop.report(0.05, f"fetching the base image for {platform}")
    reference = request.bases.get(platform) or request.base or workshop.tools.default_base
    if not reference:
        raise BaseMissing(python_version=request.python_version)
    wanted = Platform.parse(platform)
    base = fetch_base(reference, wanted, workshop.cache, workshop.tools.engine, workshop.tools.remote)
    check_base(base, reference, wanted, request.python_version)
    return _Base(platform, reference, base)


def _ground(request: BuildRequest, found: _Base, requirements: list[str], uv: Uv, workshop: Workshop) -> Ground:
    platform, cache = found.platform, workshop.cache
    if not request.dockerfile:
        lock = lock_environment(requirements, request.python_version, platform, cache, uv, renew=request.upgrade)
        return Ground(platform, found.name, found.image, lock, uv)
    from packager.environment.engine_wheels import lock_with_engine

    made = lock_with_engine(
        requirements,
        request.python_version,
        platform,
        found.image,
        cache,
        uv,
        workshop.tools.engine,
        lambda line: workshop.report(0.15, line),
    )
    return Ground(platform, found.name, found.image, made.lock, made.uv, made.notes)


def _checked(ground: Ground, environment: EnvironmentLayers, inputs: Inputs, workshop: Workshop) -> Ground:
    """``ground`` with what was noted of the scoring script, which is read and never run. Raises as `scripts/check_source.py`."""
    if inputs.source is None:
        return ground
    from packager.scripts.check_source import check_source

    installed = [file.path.removeprefix(f"{SITE_FOLDER}/") for layer in environment.layers for file in layer.files]
    source, python = inputs.source, inputs.request.python_version
    notes = check_source(source.files, source.script, python, installed, ground.base, workshop.cache)
    return replace(ground, notes=(*ground.notes, *notes))


def _write_docker(ground: Ground, own: tuple[MadeLayer, ...], inputs: Inputs, workshop: Workshop) -> BuiltImage:
    layout, base, layers = workshop.layout, ground.base, [layer.stored for layer in own]
    descriptors = _placed([*base.layers, *(_descriptor(layer) for layer in layers)], workshop)
    config_bytes = container_config(base.config, base.digest, layers, inputs.models, workshop.tools.tool_version)
    config = layout.add_document(config_bytes, MEDIA_OCI_CONFIG)
    manifest = layout.add_manifest(config, descriptors, platform=base.config.platform)
    return BuiltImage(ground.platform, manifest, own, (manifest, config, *descriptors), ground)


def _placed(descriptors: list[Descriptor], workshop: Workshop) -> list[Descriptor]:
    """The blobs of ``descriptors`` are in the layout afterwards."""
    for descriptor in descriptors:
        workshop.layout.blobs.take(workshop.cache.blobs, descriptor.digest)
    return descriptors


def _make_layers(planned: list[PlannedLayer], cache: LayerCache) -> list[MadeLayer]:
    return [_make_layer(plan, cache) for plan in planned]


def _make_layer(planned: PlannedLayer, cache: LayerCache) -> MadeLayer:
    """Take one layer from the cache or write it; a model's files must be those that were registered. Raises ModelChanged."""
    key = cache_key(
        "own", planned.content, planned.prefix, planned.media_type, TAR_GENERATION, compressor_name(planned.media_type)
    )
    known = cache.find("layer", key, MadeLayer) if planned.content else None
    if known and cache.holds(known.stored.digest):
        return replace(known, made_of=planned.made_of)  # the same folder may have been packed for another script of it
    files: list[FileEntry] = []

    def seen(path: str, digest: str, size_bytes: int) -> None:
        files.append(FileEntry(path=path, digest=digest, size_bytes=size_bytes))

    stored = write_layer(cache.blobs, planned.purpose, planned.media_type, tar_chunks(planned.entries, seen))
    of_report = (
        LayerFile(path=file.path, size_bytes=file.size_bytes, digest=file.digest, origin=planned.origin) for file in files
    )
    made = MadeLayer(stored, planned.made_of, tuple(of_report))
    if planned.content:
        _check_content(planned, digest_below(planned.prefix, files))
        cache.keep("layer", key, made)
    return made


def _check_content(planned: PlannedLayer, found: str) -> None:
    if found == planned.content:
        return
    if planned.facts is None:
        raise PackedFileChanged(path=planned.prefix)
    model = planned.facts.model
    raise ModelChanged(model=planned.facts.title, folder=model.folder, expected=model.ref.digest, found=found)


def _descriptor(layer: StoredLayer) -> Descriptor:
    return Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size_bytes)
