"""Parts of uploads to an object store that no key leads to: what a killed process left is found and taken back.

S3 keeps such parts, and asks money for them, until somebody aborts the upload. File systems of fsspec that know nothing of
multi-part uploads have nothing to sweep (Google's and Azure's stores drop such parts after a week by themselves).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from registry.blobs.port import Swept

log = logging.getLogger(__name__)
# By how much the store's clock and ours may differ.
_CLOCKS = timedelta(minutes=15)


def started_uploads(fs: Any, root: str) -> list[dict[str, Any]]:  # noqa: ANN401 - fsspec has no types
    """Multi-part uploads below ``root`` (``bucket/prefix``) that did not end; none where the store cannot tell."""
    if not hasattr(fs, "call_s3"):
        return []
    try:
        return list(_listed(fs, root))
    except OSError as problem:
        # Whoever may store, read and delete need not be allowed to list this.
        log.warning("Uploads that were cut off cannot be listed, give the bucket a rule that ends them: %s", problem)
        return []


def abort_uploads(
    fs: Any,  # noqa: ANN401 - fsspec has no types
    root: str,
    found: list[dict[str, Any]],
    before: datetime,
    oldest_writer: datetime | None,
    *,
    dry_run: bool,
) -> Swept:
    """Take back those of ``found`` that began before ``before`` and that no living writer can have begun.

    ``oldest_writer`` is when the first began of the uploads that were alive after ``found`` was listed.
    """
    bucket = root.partition("/")[0]
    latest = before if oldest_writer is None else min(before, oldest_writer - _CLOCKS)
    count = size_bytes = 0
    for upload in found:
        began = upload["Initiated"]
        if (began if began.tzinfo else began.replace(tzinfo=UTC)) >= latest:
            continue
        which = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
        try:
            size = sum(int(part["Size"]) for part in fs.call_s3("list_parts", **which).get("Parts", []))
            if not dry_run:
                fs.call_s3("abort_multipart_upload", **which)
        except OSError as problem:
            log.warning("An upload that was cut off could not be ended (%s): %s", upload["Key"], problem)
            continue
        count, size_bytes = count + 1, size_bytes + size
    return Swept(count, size_bytes)


def _listed(fs: Any, root: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - fsspec has no types
    bucket, _, prefix = root.partition("/")
    prefix = f"{prefix}/sha256/" if prefix else "sha256/"
    markers: dict[str, str] = {}
    while True:
        page = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **markers)
        # Some servers take no notice of the prefix, and another workspace's uploads are none of ours.
        yield from (upload for upload in page.get("Uploads", []) if str(upload["Key"]).startswith(prefix))
        if not page.get("IsTruncated"):
            return
        markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
