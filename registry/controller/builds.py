"""The story of an image build: pin versions, lay files out, let the packager build and test, store, register.

Only the last step makes the image known, in one transaction with the end of the activity; until then a failure at any
point leaves nothing but content without a name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.api import BuildImage
from hedgerow.contracts.build import BuildModel, BuildRequest, BuildResult
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.environment import Environment
from hedgerow.contracts.image import ImageRecord, ModelRef
from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.names import Reference
from hedgerow.contracts.work import Activity
from registry.blobs import BlobStore
from registry.blobs.errors import StorageUnavailable
from registry.controller.effects import Part, RunProcess, Story, Verdict, record, run_process
from registry.controller.file_work.tasks import Done, LaidFile, LayOut, Parts, TakeIn
from registry.controller.file_work.tasks import Part as StoredPart
from registry.controller.stories import StoryTools, answer_of, file_work, make_folder
from registry.store import blobs, environments, events, images, models
from registry.store.activities import BuildTask

IMAGE_BUILD = "image.build"
_FILES, _SOURCE = "files", "files/source"


@dataclass(frozen=True)
class Plan:
    """What the build is made of, read in one transaction."""

    wanted: BuildImage
    version: int
    models: tuple[ModelManifest, ...]
    environment: Environment | None


def build_image(tools: StoryTools, activity: Activity, request: bytes) -> Story:
    """Play an ``image.build`` activity; its result is {"image": "NAME:VERSION", "digest": …}."""
    wanted = decode(request, BuildTask)
    plan = yield from record(lambda connection, _lease: _plan(connection, wanted))
    folder = make_folder(tools.workspace.work / "builds" / activity.id)
    try:
        laid = LayOut(blobs=tools.blobs, root=str(folder / _FILES), files=_files(plan))
        yield from file_work(tools, folder, laid, Done, step="laying files out", span=(0.0, 0.05))
        built = yield from _package(tools, plan, folder)
        stored = TakeIn(blobs=tools.blobs, layout=str(folder / "out"), digest=built.digest, media_type=built.media_type)
        parts = yield from file_work(tools, folder, stored, Parts, step="storing the image", span=(0.92, 0.99))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    now = tools.clock.now()
    image = _image_record(plan, built, now)
    return Verdict(
        result={"image": f"{image.name}:{image.version}", "digest": image.digest},
        record=lambda connection, _lease: _register(connection, tools.store, image, parts.parts, now),
    )


def _plan(connection: Connection, wanted: BuildImage) -> Plan:
    found = tuple(models.get(connection, Reference.parse(text)) for text in wanted.models)
    environment = environments.get(connection, Reference.parse(wanted.environment)) if wanted.environment else None
    return Plan(wanted, images.next_version(connection, wanted.name), found, environment)


def _files(plan: Plan) -> list[LaidFile]:
    # Models are linked: the packager only reads them and checks their digest. The source is small, and checked here.
    of_models = [
        LaidFile(path=f"{_model_folder(manifest)}/{entry.path}", digest=entry.digest, link=True)
        for manifest in plan.models
        for entry in manifest.files
    ]
    return of_models + [LaidFile(path=f"source/{entry.path}", digest=entry.digest) for entry in plan.wanted.source]


def _model_folder(manifest: ModelManifest) -> str:
    return f"models/{manifest.name}/{manifest.version}"


def _package(tools: StoryTools, plan: Plan, folder: Path) -> Part[BuildResult]:
    order = folder / "request.json"
    try:
        atomic_write(order, encode(_build_request(tools, plan, folder)))
    except OSError as problem:
        raise StorageUnavailable(problem=os.strerror(problem.errno or 0)) from problem
    spec = tools.python.spec("packager", ["build", str(order)], folder)
    ended = yield from run_process(RunProcess(spec, "building", (0.05, 0.92)))
    return answer_of(ended, BuildResult, "building")


def _build_request(tools: StoryTools, plan: Plan, folder: Path) -> BuildRequest:
    wanted, environment = plan.wanted, plan.environment
    settings = {}
    if environment is not None:
        settings = {
            "requirements": environment.requirements,
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
            )
            for manifest in plan.models
        ],
        script=wanted.script,
        source=str(folder / _SOURCE) if wanted.source else None,
        platforms=wanted.platforms,
        base=wanted.base,
        verify=wanted.verify,
        out=str(folder / "out"),
        cache=str(tools.workspace.cache / "layers"),
        **settings,  # type: ignore[arg-type]  # three fields of three types, all taken from the same fields of Environment
    )


def _ref(manifest: ModelManifest) -> ModelRef:
    return ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest)


def _image_record(plan: Plan, built: BuildResult, now: datetime) -> ImageRecord:
    return ImageRecord(
        name=plan.wanted.name,
        version=plan.version,
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
        environment=None if plan.environment is None else f"{plan.environment.name}:{plan.environment.version}",
        tool_version=built.tool_version,
        tags=plan.wanted.tags,
        verification=built.verification,
        created_at=now,
    )


def _register(connection: Connection, store: BlobStore, image: ImageRecord, parts: Iterable[StoredPart], now: datetime) -> None:
    stored = sorted(parts, key=lambda part: part.digest)
    for part in stored:
        blobs.record_stored(connection, store, part.digest, part.size_bytes, now, chunk_hashes=part.chunk_hashes)
    images.insert(connection, image, [(part.digest, part.media_type) for part in stored])
    details = {"digest": image.digest, "models": ", ".join(f"{one.name}:{one.version}" for one in image.models)}
    subject = f"image/{image.name}:{image.version}"
    events.record(connection, kind="image.built", subject=subject, actor=events.system("controller"), now=now, details=details)
