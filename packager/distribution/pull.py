"""Reads images of a registry: manifests checked against their digest, blobs in one stream that outlives broken connections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.names import INDEX_TYPES, MANIFEST_TYPES, MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST, is_digest
from hedgerow.contracts.oci import Descriptor, ImageDocument, Index, Platform
from packager.distribution.errors import RegistryFailed, RemoteImageUnknown, TransferBroken
from packager.distribution.repository import NOT_FOUND, RegistryBusy, Repository
from packager.distribution.wire import WireBroken
from packager.errors import BaseUnreadable, BlobCorrupt
from packager.oci.blobs import CHUNK_BYTES, DOCUMENT_BYTES_MAX
from packager.oci.documents import read_foreign

ACCEPT = ", ".join((*sorted(INDEX_TYPES), *sorted(MANIFEST_TYPES)))
_RANGE = re.compile(r"bytes (\d{1,18})-")
_NESTED = 3
_WHOLE, _PARTIAL = 200, 206


@dataclass(frozen=True)
class RemoteDocument:
    """A manifest or an index, whose ``data`` has the ``digest``."""

    digest: str
    media_type: str
    data: bytes


def fetch(repository: Repository, wanted: str) -> RemoteDocument:
    """A manifest or index by tag or digest.

    Raises RemoteImageUnknown, RegistryLoginFailed, RegistryForbids, RegistryUnreachable, RegistryFailed,
    RemoteDocumentTooLarge, EgressRefused, BlobCorrupt (what came is not what its digest says).
    """

    def ask() -> tuple[bytes, str, str]:
        with repository.ask("GET", repository.address(f"manifests/{wanted}"), {"Accept": ACCEPT}) as answer:
            repository.expect(answer, {_WHOLE}, f"image {repository.image}")
            data = repository.document(answer, DOCUMENT_BYTES_MAX, "a manifest")
            told = answer.headers.get("docker-content-digest") or ""
            return data, told, answer.headers.get_content_type()

    data, told, media_type = repository.tried(ask)
    digest = digest_of(data)
    promised = wanted if is_digest(wanted) else told
    if is_digest(promised) and promised != digest:
        raise BlobCorrupt(digest=promised, where=repository.image.host)
    return RemoteDocument(digest, _type_of(data, media_type, repository), data)


def fetch_for(repository: Repository, wanted: str, platform: Platform) -> RemoteDocument:
    """The manifest for ``platform``; indexes are entered. Raises BaseUnreadable for none, and as :func:`fetch`."""
    found = fetch(repository, wanted)
    for _ in range(_NESTED):
        if found.media_type not in INDEX_TYPES:
            return found
        inside = read_foreign(found.data, Index, str(repository.image)).manifests
        images = [one for one in inside if one.media_type in INDEX_TYPES | MANIFEST_TYPES]
        suiting = [one for one in images if one.platform is None or one.platform.suits(platform)]
        if not suiting:
            there = ", ".join(sorted({str(one.platform) for one in images if one.platform and one.platform.os != "unknown"}))
            raise BaseUnreadable(base=repository.image, problem=f"nothing in it suits {platform}; it has {there or 'no image'}")
        found = fetch(repository, suiting[0].digest)
    raise BaseUnreadable(base=repository.image, problem="its indexes are nested too deep")


def blob_chunks(repository: Repository, blob: Descriptor) -> Iterator[bytes]:
    """The bytes of a blob, at most as many as it should have; who takes them checks their digest.

    A connection that breaks is made anew and goes on where it was (Range). Raises TransferBroken when that does not
    help, RemoteImageUnknown, RegistryLoginFailed, RegistryForbids, RegistryFailed, EgressRefused, BlobCorrupt.
    """
    done = failures = 0
    while done < blob.size:
        before = done
        try:
            for chunk in _from(repository, blob, done):
                done += len(chunk)
                if done > blob.size:
                    raise BlobCorrupt(digest=blob.digest, where=repository.image.host)
                yield chunk
            problem: WireBroken | RegistryBusy = WireBroken("it closed the connection")
        except (WireBroken, RegistryBusy) as broken:
            problem = broken
        if done == blob.size:
            return
        # What trickles in byte by byte is no progress.
        failures = 1 if done - before >= CHUNK_BYTES else failures + 1
        if failures >= repository.access.attempts and done:
            host, size = repository.image.host, blob.size
            raise TransferBroken(registry=host, times=failures, done=done, size=size, what=blob.digest) from problem
        repository.give_up_or_wait(problem, failures)


def _from(repository: Repository, blob: Descriptor, start: int) -> Iterator[bytes]:
    headers = {"Range": f"bytes={start}-"} if start else {}
    with repository.ask("GET", repository.address(f"blobs/{blob.digest}"), headers) as answer:
        if answer.status == NOT_FOUND:
            raise RemoteImageUnknown(registry=repository.image.host, what=f"content {blob.digest} of {repository.image}")
        repository.expect(answer, {_WHOLE, _PARTIAL} if start else {_WHOLE}, f"content {blob.digest}")
        skip = 0
        if answer.status == _PARTIAL:
            at = _RANGE.match(answer.headers.get("content-range", ""))
            if at is None or int(at[1]) != start:
                raise WireBroken("it answered with another range than it was asked for")
        else:
            skip = start  # it knows no ranges: what we have comes again
        while chunk := answer.read(CHUNK_BYTES):
            fresh, skip = chunk[skip:], max(0, skip - len(chunk))
            if fresh:
                yield fresh


def _type_of(data: bytes, said: str, repository: Repository) -> str:
    """What the document says of itself wins; some registries serve everything as one type."""
    found = read_foreign(data, ImageDocument, str(repository.image))
    if found.media_type:
        return found.media_type
    if said in INDEX_TYPES | MANIFEST_TYPES:
        return said
    if found.schema_version != 2:
        raise RegistryFailed(
            registry=repository.image.host, status=_WHOLE, what=str(repository.image), said=": a manifest of a form before 2016"
        )
    return MEDIA_OCI_INDEX if found.manifests is not None else MEDIA_OCI_MANIFEST
