"""The story of a build: check, read what is there, plan, write the layers, test the image, and only then call it built.

`recipe.py` and `image_config.py` decide (pure); `write_images.py` writes, with `bases/`, `environment/` and `oci/`;
`verify/` tests. The answer crosses to the controller as a BuildResult.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from hedgerow.contracts.build import BuildRequest, BuildResult
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.image import PlatformImage, Verification
from hedgerow.contracts.platforms import normal_platform, normal_platforms
from packager.cache.layers import LayerCache
from packager.cache.scratch import scratch_folder
from packager.known_builds import KnownBuild, find_known, keep_known, lay_out
from packager.oci.layout import OciLayout
from packager.oci.tar_layer import DiskEntry, content_digest
from packager.plan_key import PlatformFacts, build_inputs, plan_key
from packager.progress import Report
from packager.read_stages import read_stages
from packager.recipe import ModelFacts, SourceFacts, check_request, image_python, scoring_config
from packager.rests_on import look_at_bases, rests_on
from packager.runtime_code import installed_code
from packager.settings import SITE_FOLDER
from packager.source_files import list_model, list_source, locate_script
from packager.stages import check_stages, in_order
from packager.tools import Tools, Workshop
from packager.write_images import (
    BuiltImage,
    Ground,
    Inputs,
    lay_grounds,
    size_of,
    write_artifact,
    write_docker_images,
)


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
        workshop = Workshop(OciLayout(Path(request.out)), cache, tools, report)
        report(0.02, "reading models and source")
        inputs = _read_inputs(request, workshop)
        bases = look_at_bases(request, tools.default_base, tools.clock.now())
        grounds = lay_grounds(request, workshop)
        facts = rests_on(request, bases, [ground.lock for ground in grounds], cache)
        plan = _plan(inputs, grounds, tools.tool_version)
        known = find_known(plan_key(plan), request, cache)
        if known is not None:
            report(1.0, f"nothing changed: {known.top.digest}")
            again = lay_out(known, _title(request), workshop.layout, cache)
            # The same base may have another name now, and lie elsewhere.
            return msgspec.structs.replace(again, base=_names_of_bases(grounds), rests_on=facts)
        made = _make(inputs, grounds, plan, workshop)
        cache.prune(tools.cache_bytes, tools.clock.now())
    report(1.0, f"built {made.digest}")
    return msgspec.structs.replace(made, rests_on=facts)


def _normal(request: BuildRequest) -> BuildRequest:
    """Platforms and Python by the names that everything else knows.

    Raises UnsupportedPlatform, PlatformRepeated, PythonUnsupported.
    """
    if request.kind != "docker":
        return request
    bases = {normal_platform(platform): base for platform, base in request.bases.items()}
    return msgspec.structs.replace(
        request,
        platforms=sorted(normal_platforms(request.platforms or [""])),  # an image is not another one by their order
        bases=bases,
        python_version=image_python(request.python_version),
    )


def _read_inputs(request: BuildRequest, workshop: Workshop) -> Inputs:
    allowed = frozenset(request.allowed_secrets)
    models = tuple(
        ModelFacts(model, tuple(list_model(Path(model.folder), model.ref.name, allowed))) for model in in_order(request.models)
    )
    source = _read_source(request)
    code = installed_code(SITE_FOLDER, workshop.tools.tool_version) if request.kind == "docker" else None
    inputs = Inputs(request, models, source, scoring_config(models, source, request.variables), code)
    if request.kind != "fpga":
        return inputs
    staging = read_stages(models, workshop.tools.prover, workshop.scratch)
    return replace(inputs, config=msgspec.structs.replace(inputs.config, stages=staging.stages), proof=staging.proof)


def _read_source(request: BuildRequest) -> SourceFacts | None:
    if request.script is None:
        return None
    folder, script = locate_script(Path(request.script), Path(request.source) if request.source else None)
    files = list_source(folder, frozenset(request.allowed_secrets), only=None if request.source else script)
    content = content_digest([DiskEntry(file.path, file.source, file.size_bytes) for file in files], "")
    return SourceFacts(script, tuple(files), content)


def _plan(inputs: Inputs, grounds: list[Ground], tool_version: str) -> dict[str, str]:
    """Everything that decides the image, by name: the key that a build is known by is made of it."""
    return build_inputs(
        inputs.request,
        inputs.config,
        [_platform_facts(ground) for ground in grounds],
        tool_version=tool_version,
        code_digest=inputs.code.digest if inputs.code else "",
        script_digest=inputs.source.digest if inputs.source else None,
    )


def _platform_facts(ground: Ground) -> PlatformFacts:
    layers = tuple(layer.digest for layer in ground.base.layers)
    return PlatformFacts(ground.platform, ground.base.digest, layers, ground.lock.digest)


def _make(inputs: Inputs, grounds: list[Ground], plan: dict[str, str], workshop: Workshop) -> BuildResult:
    """Write, test, seal, and only then remember it."""
    from packager.referrers import Referrers, build_report  # not for a build that is known: see lay_out

    request, layout, tool_version = inputs.request, workshop.layout, workshop.tools.tool_version
    images = write_docker_images(inputs, grounds, workshop) if grounds else [write_artifact(inputs, workshop)]
    top = layout.add_top([image.manifest for image in images])
    referrers = Referrers(layout, top)
    referrers.add_report(build_report(request.kind, tool_version, plan, images))
    referrers.add_sboms(request.kind, tool_version, images, [model.ref for model in request.models])
    workshop.report(0.8, "testing the image" if request.verify else "writing down what was made")
    verification = _verify(inputs, images, workshop)
    referrers.add_verification(verification)
    layout.seal(top, _title(request), referrers.descriptors)
    made = BuildResult(
        digest=top.digest,
        media_type=top.media_type,
        size_bytes=size_of([top, *(part for image in images for part in image.parts)]),
        platforms=[_listed(image) for image in images],
        script_digest=inputs.source.digest if inputs.source else None,
        lock_digest=_one_digest([ground.lock.digest for ground in grounds]),
        base=_names_of_bases(grounds),
        base_digest=_one_digest([ground.base.digest for ground in grounds]),
        tool_version=tool_version,
        plan_key=plan_key(plan),
        referrers=referrers.listed,
        notes=_notes(images),
        verification=verification,
    )
    known = KnownBuild(made, top, tuple(referrers.descriptors), layout.blobs.digests())
    keep_known(plan_key(plan), known, layout, workshop.cache)
    return made


def _verify(inputs: Inputs, images: list[BuiltImage], workshop: Workshop) -> Verification:
    from packager.verify.choose import Candidate, Surroundings, verify_image

    candidates = [
        Candidate(image.platform, image.manifest, tuple(layer.digest for layer in image.stored_layers)) for image in images
    ]
    around = Surroundings(workshop.layout.blobs, workshop.scratch, workshop.tools)
    return verify_image(inputs.request, inputs.tested, inputs.source, candidates, around)


def _title(request: BuildRequest) -> str:
    return f"{request.name}:{request.version}"


def _listed(image: BuiltImage) -> PlatformImage:
    return PlatformImage(platform=image.platform, digest=image.manifest.digest, size_bytes=image.size_bytes)


def _notes(images: list[BuiltImage]) -> list[str]:
    """For a person, each once. Those of ``images``: what was noted of the script stands there, not in the grounds before it."""
    return list(dict.fromkeys(note for image in images if image.ground for note in image.ground.notes))


def _names_of_bases(grounds: list[Ground]) -> str | None:
    return ", ".join(dict.fromkeys(ground.base_name for ground in grounds)) or None


def _one_digest(digests: list[str]) -> str | None:
    """The platforms' digest if they share one, else a digest over the list: several locks or bases together."""
    if len(set(digests)) <= 1:
        return digests[0] if digests else None
    return digest_of("\n".join(digests).encode())
