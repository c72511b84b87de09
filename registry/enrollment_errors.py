"""What can go wrong when a device enrols by itself; its operator reads it in the log of the device."""

from __future__ import annotations

from hedgerow.errors import AccessError, ForbiddenError, UserError


class EnrollmentKeyRefused(AccessError):
    """The enrolment key is missing, unknown, revoked, expired or used up."""

    key = "enrollment_key_refused"
    message = "The enrolment key was refused: {problem}"
    remedy = "Make another one with: hedgerow device key create NAME"


class EnrollmentNameRefused(ForbiddenError):
    """The enrolment key is good, but not for a device of this name."""

    key = "enrollment_name_refused"
    message = "This enrolment key is not for a device named {name}: {rule}"
    remedy = "Leave the name out, or make a key for that name: hedgerow device key create NAME --device {name}"


class EnrolledDeviceRevoked(ForbiddenError):
    """The installation enrolled before, and its device was revoked since."""

    key = "enrolled_device_revoked"
    message = "This installation enrolled as {name}, which was revoked"
    remedy = "If it is to work again, delete that device (hedgerow device delete {name}) and let it enrol anew."


class TooManyWrongKeys(AccessError):
    """So many wrong enrolment keys came from one address that no more are looked at for a while."""

    key = "too_many_wrong_keys"
    message = "Too many wrong enrolment keys came from {remote}; no more are looked at now"
    remedy = "Wait a minute, and check the keys of the devices behind that address."


class EnrollmentKeyInvalid(UserError):
    """An enrolment key that could never be used as asked for."""

    key = "enrollment_key_invalid"
    message = "There cannot be such an enrolment key: {problem}"
    remedy = "Give either the one device's name (and one use) or the beginning of names, or neither."
