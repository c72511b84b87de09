"""What can go wrong with keys, certificates and enrolment; of devices, their operators read it in the device's log."""

from __future__ import annotations

from hedgerow.errors import AccessError, ConflictError, ForbiddenError, NotFoundError, UnavailableError, UserError


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


class SigningKeyStays(ForbiddenError):
    """A private half was asked for from elsewhere than the workspace's own machine."""

    key = "signing_key_stays"
    message = "The private half of a signing key is given out on the workspace's own machine only"
    remedy = "Run there, as the user of hedgerow up: hedgerow edge keys take-offline FILE"


class TooManySigningKeys(ConflictError):
    """Devices would refuse a desired state that names so many keys."""

    key = "too_many_signing_keys"
    message = "There are {limit} signing keys, which is as many as devices believe"
    remedy = "Retire one that is not needed any more first: hedgerow edge keys retire KEY"


class KeysNotConfirmed(ConflictError):
    """A signing key cannot be retired while devices believe no other."""

    key = "keys_not_confirmed"
    message = "Without signing key {keyid}, {count} devices could not be told anything: {devices}"
    remedy = "Wait until they were online (hedgerow edge keys list), or add --force: they will need a new device.toml then."


class SignatureStale(ConflictError):
    """A signature of something that is not wanted any more."""

    key = "signature_stale"
    message = (
        "Version {version} of device {device} does not wait for a signature: "
        "what the device should run has changed since, or this was brought before"
    )
    remedy = "Export what waits now (hedgerow edge sign --export FILE) and sign that."


class CertificateRequestRefused(UserError):
    """A certificate request that no certificate is made for."""

    key = "certificate_request_refused"
    message = "The certificate request is refused: {problem}"
    remedy = "Send a PKCS #10 request (PEM) for a key on the curve P-256 or P-384, Ed25519, or RSA with 2048 to 4096 bits."


class NotThisDevice(ForbiddenError):
    """A device that asks for what is another one's."""

    key = "not_this_device"
    message = "This token is not the one of a device {name}"
    remedy = "Use the token and the name in the device's own device.toml."


class TooManyCertificates(UnavailableError):
    """A device that asks for certificates again and again."""

    key = "too_many_certificates"
    message = "Device {name} was given {limit} certificates lately; there is none for it now"
    remedy = "Find out why it asks so often (a disk that forgets, a copied card); an hour later it is given one again."


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
