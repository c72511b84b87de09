"""The story of pushing an image to somebody else's registry: lay its content out as an OCI layout, let the packager send it.

Nothing changes here but the activity. A push that was cut off is begun again: what the registry has is not sent twice.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.document import decode
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.names import Reference
from hedgerow.contracts.oci import Descriptor, index_bytes
from hedgerow.contracts.oci_layout import OCI_LAYOUT, blob_path
from hedgerow.contracts.push import PushRequest, PushResult, RegistryCredentials
from hedgerow.contracts.remote_image import RemoteImage
from hedgerow.contracts.work import Activity
from registry.blobs.errors import StorageUnavailable
from registry.controller.effects import Part, Story, Verdict, record
from registry.controller.file_work.tasks import Done, LaidFile, LayOut
from registry.controller.stories import StoryTools, file_work, make_folder, packager_work
from registry.errors import RegistryLoginMissing
from registry.store import events, image_referrers, images, outgoing_pushes, secrets
from registry.store.images import ImageBlob
from registry.store.outgoing_pushes import PushTask
from registry.vault import Vault

_LAYOUT = "layout"


@dataclass(frozen=True)
class Plan:
    """What is pushed, read in one transaction. ``top`` and ``beside`` are what the layout's index names."""

    image: ImageRecord
    content: list[ImageBlob]
    top: ImageBlob
    beside: list[ImageBlob]
    credentials: RegistryCredentials | None
    mount_from: list[str]


def push_image(tools: StoryTools, activity: Activity, request: bytes) -> Story:
    """Play an ``image.push`` activity; its result says where the image is now and what had to be sent."""
    task = decode(request, PushTask)
    plan = yield from record(lambda connection, _lease: _plan(connection, Vault(tools.workspace.keys), task))
    folder = make_folder(tools.workspace.work / "image-pushes" / activity.id)
    try:
        laid = LayOut(blobs=tools.blobs, root=str(folder / _LAYOUT), files=[_laid(blob) for blob in plan.content])
        yield from file_work(tools, folder, laid, Done, step="laying content out", span=(0.0, 0.05))
        pushed = yield from _push(tools, plan, task, folder)
    finally:
        # The password is in there, too.
        shutil.rmtree(folder, ignore_errors=True)
    return Verdict(
        result=_result(plan, pushed),
        record=lambda connection, _lease: _tell(connection, tools, plan, pushed),
    )


def _plan(connection: Connection, vault: Vault, task: PushTask) -> Plan:
    # First of all: see secrets.reveal.
    credentials = _credentials(connection, vault, task)
    image = images.get(connection, Reference.parse(task.image))
    content = outgoing_pushes.content_of(connection, image.name, image.version)
    by_digest = {blob.digest: blob for blob in content}
    beside = image_referrers.of_version(connection, image.name, image.version) if task.referrers else []
    known = outgoing_pushes.neighbours(connection, RemoteImage.parse(task.target))
    return Plan(
        image=image,
        content=content,
        top=by_digest[image.digest],
        beside=[by_digest[referrer.digest] for referrer in beside],
        credentials=credentials,
        mount_from=list(dict.fromkeys([*task.mount_from, *known])),
    )


def _credentials(connection: Connection, vault: Vault, task: PushTask) -> RegistryCredentials | None:
    if task.password is not None and task.username is not None:
        password = vault.open(task.password.name, task.password.sealed()).decode()
        return RegistryCredentials(username=task.username, password=password)
    if task.secret is None:
        return None
    value = secrets.reveal(connection, vault, task.secret)
    if task.username is not None:
        return RegistryCredentials(username=task.username, password=value)
    username, colon, password = value.partition(":")
    if not colon:
        raise RegistryLoginMissing(problem=f"secret {task.secret} holds no USER:PASSWORD, and no user was named")
    return RegistryCredentials(username=username, password=password)


def _laid(blob: ImageBlob) -> LaidFile:
    # Linked: the packager only reads, and the registry checks every digest.
    return LaidFile(path=blob_path(blob.digest), digest=blob.digest, link=True)


def _push(tools: StoryTools, plan: Plan, task: PushTask, folder: Path) -> Part[PushResult]:
    layout = folder / _LAYOUT
    request = PushRequest(
        layout=str(layout),
        source=plan.image.digest,
        target=task.target,
        credentials=plan.credentials,
        mount_from=plan.mount_from,
        referrers=task.referrers,
    )
    named = (plan.top, *plan.beside)
    entries = [Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size_bytes) for blob in named]
    try:
        atomic_write(layout / "oci-layout", OCI_LAYOUT)
        atomic_write(layout / "index.json", index_bytes(entries))
    except OSError as problem:
        raise StorageUnavailable(problem=os.strerror(problem.errno or 0)) from problem
    return (yield from packager_work(tools, folder, "push", request, PushResult, step="pushing", span=(0.05, 0.99)))


def _result(plan: Plan, pushed: PushResult) -> dict[str, str]:
    return {
        "image": f"{plan.image.name}:{plan.image.version}",
        "target": pushed.target,
        "reference": pushed.reference,
        "digest": pushed.digest,
        "pushed_bytes": str(pushed.pushed_bytes),
        # By digest and size: which layers had to travel, and no others did.
        "pushed": " ".join(f"{blob.digest}={blob.size_bytes}" for blob in pushed.pushed),
        "mounted": " ".join(pushed.mounted),
        "already_there": " ".join(pushed.already_there),
        "referrers": " ".join(pushed.referrers),
    }


def _tell(connection: Connection, tools: StoryTools, plan: Plan, pushed: PushResult) -> None:
    details = {"target": pushed.target, "digest": pushed.digest, "pushed_bytes": str(pushed.pushed_bytes)}
    subject = f"image/{plan.image.name}:{plan.image.version}"
    now, actor = tools.clock.now(), events.system("controller")
    events.record(connection, kind="image.pushed-elsewhere", subject=subject, actor=actor, now=now, details=details)
