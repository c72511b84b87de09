"""Content by digest: only what the workspace does not have yet is sent."""

from __future__ import annotations

from collections.abc import Iterable

from hedgerow.sdk.files import LocalFile
from hedgerow.sdk.transport import Transport


def upload_missing(transport: Transport, found: Iterable[LocalFile]) -> int:
    """Upload each distinct content once; returns the number of bytes sent."""
    sent, seen = 0, set[str]()
    for file in found:
        path = f"/api/v1/blobs/{file.entry.digest}"
        if file.entry.digest in seen or transport.exists(path):
            continue
        with file.source.open("rb") as stream:
            transport.upload(path, stream, file.entry.size_bytes)
        seen.add(file.entry.digest)
        sent += file.entry.size_bytes
    return sent
