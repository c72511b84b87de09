"""What can go wrong on a device, in words for its operator; ``link/reported.py`` maps it to the codes of a StatusReport."""

from __future__ import annotations

from hedgerow.errors import AccessError, ConflictError, ForbiddenError, NotFoundError, UnavailableError, UserError


class ConfigMissing(UserError):
    """There is no device.toml where one was expected."""

    key = "config_missing"
    message = "Cannot read the device configuration {path}: {problem}"
    remedy = "Enrol the device (hedgerow device enroll NAME -o device.toml) and pass that file with --config."


class ConfigUnreadable(UserError):
    """device.toml is not TOML."""

    key = "config_unreadable"
    message = "The device configuration {path} is not TOML: {problem}"
    remedy = "Write the file again with: hedgerow device enroll NAME -o device.toml"


class StateUnusable(UserError):
    """The state folder cannot be made or used."""

    key = "state_unusable"
    message = "Cannot use the state folder {folder}: {problem}"
    remedy = "Choose another with --state-dir, or give this user the right to write there."


class ForeignDesired(ForbiddenError):
    """A desired state that was signed for another device."""

    key = "foreign_desired"
    message = "Desired state version {version} is for device {found}, this is {expected}"
    remedy = "Check that no two devices share a device.toml, and that topics are not mixed up at the broker."


class OlderDesired(ConflictError):
    """A desired state that is not newer than the one accepted."""

    key = "older_desired"
    message = "Desired state version {version} was refused: version {accepted} is accepted already"
    remedy = "Deploy again: the hub gives the next desired state a higher version."


class WrongIncarnation(ConflictError):
    """A desired state of a workspace incarnation that is not the one of the session."""

    key = "wrong_incarnation"
    message = "Desired state version {version} was refused: it is of incarnation {found}, the hub is {expected}"
    remedy = "Deploy again, so that the restored workspace signs it anew."


class KeyNotFetched(UnavailableError):
    """This device's next key could not be fetched, stored, or told of, this time."""

    key = "key_not_fetched"
    message = "Key {generation} of this device could not be changed to: {problem}"
    remedy = "See that registry_url of device.toml is reachable; it is tried again by itself, and the old key is good until then."


class ImageNotPulled(UnavailableError):
    """An image is not on this device (any more)."""

    key = "image_not_pulled"
    message = "Image {image} is not on this device"
    remedy = "It will be pulled; see that the registry is reachable."


class PullFailed(UnavailableError):
    """An image could not be fetched this time."""

    key = "pull_failed"
    message = "Cannot pull {image} from {registry}: {problem}"
    remedy = "See that the registry is reachable and that the device's token is not revoked; it is tried again by itself."


class WheelNotFetched(UnavailableError):
    """The wheel of a release of the agent could not be fetched this time."""

    key = "wheel_not_fetched"
    message = "Cannot fetch the agent's wheel {wheel} from {registry}: {problem}"
    remedy = "See that the registry is reachable and that the device's token is not revoked; it is tried again by itself."


class ImageRefused(UserError):
    """An image's content is not what its digest or a safe archive promises."""

    key = "image_refused"
    message = "Image {image} was refused: {problem}"
    remedy = "Build and push the image again; if it happens again, look for a damaged blob store or proxy in between."


class EngineBlind(UnavailableError):
    """An engine cannot say what runs."""

    key = "engine_blind"
    message = "The {engine} engine does not answer: {problem}"
    remedy = "Start it, or remove the modules that need it; nothing is planned for them until it answers."


class OptionForbidden(ForbiddenError):
    """A module asks for a privilege that this device's own allow-list does not grant."""

    key = "option_forbidden"
    message = "Module {module} asks for {option}, which this device does not allow"
    remedy = "Start the agent with --docker-allow {word} if this device may run such modules."


class ModuleStartFailed(UserError):
    """An engine refused to start a module."""

    key = "module_start_failed"
    message = "Module {module} cannot be started: {problem}"
    remedy = "Correct the module in the deployment's manifest."


class NotAModule(AccessError):
    """A caller of the local API without a module's token."""

    key = "not_a_module"
    message = "The request carries no token of a module of this device"
    remedy = "Send 'Authorization: Bearer' with the value of HEDGEROW_TELEMETRY_TOKEN."


class ModuleGone(NotAModule):
    """A module that is not in the desired state (any more)."""

    key = "module_gone"
    message = "Module {module} is no longer a module of this device"
    remedy = "Deploy it to this device again (hedgerow edge deploy); until then nothing is taken from it."


class MessageRefused(UserError):
    """A telemetry message that cannot be stored as it is."""

    key = "message_refused"
    message = "The telemetry message was refused: {problem}"
    remedy = "Correct the message; nothing of it was stored."


class MessageTooLarge(UserError):
    """A telemetry message above the limit."""

    key = "message_too_large"
    message = "The telemetry message has {size} bytes, the limit is {limit}"
    remedy = "Split it, or raise --max-message-bytes on the device (and the broker's limit with it)."


