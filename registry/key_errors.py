"""What can go wrong with keys: of devices, and those that sign."""

from __future__ import annotations

from hedgerow.errors import ConflictError, ForbiddenError, NotFoundError, UserError


class NotThatDevice(ForbiddenError):
    """A device's token was used for another device."""

    key = "not_that_device"
    message = "This token is not one of device {device}"
    remedy = "A device fetches its own key only, with the token of its device.toml."


class NoKeyWanted(ConflictError):
    """A device asks for a key that nobody wants it to have."""

    key = "no_key_wanted"
    message = "Device {device} has the key that it should have (generation {generation})"
    remedy = "Nothing needs doing. To give it another one: hedgerow device rotate-key {device}"


class DeviceRevoked(ConflictError):
    """Something was asked for a device that was revoked."""

    key = "device_revoked"
    message = "Device {device} was revoked"
    remedy = "Enrol it again under another name: hedgerow device enroll NAME"


class KeyRequestInvalid(UserError):
    """A device's request for its key cannot be read."""

    key = "key_request_invalid"
    message = "The request for a key of device {device} is not valid: {problem}"
    remedy = "Use an agent of this release; see hedgerow agent check on the device."


class SigningKeyUnknown(NotFoundError):
    """A signing key was named that is not there, or not here."""

    key = "signing_key_unknown"
    message = "There is no signing key {keyid}"
    remedy = "See what there is with: hedgerow edge keys list"


class LastSigningKey(ConflictError):
    """Without this key nobody could ever sign for devices again."""

    key = "last_signing_key"
    message = "Signing key {keyid} is the only one that may sign desired states"
    remedy = "Make another one first: hedgerow edge keys rotate"


class KeysNotConfirmed(ConflictError):
    """A signing key cannot be retired while devices believe no other."""

    key = "keys_not_confirmed"
    message = "Without signing key {keyid}, {count} devices could not be told anything: {devices}"
    remedy = "Wait until they were online (hedgerow edge keys list), or add --force: they will need a new device.toml then."


class SignatureStale(ConflictError):
    """A signature of something that is not wanted any more."""

    key = "signature_stale"
    message = "Version {version} of device {device} does not wait for a signature: what the device should run has changed since"
    remedy = "Export what waits now (hedgerow edge sign --export FILE) and sign that."
