"""What can be wrong with a request as such, before any record is looked at."""

from __future__ import annotations

from hedgerow.errors import AccessError, ConflictError, NotFoundError, UnavailableError, UserError


class NoSuchPath(UserError):
    """The address is not one of this server's."""

    key = "no_such_path"
    message = "There is nothing at {path}"
    remedy = "Check the address; the API lies below /api/v1."


class MethodRefused(UserError):
    """The address is right, the method is not."""

    key = "method_not_allowed"
    message = "{method} is not possible at {path}"
    remedy = "Use one of: {allowed}."


class DocumentTooLarge(UserError):
    """A document is larger than the server reads."""

    key = "document_too_large"
    message = "The request's body is larger than {limit_bytes} bytes"
    remedy = "Send less; file contents belong into PUT /api/v1/blobs/DIGEST."


class ContentTypeRefused(UserError):
    """A write whose body is not of the announced kind; browsers cannot send this type across sites unasked."""

    key = "content_type_refused"
    message = "The content type {found!r} is not taken here"
    remedy = "Send it with `Content-Type: {expected}`."


class InvalidArgument(UserError):
    """An argument in the query string has a value that it does not take."""

    key = "invalid_argument"
    message = "The argument {name} cannot be {value!r}"
    remedy = "{hint}"


class UnknownArgument(UserError):
    """An argument in the query string that the operation does not know."""

    key = "unknown_argument"
    message = "There is no argument {name!r} here"
    remedy = "{hint}"


class RepeatedArgument(UserError):
    """An argument in the query string that is taken once was given several times."""

    key = "repeated_argument"
    message = "The argument {name} was given more than once"
    remedy = "Give it once."


class RangeRefused(UserError):
    """A range that the content does not have."""

    key = "range_refused"
    message = "The range {value!r} lies outside of the content's {size} bytes"
    remedy = "Ask for bytes=FIRST-LAST below that size."


class MalformedRequest(UserError):
    """HTTP itself is wrong: cut off, unreadable, contradictory."""

    key = "malformed_request"
    message = "The request cannot be read: {problem}"
    remedy = "Send it again as plain HTTP/1.1."


class AddressTooLong(UserError):
    """The first line of a request is longer than any that this server has use for."""

    key = "address_too_long"
    message = "The request's address is longer than {limit_bytes} bytes"
    remedy = "Ask for fewer things at once, or send them in a body."


class HeadTooLarge(UserError):
    """Too many headers, or too long ones."""

    key = "head_too_large"
    message = "The request has too many headers, or one that is too long"
    remedy = "Send at most 100 headers of 8 kB; cookies of other services on the same host are headers, too."


class TooManyStreams(UnavailableError):
    """Every thread that may follow events is in use."""

    key = "too_many_streams"
    message = "{limit} clients follow events already"
    remedy = "Try again in a moment, or ask for the activity itself instead of its events."


class TooManyTransfers(UnavailableError):
    """Large uploads and downloads, together with event streams, use every thread that long requests may have."""

    key = "too_many_transfers"
    message = "{limit} long requests are being served already"
    remedy = "Try again in a moment."


class ConnectionStalled(UserError):
    """The other end went silent in the middle of a request."""

    key = "connection_stalled"
    message = "The rest of the request did not arrive within {timeout_s} s"
    remedy = "Check the network and send it again."


class ManifestUnknown(NotFoundError):
    """No manifest under this tag or digest, or none that this device may have."""

    key = "manifest_unknown"
    message = "There is no image {name} with the tag or digest {reference}"
    remedy = "See the versions with: hedgerow image list; a device may fetch only what its edge deployment names."


class UnknownApiVersion(NoSuchPath):
    """The address belongs to an API version that this server does not speak."""

    key = "unknown_api_version"
    message = "This server speaks version v1 of the API, not {version}"
    remedy = "Use a client of about the same age as the server, or upgrade the older one."


class IdempotencyKeyRefused(UserError):
    """An Idempotency-Key where none is honoured."""

    key = "idempotency_key_refused"
    message = "{method} {path} takes no Idempotency-Key"
    remedy = "Leave the header out: the request can be repeated as it is, or is never done only once."


class IdempotencyKeyReused(ConflictError):
    """One key for two different requests."""

    key = "idempotency_key_reused"
    message = "The Idempotency-Key {key} was used for another request"
    remedy = "Use a new key for a new request; repeat a request with its own key and without any change."


class AlreadyDone(ConflictError):
    """A repeated request whose answer held a secret, which is shown once."""

    key = "already_done"
    message = "This request was done already: it made {made}, whose secret is shown once"
    remedy = "Use the secret of the first answer; if that was lost, delete or revoke {made} and ask for a new one with a new key."


class ModelManifestUnknown(NotFoundError):
    """No model artifact under this tag or digest."""

    key = "model_manifest_unknown"
    message = "There is no model {name} with the tag or digest {reference}"
    remedy = "See the versions with: hedgerow model list; a digest is known once its version was pulled by tag."


class UploadUnknown(NotFoundError):
    """An upload that never was, that ended, or that nobody went on with for too long."""

    key = "upload_unknown"
    message = "There is no upload {upload} to {name}"
    remedy = "Begin a new one: uploads end when they are finished, cancelled, or left alone for a day."


class UploadOutOfOrder(UserError):
    """A chunk that does not begin where the upload ends."""

    key = "upload_out_of_order"
    message = "The upload has {size} bytes; a chunk {value!r} does not go on from there"
    remedy = "Ask where it is with GET on its address, and send the rest from there."


class UploadBusy(ConflictError):
    """Two requests write to one upload."""

    key = "upload_busy"
    message = "Another request is writing to the upload {upload}"
    remedy = "Wait until it ends (one whose client is gone ends within a minute), then ask where the upload is."


class TooManyUploads(UnavailableError):
    """Unfinished uploads take place on the disk."""

    key = "too_many_uploads"
    message = "{limit} uploads were begun{whose} and not finished"
    remedy = "Finish or cancel some; what nobody goes on with ends by itself within a day."


class DigestRefused(UserError):
    """A digest that is none, or not that of what it stands for."""

    key = "digest_refused"
    message = "The digest {value!r} is refused: {problem}"
    remedy = "Use sha256: and the 64 hexadecimal digits of the content itself."


class PushedManifestInvalid(UserError):
    """A pushed manifest that cannot be taken."""

    key = "pushed_manifest_invalid"
    message = "The manifest is refused: {problem}"
    remedy = "Push it again with an up-to-date tool; container images and models in the ModelPack types are taken."


class ManifestBlobUnknown(UserError):
    """A pushed manifest names content that its repository does not have."""

    key = "manifest_blob_unknown"
    message = "The manifest names {digest}, which {name} does not have"
    remedy = "Push (or mount) every blob and manifest that it names first, then the manifest."


class GrantMissing(AccessError):
    """A registry token (from /v2/token) that was asked for something else."""

    key = "grant_missing"
    message = "This registry token does not allow to {action} {name}"
    remedy = "Ask /v2/token for it; container tools do that by themselves, and pass the credential of `docker login`."
