"""What can go wrong when a device enrols by itself, in words for whoever set it up."""

from __future__ import annotations

from hedgerow.errors import ConflictError, ForbiddenError, UnavailableError, UserError


class EnrollmentRefused(ForbiddenError):
    """The workspace does not enrol this device, and asking again would change nothing."""

    key = "enrollment_refused"
    message = "{url} does not enrol this device: {problem}"
    remedy = "{hint}"


class EnrollmentUnreachable(UnavailableError):
    """The workspace could not be asked this time."""

    key = "enrollment_unreachable"
    message = "{url} cannot be asked to enrol this device: {problem}"
    remedy = "See that the address is right and reachable from here; with --wait it is asked again until it answers."


class AlreadyEnrolled(ConflictError):
    """There is a device.toml already."""

    key = "already_enrolled"
    message = "{path} exists already"
    remedy = "Run it with: hedgerow agent run --config {path}. For another device choose another folder with -o."


class EnrollmentInsecure(UserError):
    """The key, and the device's own key in the answer, would travel unencrypted."""

    key = "enrollment_insecure"
    message = "{url} is not encrypted: everybody on the way would read this device's key"
    remedy = (
        "Use an https:// address (hedgerow up --behind-proxy, with TLS in front), or say --insecure-http where nobody listens."
    )


class EnrollmentSetUpWrongly(UserError):
    """The device lacks something that it needs to ask at all, or has it in a form that cannot be used."""

    key = "enrollment_set_up_wrongly"
    message = "This device cannot ask to be enrolled: {problem}"
    remedy = (
        "Make a key with `hedgerow device key create NAME -o KEYFILE`, and give it with --key-file and the address with --url."
    )
