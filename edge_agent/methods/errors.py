"""What can go wrong with a direct method on the device, in words for whoever called it; ``desk.py`` maps it to a status."""

from __future__ import annotations

from hedgerow.errors import ConflictError, ForbiddenError, NotFoundError, UnavailableError, UserError


class ForeignCall(ForbiddenError):
    """A method call that was signed for another device."""

    key = "foreign_call"
    message = "A call of {method} is for device {found}, this is {expected}"
    remedy = "Check that no two devices share a device.toml, and that topics are not mixed up at the broker."


class StaleCall(ConflictError):
    """A method call of another session or incarnation than the present one: somebody plays a recorded one, or it came late."""

    key = "stale_call"
    message = "A call of {method} was refused: it is of another session than the present one"
    remedy = "Call it again; the hub signs each call for the session that the device has."


class ExpiredCall(ConflictError):
    """A method call whose time is over by this device's clock."""

    key = "expired_call"
    message = "A call of {method} was refused: it was good until {expires_at}, and the clock of this device says {now}"
    remedy = "Call it again; if the device's clock is wrong, set it (hedgerow agent check tells)."


class RepeatedCall(ConflictError):
    """A call with an id that this session has had, and nothing new in it: it is carried out once."""

    key = "repeated_call"
    message = "A call of {method} came again and was not carried out again"
    remedy = "Nothing to do, unless it happens often: then somebody plays recorded messages."


class TooManyMethods(UnavailableError):
    """The device is busy with other calls."""

    key = "too_many_methods"
    message = "This device is busy with {limit} other calls"
    remedy = "Try again in a moment."


class NoSuchMethod(NotFoundError):
    """A method that neither the agent nor the module has."""

    key = "no_such_method"
    message = "{target} has no method {method}"
    remedy = "Names are case-sensitive; the agent has {methods}."


class NoSuchModule(NotFoundError):
    """A module that this device does not have."""

    key = "no_such_module"
    message = "There is no module {module} on this device"
    remedy = "See what there is with: hedgerow device show NAME"


class MethodPayloadInvalid(UserError):
    """The payload of a call does not fit the method."""

    key = "method_payload_invalid"
    message = "The payload of {method} is not valid: {problem}"
    remedy = "Correct that field and call it again."


class LogFilterInvalid(UserError):
    """A filter of logs that cannot be used."""

    key = "log_filter_invalid"
    message = "The log filter {name} {value!r} cannot be used: {problem}"
    remedy = "Correct it and ask again."


class LogFilterTooSlow(UserError):
    """A regular expression that took more time than this device gives it."""

    key = "log_filter_too_slow"
    message = "The regular expression {value!r} was stopped: it took more than {limit} s of this device's time"
    remedy = "Write it without nested repetitions like (a+)+."


class LogsUnreadable(UnavailableError):
    """The logs of a module cannot be read now."""

    key = "logs_unreadable"
    message = "The logs of module {module} cannot be read: {problem}"
    remedy = "See that its engine runs on the device."


class AnswerUnwanted(UnavailableError):
    """Nobody takes the rest of an answer."""

    key = "answer_unwanted"
    message = "The rest of an answer to {method} is not wanted: {problem}"
    remedy = "Call it again."


class UploadForbidden(ForbiddenError):
    """An upload to a host that this device does not allow."""

    key = "upload_forbidden"
    message = "This device does not upload to {host}"
    remedy = "Start the agent with --upload-hosts {host} if logs of this device may go there."


class UploadFailed(UnavailableError):
    """An upload that the other side, or the way there, refused."""

    key = "upload_failed"
    message = "The upload to {host} failed: {problem}"
    remedy = "See that the address can be written to (its signature may have expired), and call it again."


class BundleRefused(UserError):
    """A support bundle that cannot be written where it should."""

    key = "bundle_refused"
    message = "Cannot write the support bundle {path}: {problem}"
    remedy = "Choose another file with -o; what is there is never written over."
