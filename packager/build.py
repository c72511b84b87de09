"""The story of a build: check, read what is there, plan, write the layers, test the image, and only then call it built.

`recipe.py` and `image_config.py` decide (pure); `write_images.py` writes with `bases.py`, `environment_lock.py`, `wheels.py`
and `tar_layer.py`; `verify_process.py` and `verify_container.py` test. The answer crosses to the controller as a BuildResult.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hedgerow.clock import Clock
from hedgerow.contracts.build import BuildRequest, BuildResult
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.image import PlatformImage, Verification
from packager.engine import ContainerEngine
from packager.export import export_image
from packager.layer_cache import LayerCache
from packager.oci_documents import Descriptor, Platform
from packager.oci_layout import OciLayout
from packager.recipe import ModelFacts, SourceFacts, check_request, scoring_config
from packager.scratch import scratch_folder
from packager.settings import IMAGE_ROOT, SITE_FOLDER
from packager.source_files import list_files, list_source, locate_script
from packager.uv_command import Uv
from packager.verify_process import Prover, runs_here, verify_in_process
from packager.write_images import BuiltImage, Inputs, Report, Workshop, size_of, write_docker_images, write_onnx_image


@dataclass(frozen=True)
class Tools:
    """What the composition root hands to a build. ``uv`` and ``engine`` are asked for only when a build needs them."""

    tool_version: str
    default_base: str | None
    ready_timeout_s: float
    uv: Callable[[Path], Uv]
    engine: Callable[[], ContainerEngine | None]
    prover: Prover
    clock: Clock


def build(request: BuildRequest, tools: Tools, report: Report) -> BuildResult:
    """Build, test and seal the image as an OCI layout in ``request.out``.

    Raises the errors of packager/errors.py; ``out`` is no layout then, and the cache holds only whole things.
    """
    check_request(request)
    with scratch_folder(Path(request.cache)) as scratch:
        cache = LayerCache(Path(request.cache), scratch)
        layout = OciLayout(Path(request.out))
        report(0.02, "reading models and source")
        inputs = _read_inputs(request)
        images = _write_images(inputs, layout, cache, tools, report)
        top = layout.add_top([image.manifest for image in images])
        report(0.8, "testing the image")
        verification = _verify(inputs, images, layout, scratch, tools)
        layout.seal(top, f"{request.name}:{request.version}")
    report(1.0, f"built {top.digest}")
    return _result(request, tools, top, images, verification)


def _read_inputs(request: BuildRequest) -> Inputs:
    models = tuple(ModelFacts(model, tuple(list_files(Path(model.folder)))) for model in request.models)
    source = None
    if request.script is not None:
        folder, script = locate_script(Path(request.script), Path(request.source) if request.source else None)
        files = list_source(folder, frozenset(request.allowed_secrets), only=None if request.source else script)
        source = SourceFacts(script, tuple(files))
    return Inputs(request, models, source, scoring_config(models, source, request.variables))


def _write_images(inputs: Inputs, layout: OciLayout, cache: LayerCache, tools: Tools, report: Report) -> list[BuiltImage]:
    workshop = Workshop(layout, cache, tools.uv, tools.engine, tools.default_base, tools.tool_version, report)
    if inputs.request.kind == "onnx":
        return [write_onnx_image(inputs, workshop)]
    return write_docker_images(inputs, workshop)


def _verify(inputs: Inputs, images: list[BuiltImage], layout: OciLayout, scratch: Path, tools: Tools) -> Verification:
    """Score the image's own parity vectors, in a container where an engine answers and as a process where none does."""
    if not inputs.request.verify:
        return Verification(state="skipped", reason="the request said so")
    if inputs.request.kind == "onnx":
        return verify_in_process(layout.blobs, images[0].own_layers, tools.prover, scratch)
    engine = tools.engine()
    if engine is not None:
        here = Platform.parse(engine.platform())
        for image in images:
            if Platform.parse(image.platform).suits(here):
                return _verify_container(inputs, image, layout, engine, tools)
    for image in images:
        if runs_here(image.platform, inputs.request.python_version):
            done = verify_in_process(layout.blobs, image.own_layers, tools.prover, scratch, IMAGE_ROOT, SITE_FOLDER)
            reason = f"no container engine that runs it answered, so it ran as a process: {done.reason}"
            return msgspec.structs.replace(done, reason=reason)
    names = ", ".join(image.platform for image in images)
    reason = f"neither an engine nor this machine runs {names} with Python {inputs.request.python_version}"
    return Verification(state="skipped", reason=reason)


def _verify_container(
    inputs: Inputs, image: BuiltImage, layout: OciLayout, engine: ContainerEngine, tools: Tools
) -> Verification:
    from packager.verify_container import verify_in_container  # numpy and an HTTP client: half of the start-up time

    archive = export_image(layout.blobs, image.manifest)
    has_script = inputs.source is not None
    return verify_in_container(archive, inputs.models, has_script, engine, tools.clock, tools.ready_timeout_s)


def _result(
    request: BuildRequest, tools: Tools, top: Descriptor, images: list[BuiltImage], verification: Verification
) -> BuildResult:
    return BuildResult(
        digest=top.digest,
        media_type=top.media_type,
        size_bytes=size_of([top, *(part for image in images for part in image.parts)]),
        platforms=[
            PlatformImage(platform=image.platform, digest=image.manifest.digest, size_bytes=image.size_bytes) for image in images
        ],
        script_digest=images[0].script_digest,
        lock_digest=_one_digest([image.lock_digest for image in images]),
        base=(request.base or tools.default_base) if request.kind == "docker" else None,
        base_digest=_one_digest([image.base_digest for image in images]),
        tool_version=tools.tool_version,
        verification=verification,
    )


def _one_digest(digests: list[str | None]) -> str | None:
    """The platforms' digest if they share one, else a digest over the list: several locks or bases together."""
    known = [digest for digest in digests if digest is not None]
    if len(set(known)) <= 1:
        return known[0] if known else None
    return digest_of("\n".join(known).encode())
