"""The story of an image build: pin versions, lay files out, let the packager build and test, store, register.

Only the last step makes the image known, in one transaction with the end of the activity; until then a failure at any
point leaves nothing but content without a name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from hedgerow.contracts.api_images import BuildImage
from hedgerow.contracts.build import BuildModel, BuildRequest, BuildResult
from hedgerow.contracts.document import decode
from hedgerow.contracts.environment import Environment
from hedgerow.contracts.image import ImageRecord, ModelRef, Referrer
from hedgerow.contracts.model import FileEntry, ModelManifest
from hedgerow.contracts.names import Digest, Reference
from hedgerow.contracts.work import Activity
from registry.blobs import BlobStore
from registry.controller.conversions import convert_if_needed
from registry.controller.effects import Note, Part, Story, Verdict, aside, record
from registry.controller.file_work.tasks import LaidFile, LayOut, Parts, TakeIn
from registry.controller.file_work.tasks import Part as StoredPart
from registry.controller.files_at_hand import laid_out, taken_in
from registry.controller.installation import fingerprint
from registry.controller.known_answers import Answer, KnownAnswers, question
from registry.controller.stories import StoryTools, make_folder, packager_work
from registry.store import blobs, environments, events, images, models
from registry.store.activities import BuildTask

IMAGE_BUILD = "image.build"
_FILES, _SOURCE = "files", "files/source"
# How far a build is when the models that had to be are converted.
_CONVERTED = 0.4
_PACKAGED = 0.92


@dataclass(frozen=True)
class Plan:
    """What the build is made of, read in one transaction. ``version`` is what comes next now; no number is taken yet."""

    wanted: BuildImage
    version: int
    models: tuple[ModelManifest, ...]
    environment: Environment | None


def build_image(tools: StoryTools, activity: Activity, request: bytes) -> Story:
    """Play an ``image.build`` activity; its result is {"image": "NAME:VERSION", "digest": …}."""
    wanted = decode(request, BuildTask)
    plan = yield from record(lambda connection, _lease: _plan(connection, wanted))
    # A conversion runs as a user of its own, who must be able to pass.
    folder = make_folder(tools.workspace.work / "builds" / activity.id, mode=0o711)
    try:
        ready = yield from convert_if_needed(tools, wanted.kind, plan.models, folder, span=(0.0, _CONVERTED))
        # From here on only the packager comes here: images of others under test could pass, too, and read what is built.
        folder.chmod(0o700)
        begin = _CONVERTED if ready != plan.models else 0.0
        plan = replace(plan, models=ready)
        key, same = yield from _made_before(tools, plan, folder)
        if same is not None:
            yield Note(f"nothing changed: {same.digest}")
            return _unchanged(same)
        built = yield from _build(tools, plan, folder, key, begin)
        tested = built.verification.state == "passed"
        same = yield from record(
            lambda connection, _lease: _same_image(connection, plan, built.digest, tools.clock.now(), tested=tested)
        )
        if same is not None:
            return _unchanged(same)
        parts = yield from _store(tools, activity.id, folder, built, anew=wanted.rebuild)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    now = tools.clock.now()
    version = yield from record(lambda connection, _lease: images.next_version(connection, wanted.name))
    image = _image_record(plan, built, version, now)
    return Verdict(
        result={"image": f"{image.name}:{image.version}", "digest": image.digest},
        record=lambda connection, _lease: _register(connection, tools.store, image, built.referrers, parts.parts, now),
    )


def _build(tools: StoryTools, plan: Plan, folder: Path, key: Digest, begin: float) -> Part[BuildResult]:
    """The image as a layout in ``folder``; what it rests on is remembered under ``key``."""
    laid = LayOut(blobs=tools.blobs, root=str(folder / _FILES), files=_files(plan))
    yield from laid_out(tools, folder, laid, step="laying files out", span=(begin, begin + 0.05))
    built = yield from _package(tools, plan, folder, begin + 0.05)
    if built.rests_on is not None:
        answer = Answer(key=key, digest=built.digest, rests_on=built.rests_on)
        yield from aside(lambda: _answers(tools).keep(plan.wanted.name, answer))
    return built


def _made_before(tools: StoryTools, plan: Plan, folder: Path) -> Part[tuple[Digest, ImageRecord | None]]:
    """The key of what is asked for, and the image that it led to before, where nothing that it rests on has changed."""
    request = _build_request(tools, plan, folder)
    environment = tools.python.spec("packager", [], folder).environment

    def look() -> tuple[Digest, Digest | None]:
        key = question(request, plan.wanted.source, fingerprint(), environment)
        if plan.wanted.rebuild or plan.wanted.upgrade:
            return key, None
        return key, _answers(tools).find(plan.wanted.name, key, tools.clock.now())

    key, digest = yield from aside(look)
    if digest is None:
        return key, None
    # As if it was tested now: an image that never was is no answer for who wants a test.
    now = tools.clock.now()
    return key, (yield from record(lambda connection, _lease: _same_image(connection, plan, digest, now, tested=True)))


def _answers(tools: StoryTools) -> KnownAnswers:
    return KnownAnswers(tools.workspace.cache / "answers")


def _unchanged(image: ImageRecord) -> Verdict:
    return Verdict(result={"image": f"{image.name}:{image.version}", "digest": image.digest, "unchanged": "true"})


def _store(tools: StoryTools, activity_id: str, folder: Path, built: BuildResult, *, anew: bool) -> Part[Parts]:
    stored = TakeIn(
        blobs=tools.blobs,
        layout=str(folder / "out"),
        digest=built.digest,
        media_type=built.media_type,
        referrers=[referrer.digest for referrer in built.referrers],
    )
    step, span = "storing the image", (_PACKAGED, 0.99)
    return (yield from taken_in(tools, activity_id, folder, stored, anew=anew, step=step, span=span))


def _same_image(connection: Connection, plan: Plan, digest: Digest, now: datetime, *, tested: bool) -> ImageRecord | None:
    """The newest version that is this very image, made of the same records and tested no less; new tags are set on it.

    ``tested``: whether the image passed its test now.
    """
    wanted = plan.wanted
    if wanted.rebuild:
        return None
    found = images.with_digest(connection, wanted.name, digest)
    if found is None or found.models != [_ref(one) for one in plan.models] or found.environment != _environment_name(plan):
        return None
    was_tested = found.verification is not None and found.verification.state == "passed"
    if wanted.verify and tested and not was_tested:
        return None
    held = images.lock(connection, Reference(found.name, found.version))
    changed = images.change_tags(connection, held, wanted.tags)
    if changed.revision != held.revision:
        subject, details = f"image/{held.name}:{held.version}", {"changed": "tags", "revision": str(changed.revision)}
        actor = events.system("controller")
        events.record(connection, kind="image.changed", subject=subject, actor=actor, now=now, details=details)
    return changed


def _plan(connection: Connection, wanted: BuildImage) -> Plan:
    found = tuple(models.get(connection, Reference.parse(text)) for text in wanted.models)
    environment = environments.get(connection, Reference.parse(wanted.environment)) if wanted.environment else None
    return Plan(wanted, images.version_to_come(connection, wanted.name), found, environment)


def _files(plan: Plan) -> list[LaidFile]:
    # Models are linked: the packager only reads them and checks their digest. The source is small, and checked here.
    of_models = [
        LaidFile(path=f"{_model_folder(manifest)}/{entry.path}", digest=entry.digest, link=True)
        for manifest in plan.models
        for entry in manifest.files
    ]
    found = [_sample(plan, manifest) for manifest in plan.models]
    samples = [LaidFile(path=place, digest=entry.digest) for place, entry in found if entry is not None]
    return [*of_models, *samples, *(LaidFile(path=f"source/{entry.path}", digest=entry.digest) for entry in plan.wanted.source)]


def _sample(plan: Plan, manifest: ModelManifest) -> tuple[str, FileEntry | None]:
    """Where the sample input of a model is laid, for the test of the script; only one that can be a request's body."""
    entry = manifest.sample_input
    fits = entry is not None and plan.wanted.script is not None and entry.path.endswith(".json")
    return f"samples/{manifest.name}/{manifest.version}.json", entry if fits else None