class BufferFull(UnavailableError):
    """The telemetry buffer has reached a quota, and nothing in it may give way to the new message."""

    key = "buffer_full"
    message = "The telemetry buffer is full ({quota} bytes), and by its policies nothing in it may give way to this message"
    remedy = "Send it again later; the buffer empties when the hub is reachable."


class DesiredNotFetched(UnavailableError):
    """A desired state that is too large for a message cannot be had from the registry now."""

    key = "desired_not_fetched"
    message = "Desired state version {version} cannot be fetched from {registry}: {problem}"
    remedy = "See that registry_url of device.toml is reachable from the device; it is tried again by itself."


class TwinRefused(UserError):
    """Reported properties of a module that cannot be taken as they are."""

    key = "twin_refused"
    message = "The reported properties of module {module} were refused: {problem}"
    remedy = "Correct the module: a JSON object of at most 256 KiB; a patch changes what it names, null takes a property away."


class TwinUnwritable(UnavailableError):
    """Reported properties of a module that the device cannot write down."""

    key = "twin_unwritable"
    message = "The reported properties of module {module} cannot be written: {problem}"
    remedy = "Free disk space on the device and report them again; nothing of them was kept."


class BufferUnwritable(UnavailableError):
    """The telemetry buffer cannot be written."""

    key = "buffer_unwritable"
    message = "The telemetry buffer cannot be written: {problem}"
    remedy = "Free disk space on the device and send it again; the message was not stored."


class NoSuchPath(NotFoundError):
    """A path that the local API does not have."""

    key = "no_such_local_path"
    message = "There is no {method} {path} here"
    remedy = "Use POST /telemetry, POST /heartbeat, GET /inputs/NAME, POST /inputs/NAME/ack or GET /metrics."


class TooManyConnections(UnavailableError):
    """A module keeps so many connections to the local port that others would find no place."""

    key = "too_many_local_connections"
    message = "Module {module} has {limit} connections to the local port already"
    remedy = "Use the same connections again (keep-alive), or send many messages in one request."


class LocalPortBusy(UnavailableError):
    """So many requests wait for their answers that no further one can be taken."""

    key = "local_port_busy"
    message = "{limit} requests that wait are under way at the local port already"
    remedy = "Try again in a moment; let polls of inputs end before new ones begin."


class MqttProtocolError(UserError):
    """A module's MQTT connection said something that MQTT or the local hub does not allow; ``code`` is MQTT 5's reason code."""

    key = "mqtt_protocol_error"
    message = "The module's MQTT connection was closed: {problem}"
    remedy = "Correct the client; the local hub speaks MQTT 3.1.1 and 5 (docs/devices.md)."


class ServiceRefused(UserError):
    """The agent cannot be made a service of this machine, or taken away again."""

    key = "service_refused"
    message = "The service {unit} cannot be set up: {problem}"
    remedy = "Run it as root (or with --user as yourself) on a machine with systemd; --dry-run shows what would be done."


class NotWantedRunning(NotFoundError):
    """A module that should be restarted and is not there, or is wanted stopped."""

    key = "not_wanted_running"
    message = "No module {module} is wanted running on this device"
    remedy = 'See hedgerow device twin DEVICE for its modules, and deploy with status = "running".'


class InputAckRefused(ConflictError):
    """An acknowledgement for messages of an input that the buffer does not know."""

    key = "input_ack_refused"
    message = "Nothing that waits for input {input!r} has this acknowledgement"
    remedy = "Read the input again and acknowledge what that answer gives: the buffer was replaced meanwhile."


class ChaosNotAllowed(ForbiddenError):
    """An experiment on an agent that does not allow them, or does not run."""

    key = "chaos_not_allowed"
    message = "No agent of {folder} takes orders for experiments"
    remedy = "Start the agent with --chaos-allowed, and name its folder with --config or --state-dir."


class ChaosUnanswered(UnavailableError):
    """The agent does not answer an order."""

    key = "chaos_unanswered"
    message = "The agent of {folder} does not answer: {problem}"
    remedy = "See whether it runs (hedgerow agent status) and whether this user may talk to it."


class ChaosRefused(UserError):
    """An experiment that cannot be made."""

    key = "chaos_refused"
    message = "The experiment cannot be made: {problem}"
    remedy = "See hedgerow agent chaos --help and hedgerow agent status."


class UpgradeRefused(UserError):
    """Another release of the agent cannot be put in place."""

    key = "upgrade_refused"
    message = "Release {release!r} of the agent is not taken: {problem}"
    remedy = "The release that runs stays as it is. Correct the wheel, version or package index, and try again."


class CertificateNotIssued(UnavailableError):
    """The registry gave this device no certificate for the broker this time."""

    key = "certificate_not_issued"
    message = "{registry} issues no certificate for the broker: {problem}"
    remedy = "See that the registry is reachable and that the device is not revoked; it is asked again by itself."
