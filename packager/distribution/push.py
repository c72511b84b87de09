"""The story of a push: read what there is, send what the registry lacks, manifests from the leaves up, the tag last.

Whoever pulls the tag so gets the image as it was or as it is, with everything that lies beside it, never a part.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from hedgerow.contracts.names import MEDIA_OCI_INDEX
from hedgerow.contracts.oci import Descriptor, Index, index_bytes
from hedgerow.contracts.push import PushedBlob, PushRequest, PushResult
from hedgerow.contracts.remote_image import RemoteImage, RemoteReferenceInvalid, push_target
from packager.distribution.access import RemoteAccess
from packager.distribution.errors import RemoteImageUnknown
from packager.distribution.login import Login
from packager.distribution.parallel import in_parallel
from packager.distribution.pull import fetch
from packager.distribution.push_plan import ManifestStep, PushPlan, plan_push
from packager.distribution.repository import NOT_FOUND, Repository
from packager.distribution.upload import BlobUpload, Outcome
from packager.oci.blobs import BlobFolder
from packager.oci.documents import read_foreign
from packager.oci.layout import read_index
from packager.progress import Report

_OK, _CREATED, _ACCEPTED = 200, 201, 202
_SENT = {_OK, _CREATED, _ACCEPTED}
# How much of the way the blobs are.
_BLOBS_UNTIL = 0.95


@dataclass
class _Progress:
    """Of several blobs at once."""

    size: int
    report: Report
    _done: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def at(self, digest: str, done: int) -> None:
        with self._lock:
            self._done[digest] = done
            share = sum(self._done.values()) / max(1, self.size)
            self.report(_BLOBS_UNTIL * share, f"sending content ({share:.0%})")


def push(request: PushRequest, access: RemoteAccess, report: Report) -> PushResult:
    """Raises BaseUnreadable and BlobCorrupt (of the layout), EgressRefused, and what distribution/errors.py has.

    What was sent until then stays in the registry, under no name, and is not sent again.
    """
    target = _target(request)
    layout = Path(request.layout)
    report(0.0, "reading the image")
    plan = plan_push(layout, request.source, read_index(layout).manifests if request.referrers else [])
    with Repository(target, _as_asked(request, target, access), "pull,push", request.mount_from) as repository:
        outcomes = _send_blobs(plan, request, repository, report)
        report(_BLOBS_UNTIL, "sending manifests")
        sent = [step.digest for step in (*plan.below, *plan.beside) if _send_manifest(repository, step, step.digest)]
        _tell_referrers(repository, plan.beside)
        if _send_manifest(repository, plan.top, target.wanted):
            sent.append(plan.top.digest)
    report(1.0, f"pushed {plan.top.digest}")
    return _result(plan, target, outcomes, sent)


def _target(request: PushRequest) -> RemoteImage:
    target = push_target(request.target)
    if target.digest not in (None, request.source):
        raise RemoteReferenceInvalid(reference=request.target, problem=f"the image that is pushed is {request.source}")
    return target


def _as_asked(request: PushRequest, target: RemoteImage, access: RemoteAccess) -> RemoteAccess:
    logins = dict(access.logins)
    if request.credentials is not None:
        logins[target.host] = Login(request.credentials.username, request.credentials.password)
    return replace(access, logins=logins, attempts=request.attempts)


def _send_blobs(plan: PushPlan, request: PushRequest, repository: Repository, report: Report) -> dict[str, Outcome]:
    source, progress = BlobFolder(Path(request.layout)), _Progress(plan.size_bytes, report)

    def send(blob: Descriptor) -> Outcome:
        upload = BlobUpload(repository, blob, source.path(blob.digest), request.chunk_bytes, partial(progress.at, blob.digest))
        outcome = upload.send(request.mount_from)
        progress.at(blob.digest, blob.size)
        return outcome

    outcomes = in_parallel([partial(send, blob) for blob in plan.blobs], repository)
    return {blob.digest: outcome for blob, outcome in zip(plan.blobs, outcomes, strict=True)}


def _send_manifest(repository: Repository, step: ManifestStep, name: str) -> bool:
    """Under a tag or its digest; whether it had to be sent."""

    def is_there() -> bool:
        with repository.ask("HEAD", repository.address(f"manifests/{name}"), {"Accept": step.media_type}) as answer:
            if answer.status != NOT_FOUND:
                repository.expect(answer, {_OK}, f"image {repository.image}")
            same = answer.headers.get("docker-content-digest") == step.digest or name == step.digest
            return answer.status == _OK and same

    if repository.tried(is_there):
        return False
    _put(repository, name, step.media_type, step.data)
    return True


def _put(repository: Repository, name: str, media_type: str, data: bytes) -> None:
    def put() -> None:
        headers = {"Content-Type": media_type}
        with repository.ask("PUT", repository.address(f"manifests/{name}"), headers, data, len(data)) as answer:
            repository.expect(answer, _SENT, f"the manifest {name}")

    repository.tried(put)


def _tell_referrers(repository: Repository, beside: tuple[ManifestStep, ...]) -> None:
    """A registry that keeps no lists of referrers gets them as tags `sha256-HEX` (distribution specification, 1.1)."""
    subjects = dict.fromkeys(step.subject for step in beside if step.subject is not None)
    for subject in subjects:
        if not repository.tried(partial(_lists_referrers, repository, subject)):
            _list_by_tag(repository, subject, [step.entry for step in beside if step.subject == subject])


def _lists_referrers(repository: Repository, subject: str) -> bool:
    with repository.ask("GET", repository.address(f"referrers/{subject}"), {"Accept": MEDIA_OCI_INDEX}) as answer:
        return answer.status == _OK and answer.headers.get_content_type() == MEDIA_OCI_INDEX


def _list_by_tag(repository: Repository, subject: str, entries: list[Descriptor]) -> None:
    tag = subject.replace(":", "-")
    try:
        there = read_foreign(fetch(repository, tag).data, Index, str(repository.image)).manifests
    except RemoteImageUnknown:
        there = []
    known = {entry.digest for entry in there}
    fresh = [entry for entry in entries if entry.digest not in known]
    if fresh:
        _put(repository, tag, MEDIA_OCI_INDEX, index_bytes([*there, *fresh]))


def _result(plan: PushPlan, target: RemoteImage, outcomes: dict[str, Outcome], sent: list[str]) -> PushResult:
    def which(outcome: Outcome) -> list[Descriptor]:
        return [blob for blob in plan.blobs if outcomes[blob.digest] == outcome]

    pushed = which("pushed")
    return PushResult(
        digest=plan.top.digest,
        target=str(target),
        reference=f"{target.host}/{target.repository}@{plan.top.digest}",
        pushed=[PushedBlob(digest=blob.digest, media_type=blob.media_type, size_bytes=blob.size) for blob in pushed],
        pushed_bytes=sum(blob.size for blob in pushed),
        mounted=[blob.digest for blob in which("mounted")],
        already_there=[blob.digest for blob in which("already_there")],
        manifests=sent,
        referrers=[step.digest for step in plan.beside],
    )