def _model_folder(manifest: ModelManifest) -> str:
    return f"models/{manifest.name}/{manifest.version}"


def _package(tools: StoryTools, plan: Plan, folder: Path, begin: float) -> Part[BuildResult]:
    request = _build_request(tools, plan, folder)
    return (yield from packager_work(tools, folder, "build", request, BuildResult, step="building", span=(begin, _PACKAGED)))


def _build_request(tools: StoryTools, plan: Plan, folder: Path) -> BuildRequest:
    wanted, environment = plan.wanted, plan.environment
    settings = {}
    if environment is not None:
        settings = {
            "requirements": environment.requirements,
            "conda_packages": environment.conda_packages,
            "channels": environment.channels,
            "python_version": environment.python_version,
            "variables": environment.variables,
        }
    return BuildRequest(
        name=wanted.name,
        version=plan.version,
        kind=wanted.kind,
        models=[
            BuildModel(
                ref=_ref(manifest),
                folder=str(folder / _FILES / _model_folder(manifest)),
                inputs=manifest.inputs,
                outputs=manifest.outputs,
                stage=wanted.stages[number] if wanted.stages else None,
                sample_input=_sample_path(plan, manifest, folder),
            )
            for number, manifest in enumerate(plan.models)
        ],
        script=wanted.script,
        source=str(folder / _SOURCE) if wanted.source else None,
        platforms=wanted.platforms,
        base=wanted.base,
        bases=wanted.bases,
        compression=wanted.compression,
        dockerfile=wanted.dockerfile,
        allowed_secrets=[str(path) for path in wanted.allowed_secrets],
        verify=wanted.verify,
        rebuild=wanted.rebuild,
        upgrade=wanted.upgrade,
        out=str(folder / "out"),
        cache=str(tools.workspace.cache / "layers"),
        **settings,  # type: ignore[arg-type]  # fields of several types, all taken from the same fields of Environment
    )


