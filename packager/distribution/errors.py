"""What can go wrong between us and somebody else's registry. No message holds a credential or the query of an address."""

from __future__ import annotations

from hedgerow.errors import AccessError, ForbiddenError, NotFoundError, UnavailableError, UserError


class RemoteImageUnknown(NotFoundError):
    """The registry answers, but has no such image."""

    key = "remote_image_unknown"
    message = "The registry {registry} has no {what}"
    remedy = "Check name and tag; some registries also say so of images that the credentials may not see."


class RegistryLoginFailed(AccessError):
    """The registry wants credentials, or others than it was given."""

    key = "registry_login_failed"
    message = "The registry {registry} wants to know who asks for {repository}: {problem}"
    remedy = "Give the right login (a push: --docker-login, --username or --secret; a base: HEDGEROW_REGISTRY_LOGINS)."


class RegistryForbids(ForbiddenError):
    """The registry knows who asks, and does not allow it."""

    key = "registry_forbids"
    message = "The registry {registry} does not allow it: {what} ({said})"
    remedy = "Use a user that may, or another repository."


class RegistryUnreachable(UnavailableError):
    """No connection, or none that can be trusted."""

    key = "registry_unreachable"
    message = "The registry {registry} cannot be reached: {problem}"
    remedy = "Check its address and the network; plain http is spoken on loopback and where http:// is written."


class RegistryFailed(UnavailableError):
    """The registry answered with something that is no answer to what was asked."""

    key = "registry_failed"
    message = "The registry {registry} answered {status} to {what}{said}"
    remedy = "See its log; the same request may work later."


class TransferBroken(UnavailableError):
    """The connection broke again and again while content was on its way."""

    key = "transfer_broken"
    message = "The connection to {registry} broke {times} times: {done} of {size} bytes of {what} went through"
    remedy = "Try again when the network is better: what is complete is not sent again."


class RemoteDocumentTooLarge(UserError):
    """A manifest, an index or a token that would fill the memory."""

    key = "remote_document_too_large"
    message = "The registry {registry} sent more than {limit} bytes as {what}"
    remedy = "That is no manifest of an image; check the reference."


class LoginsUnreadable(UserError):
    """The file with logins is not what `docker login` writes."""

    key = "registry_logins_unreadable"
    message = "The file of registry logins {path} cannot be read: {problem}"
    remedy = "It has the form of Docker's config.json: `auths`, `credHelpers`, `credsStore`. `docker login` writes it."


class LoginHelperMissing(UserError):
    """A file of logins names a program that is not there."""

    key = "login_helper_missing"
    message = "The logins for {registry} are kept by {program}, which is not in the PATH"
    remedy = "Install it, take it out of `credHelpers` and `credsStore`, or give the login another way."


class LoginHelperFailed(UnavailableError):
    """A credential helper that does not do what it is for."""

    key = "login_helper_failed"
    message = "The program {program} gave no login for {registry}: {problem}"
    remedy = "Try it by hand: echo REGISTRY | PROGRAM get. Or log in again."
