"""What can go wrong with contents: missing, damaged, in the way, no place for them."""

from __future__ import annotations

from hedgerow.errors import ConflictError, NotFoundError, UnavailableError, UserError


class BlobMissing(UserError):
    """A record refers to a blob that was never uploaded."""

    key = "blob_missing"
    message = "The content of {path} ({digest}) was not uploaded"
    remedy = "Upload it with PUT /api/v1/blobs/DIGEST before registering."


class BlobDamaged(UnavailableError):
    """A stored blob no longer has the content that its digest promises."""

    key = "blob_damaged"
    message = "Blob {digest} is damaged on disk (its content hashes to {found})"
    remedy = "Restore the workspace's blobs from a backup, or upload the same content again."


class BlobsKept(ConflictError):
    """A backup, or another garbage collection, needs that no blob goes away meanwhile."""

    key = "blobs_kept"
    message = "No content can be freed now: {holder} needs that all of it stays"
    remedy = "Start it again when that has ended (see: hedgerow activity list)."


class DigestMismatch(UserError):
    """Uploaded content does not have the digest it was announced with."""

    key = "digest_mismatch"
    message = "The uploaded content hashes to {found}, not to {expected}"
    remedy = "The file changed or was cut off on the way: upload it again."


class BlobUnknown(NotFoundError):
    """No blob of this digest is stored."""

    key = "blob_unknown"
    message = "There is no blob {digest}"
    remedy = "Check the digest, or upload the content with PUT /api/v1/blobs/DIGEST."


class StorageUnavailable(UnavailableError):
    """The disk that holds the blobs is full, read-only or broken."""

    key = "storage_unavailable"
    message = "The workspace's folder cannot be written now: {problem}"
    remedy = "Free disk space (or make it writable) and try again; nothing was stored half."


class ObjectStoreUnavailable(StorageUnavailable):
    """The object store that holds the blobs does not answer, or refuses."""

    key = "object_store_unavailable"
    message = "The object store that holds the contents cannot be used now: {problem}"
    remedy = "Check --blobs, --blobs-endpoint, the credentials and the network, and try again; nothing was stored half."


class BlobSizeWrong(UserError):
    """A record gives another size for a blob than the blob has."""

    key = "blob_size_wrong"
    message = "{path} was announced with {announced} bytes, its stored content has {stored}"
    remedy = "The file changed while it was read: read it again and repeat."