def _sample_path(plan: Plan, manifest: ModelManifest, folder: Path) -> str | None:
    place, entry = _sample(plan, manifest)
    return str(folder / _FILES / place) if entry is not None else None


def _ref(manifest: ModelManifest) -> ModelRef:
    return ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest)


def _environment_name(plan: Plan) -> str | None:
    return None if plan.environment is None else f"{plan.environment.name}:{plan.environment.version}"


def _image_record(plan: Plan, built: BuildResult, version: int, now: datetime) -> ImageRecord:
    return ImageRecord(
        name=plan.wanted.name,
        version=version,
        kind=plan.wanted.kind,
        digest=built.digest,
        media_type=built.media_type,
        size_bytes=built.size_bytes,
        platforms=built.platforms,
        models=[_ref(manifest) for manifest in plan.models],
        script_digest=built.script_digest,
        lock_digest=built.lock_digest,
        base=built.base,
        base_digest=built.base_digest,
        environment=_environment_name(plan),
        tool_version=built.tool_version,
        plan_key=built.plan_key,
        notes=built.notes,
        tags=plan.wanted.tags,
        verification=built.verification,
        created_at=now,
    )


def _register(
    connection: Connection,
    store: BlobStore,
    image: ImageRecord,
    referrers: Iterable[Referrer],
    parts: Iterable[StoredPart],
    now: datetime,
) -> None:
    stored = sorted(parts, key=lambda part: part.digest)
    for part in stored:
        blobs.record_stored(connection, store, part.digest, part.size_bytes, now, chunk_hashes=part.chunk_hashes)
    images.insert(connection, image, [(part.digest, part.media_type) for part in stored], referrers)
    details = {"digest": image.digest, "models": ", ".join(f"{one.name}:{one.version}" for one in image.models)}
    subject = f"image/{image.name}:{image.version}"
    events.record(connection, kind="image.built", subject=subject, actor=events.system("controller"), now=now, details=details)
