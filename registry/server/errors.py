"""What can be wrong with a request as such, before any record is looked at."""

from __future__ import annotations

from hedgerow.errors import NotFoundError, UnavailableError, UserError


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
