"""Images: build them from models, look at them, delete them."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import msgspec

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_images import BuildImage, ChangeImage, PushImage
from hedgerow.contracts.build import Compression
from hedgerow.contracts.build_report import BuildReport
from hedgerow.contracts.image import ImageKind, ImageRecord, Referrer, StageName
from hedgerow.contracts.oci import Descriptor, Index
from hedgerow.contracts.work import Activity
from hedgerow.sdk.addresses import address
from hedgerow.sdk.blobs import upload_missing
from hedgerow.sdk.docker_login import docker_login as kept_login
from hedgerow.sdk.errors import ApiError
from hedgerow.sdk.explain import Explanation, explain
from hedgerow.sdk.filters import label_filters
from hedgerow.sdk.image_files import ExportedImage, LoadedImage, export, load
from hedgerow.sdk.image_tar import Progress
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.secret_search import collect_source
from hedgerow.sdk.transport import Query, Transport

_PATH = "/api/v1/images"


class Images:
    """``client.images``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def build(
        self,
        name: str,
        models: Sequence[str] = (),
        *,
        stages: Mapping[StageName, str] | None = None,
        kind: ImageKind = "onnx",
        script: str | None = None,
        source: str | Path | None = None,
        environment: str | None = None,
        platforms: Sequence[str] = ("linux/amd64",),
        base: str | None = None,
        bases: Mapping[str, str] | None = None,
        compression: Compression = "gzip",
        dockerfile: bool = False,
        allowed_secrets: Sequence[str] = (),
        verify: bool = True,
        rebuild: bool = False,
        upgrade: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> Activity:
        """Start a build; wait with ``client.activities.wait``. Its result holds ``image`` (``name:version``) and ``digest``,
        and ``unchanged`` when an equal version was there already.

        ``stages`` (kind fpga) are models by the stage that each is: pre, accelerated, post. Kind onnx converts models that are
        not ONNX first. ``script`` is relative to ``source``, a folder that is uploaded with it. ``bases`` are bases of single
        platforms. ``allowed_secrets`` are files that look like secrets and are wanted in the image: of ``source``, or
        ``MODEL/PATH`` of a model. The others mean what they mean for ``hedgerow image build``.

        Raises SecretInSource before anything is sent, FileChanged, NotARegularFile, NothingToRegister, ApiError.
        """
        found = collect_source(Path(source), allowed_secrets) if source is not None else []
        upload_missing(self._transport, found)
        request = BuildImage(
            name=name,
            kind=kind,
            models=[*models, *(stages or {}).values()],
            stages=list(stages or {}),
            script=script,
            source=[file.entry for file in found],
            environment=environment,
            platforms=list(platforms),
            base=base,
            bases=dict(bases or {}),
            compression=compression,
            dockerfile=dockerfile,
            allowed_secrets=list(allowed_secrets),
            verify=verify,
            rebuild=rebuild,
            upgrade=upgrade,
            tags=dict(tags or {}),
        )
        return self._transport.call("POST", _PATH, Activity, body=request)

    def get(self, reference: str) -> ImageRecord:
        return self._transport.call("GET", address(_PATH, reference), ImageRecord)

    def push(
        self,
        reference: str,
        target: str,
        *,
        username: str | None = None,
        password: str | None = None,
        secret: str | None = None,
        docker_login: bool = False,
        insecure: bool = False,
        mount_from: Sequence[str] = (),
        referrers: bool = True,
    ) -> Activity:
        """Start a push to another registry (``HOST[:PORT]/NAME:TAG``); wait with ``client.activities.wait``.

        Who we are there: ``username`` and ``password``, which are kept sealed, or ``secret``, the name of one that holds the
        password, or ``USER:PASSWORD``. Or ``docker_login``: what `docker login` or `podman login` left on this machine, with
        credential helpers; for the user ``<token>`` the password is an identity token. ``insecure``: the registry speaks plain
        http. ``mount_from`` are repositories there that may have some of the content. The result says which blobs were
        ``pushed``, ``mounted`` or ``already_there``.

        Raises ApiError, for example ``remote_reference_invalid``: the target names its registry, also Docker Hub (docker.io).
        With ``docker_login``, which goes before the others, also DockerLoginUnknown, RemoteReferenceInvalid, LoginsUnreadable,
        LoginHelperMissing, LoginHelperFailed.
        """
        if docker_login:
            username, password = kept_login(target)
        request = PushImage(
            target=f"http://{target}" if insecure and "://" not in target else target,
            username=username,
            password=password,
            secret=secret,
            mount_from=list(mount_from),
            referrers=referrers,
        )
        return self._transport.call("POST", address(_PATH, reference, "push"), Activity, body=request)

    def report(self, reference: str) -> BuildReport:
        """What the image is made of, layer by layer and file by file.

        Raises ApiError (``nothing_beside_image``) for one that was pushed from elsewhere.
        """
        return self._transport.call("GET", address(_PATH, reference, "report"), BuildReport)

    def explain(self, reference: str, against: str | None = None) -> Explanation:
        """What the image weighs, and why it differs from ``against``; by default from the version of its name before.

        Where there is no such version, or nothing is known of it, nothing is compared.
        """
        image = self.get(reference)
        title = f"{image.name}:{image.version}"
        new, old = self.report(title), None
        other = self.get(against) if against is not None else self._before(image)
        if other is not None:
            old = self._report_or_none(other) if against is None else self.report(f"{other.name}:{other.version}")
        compared = f"{other.name}:{other.version}" if other is not None and old is not None else None
        return msgspec.structs.replace(explain(new, old), image=title, against=compared)

    def sbom(self, reference: str, platform: str | None = None) -> bytes:
        """The bill of materials, CycloneDX in JSON; ``platform`` must be said where the image has several."""
        path = address(_PATH, reference, "sbom")
        asked = "" if platform is None else f"?platform={quote(platform, safe='')}"
        return b"".join(self._transport.download(path + asked))

    def referrers(self, reference: str, artifact_type: str | None = None) -> builtins.list[Referrer]:
        """What lies beside the image itself (not beside one platform of it): SBOM, build report, signatures."""
        record = self.get(reference)
        path = f"/v2/{record.name}/referrers/{record.digest}"
        index = self._transport.call("GET", path, Index, query={"artifactType": artifact_type})
        return [_referrer(one, record.digest) for one in index.manifests]

    def export(
        self,
        reference: str,
        target: str | Path | BinaryIO,
        *,
        platform: str | None = None,
        replace: bool = False,
        referrers: bool = False,
        on_progress: Progress | None = None,
    ) -> ExportedImage:
        """One tar that ``docker load`` and OCI tools read, into a file (there only when it is whole) or a binary stream.

        Without ``platform`` (``linux/arm64``) it holds all that there are; with ``referrers``, what lies beside it, too.
        Raises OutputExists (unless ``replace``), NoSuchPlatform, DownloadDamaged, ApiError, ServerUnreachable, OSError.
        """
        record, place = self.get(reference), Path(target) if isinstance(target, str) else target
        return export(
            self._transport,
            record,
            place,
            platform=platform,
            replace=replace,
            referrers=referrers,
            on_progress=on_progress,
        )

    def load(
        self,
        reference: str,
        *,
        engine: str | None = None,
        platform: str | None = None,
        on_progress: Progress | None = None,
    ) -> LoadedImage:
        """Into a Docker engine, as ``NAME:VERSION``; ``engine`` is its address, None what DOCKER_HOST says.

        Raises ImageNotLoadable (an ONNX artifact), EngineUnreachable, MissingExtra, NoSuchPlatform, and what export raises.
        """
        record = self.get(reference)
        return load(self._transport, record, engine=engine, platform=platform, on_progress=on_progress)

    def list(
        self,
        limit: int = PAGE_ITEMS,
        after: str | None = None,
        *,
        name: str | None = None,
        kind: ImageKind | None = None,
        model: str | None = None,
        digest: str | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> Page[ImageRecord]:
        """Newest first. ``name`` may end with a star; ``model`` is a reference: with a name alone, any version of it.

        ``tags`` must all be there, None stands for any value.
        """
        narrowed = {"name": name, "kind": kind, "model": model, "digest": digest, "tag": label_filters(tags)}
        query: Query = {"limit": limit, "after": after, **narrowed}
        return self._transport.call("GET", _PATH, Page[ImageRecord], query=query)

    def iterate(
        self,
        *,
        name: str | None = None,
        kind: ImageKind | None = None,
        model: str | None = None,
        digest: str | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> Iterator[ImageRecord]:
        """Every version that fits, newest first, read page by page."""
        return walk(lambda after: self.list(WALK_ITEMS, after, name=name, kind=kind, model=model, digest=digest, tags=tags))

    def change_tags(self, reference: str, tags: Mapping[str, str | None]) -> ImageRecord:
        """Set tags; those with the value None are taken away."""
        return self._transport.call("PATCH", address(_PATH, reference), ImageRecord, body=ChangeImage(tags=dict(tags)))

    def delete(self, reference: str, *, force: bool = False) -> None:
        """Refused (``in_use``) while a deployment, a device or an edge deployment uses it, unless an owner forces it."""
        self._transport.delete(address(_PATH, reference), query={"force": True} if force else None)

    def _before(self, image: ImageRecord) -> ImageRecord | None:
        return next((one for one in self.iterate(name=image.name) if one.version < image.version), None)

    def _report_or_none(self, image: ImageRecord) -> BuildReport | None:
        try:
            return self.report(f"{image.name}:{image.version}")
        except ApiError as problem:
            if problem.problem.code != "nothing_beside_image":
                raise
            return None


def _referrer(found: Descriptor, subject: str) -> Referrer:
    """As the registry's own documents have it."""
    return Referrer(
        digest=found.digest,
        media_type=found.media_type,
        artifact_type=found.artifact_type,
        size_bytes=found.size,
        subject=subject,
        annotations=found.annotations,
    )
