"""What can go wrong when something is asked of a device, or of what it has, before the device itself has answered."""

from __future__ import annotations

from hedgerow.errors import ConflictError, NotFoundError, UnavailableError, UserError
from registry.errors import RecordNotFound


class NoModuleOfDevice(RecordNotFound):
    """A module was named that the device neither should run nor was ever told of."""

    key = "no_module_of_device"
    message = "Device {device} has no module {module}"
    remedy = "See which it has with: hedgerow device show {device}"


class NoCertificateOfDevice(RecordNotFound):
    """A serial number was named that no certificate of the device has."""

    key = "no_certificate_of_device"
    message = "Device {device} has no certificate {serial}"
    remedy = "See which it has with: hedgerow device certificate list {device}"


class DeviceOffline(NotFoundError):
    """A method was called on a device that is not connected (IoT Hub: 404 DeviceNotOnline)."""

    key = "device_offline"
    message = "Device {device} is offline"
    remedy = (
        "See when it was heard last (hedgerow device show {device}), "
        "or let the call wait for it (connect_timeout_s; --connect-timeout-s of hedgerow device invoke)."
    )


class MethodUnanswered(UnavailableError):
    """A call ended without an answer of the device."""

    key = "method_unanswered"
    message = "Method {method} of device {device} was not answered: {problem}"
    remedy = "Try again, perhaps with a longer timeout_s; whether the device carried it out is not known."


class TooManyCalls(ConflictError):
    """So many calls of one device are under way that another would only wait."""

    key = "too_many_calls"
    message = "{limit} calls of device {device} are under way"
    remedy = "Wait for one of them to end."


class MethodPayloadTooLong(UserError):
    """The payload of a call is longer than a device takes."""

    key = "method_payload_too_long"
    message = "The payload has more than {limit} bytes of JSON"
    remedy = "Shorten it, or let the device fetch the data itself."


class MethodNameInvalid(UserError):
    """No method can have this name."""

    key = "method_name_invalid"
    message = "{name!r} is no name of a method"
    remedy = "Use 1 to 100 of A-Z, a-z, 0-9 and . _ $ -."
