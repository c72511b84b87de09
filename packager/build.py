"""The story of a build: check, read what is there, plan, write the layers, test the image, and only then call it built.

`recipe.py` and `image_config.py` decide (pure); `write_images.py` writes, with `bases/`, `environment/` and `oci/`;
`verify/` tests. The answer crosses to the controller as a BuildResult.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hedgerow.clock import Clock
from hedgerow.contracts.build import BuildRequest, BuildResult
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.image import PlatformImage, Verification
from packager.cache.layers import LayerCache
from packager.cache.scratch import scratch_folder
from packager.engine.port import ContainerEngine
from packager.environment.platforms import normal_platform, normal_platforms
from packager.environment.uv_command import Uv
from packager.known_builds import KnownBuild, find_known, keep_known, lay_out
from packager.oci.documents import Descriptor
from packager.oci.layout import OciLayout
from packager.oci.tar_layer import DiskEntry, content_digest
from packager.plan_key import PlatformFacts, build_inputs, plan_key
from packager.read_stages import read_stages
from packager.recipe import ModelFacts, SourceFacts, check_request, scoring_config
from packager.runtime_code import installed_code
from packager.settings import SITE_FOLDER
from packager.source_files import list_files, list_source, locate_script
from packager.stages import check_stages, in_order
from packager.verify.prover import Prover
from packager.write_images import (
    BuiltImage,
    Ground,
    Inputs,
    Report,
    Workshop,
    lay_grounds,
    size_of,
    write_artifact,
    write_docker_images,
)

if TYPE_CHECKING:
    from packager.distribution.access import RemoteAccess
    from packager.referrers import Referrers


@dataclass(frozen=True)
class Tools:
    """What the composition root hands to a build. ``uv``, ``engine`` and ``remote`` are asked for only when a build needs them.

    ``remote`` is how registries of base images are reached.
    """

    tool_version: str
    default_base: str | None
    ready_timeout_s: float
    sandbox_required: bool
    cache_bytes: int
    uv: Callable[[Path], Uv]
    engine: Callable[[], ContainerEngine | None]
    remote: Callable[[], RemoteAccess]
    prover: Prover
    clock: Clock


def build(request: BuildRequest, tools: Tools, report: Report) -> BuildResult:
    """Build, test and seal the image as an OCI layout in ``request.out``.

    Raises the errors of packager/errors.py; ``out`` is no layout then, and the cache holds only whole things.
    """
    request = _normal(request)
    check_request(request)
    if request.kind == "fpga":
        check_stages(request.models)
    with scratch_folder(Path(request.cache)) as scratch:
        cache = LayerCache(Path(request.cache), scratch)
        layout = OciLayout(Path(request.out))
        workshop = Workshop(layout, cache, tools.uv, tools.engine, tools.remote, tools.default_base, tools.tool_version, report)
        report(0.02, "reading models and source")
        inputs = _read_inputs(request, tools, scratch)
        grounds = lay_grounds(request, workshop)
        plan = _plan(inputs, grounds, tools)
        known = find_known(plan_key(plan), request, cache)
        if known is not None:
            report(1.0, f"nothing changed: {known.top.digest}")
            again = lay_out(known, f"{request.name}:{request.version}", layout, cache)
            return msgspec.structs.replace(again, base=_names_of_bases(grounds))  # the same base may have another name now
        made = _make(inputs, grounds, plan, workshop, tools)
        cache.prune(tools.cache_bytes, tools.clock.now())
    report(1.0, f"built {made.digest}")
    return made


def _normal(request: BuildRequest) -> BuildRequest:
    """Platforms by the names that everything else knows. Raises UnsupportedPlatform, PlatformRepeated."""
    if request.kind != "docker":
        return request
    bases = {normal_platform(platform): base for platform, base in request.bases.items()}
    return msgspec.structs.replace(request, platforms=normal_platforms(request.platforms or [""]), bases=bases)


def _read_inputs(request: BuildRequest, tools: Tools, scratch: Path) -> Inputs:
    models = tuple(ModelFacts(model, tuple(list_files(Path(model.folder)))) for model in in_order(request.models))
    source = None
    if request.script is not None:
        folder, script = locate_script(Path(request.script), Path(request.source) if request.source else None)
        files = list_source(folder, frozenset(request.allowed_secrets), only=None if request.source else script)
        content = content_digest([DiskEntry(file.path, file.source, file.size_bytes) for file in files], "")
        source = SourceFacts(script, tuple(files), content)
    code = installed_code(SITE_FOLDER, tools.tool_version) if request.kind == "docker" else None
    config = scoring_config(models, source, request.variables)
    if request.kind != "fpga":
        return Inputs(request, models, source, config, code)
    staging = read_stages(models, tools.prover, scratch)
    return Inputs(request, models, source, msgspec.structs.replace(config, stages=staging.stages), code, staging.proof)


def _plan(inputs: Inputs, grounds: list[Ground], tools: Tools) -> dict[str, str]:
    return build_inputs(
        inputs.request,
        inputs.config,
        [
            PlatformFacts(
                ground.platform, ground.base.digest, tuple(layer.digest for layer in ground.base.layers), ground.lock.digest
            )
            for ground in grounds
        ],
        tool_version=tools.tool_version,
        code_digest=inputs.code.digest if inputs.code else "",
        script_digest=inputs.source.digest if inputs.source else None,
    )


def _make(inputs: Inputs, grounds: list[Ground], plan: dict[str, str], workshop: Workshop, tools: Tools) -> BuildResult:
    """Write, test, seal, and only then remember it."""
    from packager.referrers import Referrers, build_report  # not for a build that is known: see lay_out

    request, layout, cache = inputs.request, workshop.layout, workshop.cache
    images = write_docker_images(inputs, grounds, workshop) if grounds else [write_artifact(inputs, workshop)]
    top = layout.add_top([image.manifest for image in images])
    referrers = Referrers(layout, top)
    referrers.add_report(build_report(request.kind, tools.tool_version, plan, images))
    referrers.add_sboms(request.kind, tools.tool_version, images, [model.ref for model in request.models])
    workshop.report(0.8, "testing the image" if request.verify else "writing down what was made")
    verification = _verify(inputs, images, workshop, tools)
    referrers.add_verification(verification)
    layout.seal(top, f"{request.name}:{request.version}", referrers.descriptors)
    result = _result(inputs, plan, tools, top, images, referrers, verification)
    blobs = layout.blobs.digests()
    keep_known(plan_key(plan), KnownBuild(result, top, tuple(referrers.descriptors), blobs), layout, cache)
    return result


def _verify(inputs: Inputs, images: list[BuiltImage], workshop: Workshop, tools: Tools) -> Verification:
    from packager.verify.choose import Candidate, Surroundings, verify_image

    candidates = [
        Candidate(image.platform, image.manifest, tuple(layer.digest for layer in image.stored_layers)) for image in images
    ]
    blobs, scratch = workshop.layout.blobs, workshop.cache.scratch
    around = Surroundings(blobs, scratch, tools.engine, tools.prover, tools.clock, tools.ready_timeout_s, tools.sandbox_required)
    return verify_image(inputs.request, inputs.tested, inputs.source, candidates, around)


def _result(
    inputs: Inputs,
    plan: dict[str, str],
    tools: Tools,
    top: Descriptor,
    images: list[BuiltImage],
    referrers: Referrers,
    verification: Verification,
) -> BuildResult:
    grounds = [image.ground for image in images if image.ground is not None]
    return BuildResult(
        digest=top.digest,
        media_type=top.media_type,
        size_bytes=size_of([top, *(part for image in images for part in image.parts)]),
        platforms=[
            PlatformImage(platform=image.platform, digest=image.manifest.digest, size_bytes=image.size_bytes) for image in images
        ],
        script_digest=inputs.source.digest if inputs.source else None,
        lock_digest=_one_digest([ground.lock.digest for ground in grounds]),
        base=_names_of_bases(grounds),
        base_digest=_one_digest([ground.base.digest for ground in grounds]),
        tool_version=tools.tool_version,
        plan_key=plan_key(plan),
        referrers=referrers.listed,
        notes=list(dict.fromkeys(note for ground in grounds for note in ground.notes)),
        verification=verification,
    )


def _names_of_bases(grounds: list[Ground]) -> str | None:
    return ", ".join(dict.fromkeys(ground.base_name for ground in grounds)) or None


def _one_digest(digests: list[str]) -> str | None:
    """The platforms' digest if they share one, else a digest over the list: several locks or bases together."""
    if len(set(digests)) <= 1:
        return digests[0] if digests else None
    return digest_of("\n".join(digests).encode())
