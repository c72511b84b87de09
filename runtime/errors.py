"""What can go wrong in scoring, by whose fault it is: the caller's body, the model, the user's script, or the load.

Messages of classes marked AmlContractText are the ones that azmlinfsrv answers, word for word; clients match on them.
"""

from __future__ import annotations

from hedgerow.errors import AccessError, ConflictError, NotFoundError, ScriptError, UnavailableError, UserError


class AmlContractText:
    """Marks an error whose message alone is the answer, because the AML contract fixes its words."""


# --- at start: what was asked to be served ---------------------------------------------------------------------------


class NothingToServe(UserError):
    """No source was named."""

    key = "nothing_to_serve"
    message = "Nothing to serve was named"
    remedy = "Give one of --image DIR, --model FILE.onnx, --model-repository DIR or --script score.py."


class TooMuchToServe(UserError):
    """Two sources were named."""

    key = "too_much_to_serve"
    message = "More than one thing to serve was named: {named}"
    remedy = "Give one of them; an image may hold several models and a script."


class AuthKeysUnusable(UserError):
    """The keys that callers are to send cannot be used."""

    key = "auth_keys_unusable"
    message = "The keys from {source} cannot be used: {problem}"
    remedy = "Give one or two different keys of at least 16 printable characters without spaces, in a file one on each line."


class TlsUnusable(UserError):
    """The certificate or its private key cannot be used."""

    key = "tls_unusable"
    message = "TLS cannot be offered with {certificate} and {private_key}: {problem}"
    remedy = "Give --tls-cert and --tls-key, both in PEM format, readable and made for each other."


class TracingNotInstalled(UserError):
    """Traces are asked for, and OpenTelemetry is not there."""

    key = "tracing_not_installed"
    message = "Traces cannot be sent: {problem}"
    remedy = "Install hedgerow[otel], or leave --otlp-endpoint out."


class CollectionUnusable(UserError):
    """Requests are to be kept in files, and that cannot be done."""

    key = "collection_unusable"
    message = "Requests cannot be kept in {folder}: {problem}"
    remedy = "Give a folder that can be written with --collect-dir; for Parquet install hedgerow[parquet]."


class KeyNeeded(AccessError):
    """A request brings no key, or one that is not valid."""

    key = "key_needed"
    message = "{problem}"
    remedy = "Send one of the service's keys in the header 'Authorization: Bearer KEY'."


class PortTaken(ConflictError):
    """Something else listens on the address."""

    key = "scoring_port_taken"
    message = "Cannot listen on {host}:{port}: {problem}"
    remedy = "Choose another --port (0 takes a free one) or --host, or stop what uses it."


class ImageUnusable(UserError):
    """The folder given as an image is not one."""

    key = "image_unusable"
    message = "{folder} cannot be served as an image: {problem}"
    remedy = "Point --image at the folder that holds hedgerow.json, as the packager wrote it."


class ScriptUnusable(ScriptError):
    """A scoring script cannot be used; found before its init() ran."""

    key = "script_unusable"
    message = "Scoring script {script} cannot be used: {problem}"
    remedy = "Correct the script: it needs init() and run(data)."


class ScriptFailedAtStart(ScriptError):
    """A scoring script failed while it was imported or in its init()."""

    key = "script_failed_at_start"
    message = "Scoring script {script} failed in {where}: {problem}"
    remedy = "The log above shows the script's own lines; correct them and start again."


class LoggingFileUnusable(ScriptError):
    """A ``logging.json`` of the user's cannot be applied."""

    key = "logging_file_unusable"
    message = "{file} cannot be applied: {problem}"
    remedy = "It holds what Python's logging.config.dictConfig takes; correct or remove it."


class ConfigFileUnusable(UserError):
    """The file of settings is not there or is no JSON object."""

    key = "config_file_unusable"
    message = "The config file {file} cannot be used: {problem}"
    remedy = "It is a JSON object with names of environment variables as keys."


class ReservedModule(UserError):
    """A scoring source has a module with one of the two names that are ours."""

    key = "reserved_module"
    message = "{path} has a reserved name"
    remedy = "Rename it: 'runtime' and 'hedgerow' are reserved at the top of a scoring source."


# --- per request: the caller -----------------------------------------------------------------------------------------


class BadBody(UserError):
    """A request body cannot be read."""

    key = "bad_body"
    message = "The request body cannot be used: {problem}"
    remedy = "{hint}"


class BadRequest(UserError):
    """What came is no request that is served here."""

    key = "bad_request"
    message = "The request cannot be used: {problem}"
    remedy = "Send it as HTTP/1.1 says."


class BodyNotText(UserError, AmlContractText):
    """A body for a script in string mode is not UTF-8."""

    key = "body_not_text"
    message = "Input cannot be decoded as UTF-8: {problem}"
    remedy = "Send UTF-8 text."


class BodyNotJson(UserError, AmlContractText):
    """A body is not JSON."""

    key = "body_not_json"
    message = "POST body could not be decoded as JSON: {problem}"
    remedy = "Send valid JSON."


class NotJsonType(UserError, AmlContractText):
    """A body for a script with ``@input_schema`` does not say that it is JSON."""

    key = "not_json_type"
    message = "Expects Content-Type to be application/json"
    remedy = "Send the header content-type: application/json."


class BodyTooLarge(UserError):
    """A body is over the limit."""

    key = "body_too_large"
    message = "The request body is larger than {limit} bytes"
    remedy = "Send fewer rows at a time, or start the server with a larger --max-body-bytes."


class UnknownEncoding(UserError):
    """A body is packed in a way that nobody here can read."""

    key = "unknown_encoding"
    message = "Content-Encoding {encoding!r} is not understood"
    remedy = "Send gzip, deflate, or the body as it is."


class BadTensor(UserError):
    """An input does not fit the model."""

    key = "bad_tensor"
    message = "Input {tensor!r} does not fit the model: {problem}"
    remedy = "The model wants {wanted}."


class BadTensorNames(UserError):
    """Inputs are missing, or there are inputs or outputs that the model does not have."""

    key = "bad_tensor_names"
    message = "{problem}"
    remedy = "The model's {kind} are: {known}."


class IdTooLong(UserError, AmlContractText):
    """An id header is over 100 characters."""

    key = "id_too_long"
    message = "{names} must not exceed 100 characters"
    remedy = "Send a shorter id."


class AmbiguousScore(UserError):
    """POST /score where several models are served and no script chooses."""

    key = "ambiguous_score"
    message = "/score does not say which of the models {known} is meant"
    remedy = "Use /v2/models/NAME/infer."


class UnknownSwaggerVersion(NotFoundError, AmlContractText):
    """``/swagger.json?version=`` with an unknown version."""

    key = "unknown_swagger_version"
    message = "Swagger version [{version}] is not valid. Supported versions: [{known}]."
    remedy = "Leave the parameter out for version 2."


class SwaggerVersionImpossible(NotFoundError, AmlContractText):
    """A version of swagger that cannot say what this script declares."""

    key = "swagger_version_impossible"
    message = "Swagger version [{version}] is not supported for the scoring script. Supported swagger versions: [{known}]."
    remedy = "Ask for ?version=3."


# --- per request: too busy, too slow, failed -------------------------------------------------------------------------


class Overloaded(UnavailableError):
    """No turn came up within the queue wait, or the queue was full."""

    key = "overloaded"
    message = "Too many requests are being scored; this one waited {waited_ms} ms"
    remedy = "Send it again after the time in Retry-After."


class BuffersFull(UnavailableError):
    """The bodies of the requests under way take all the memory that they may."""

    key = "buffers_full"
    message = "The requests under way take all the memory that bodies may take"
    remedy = "Send it again after the time in Retry-After, or send fewer rows at a time."


class NotReady(UnavailableError):
    """The worker is still loading or is being replaced."""

    key = "not_ready"
    message = "The model cannot score now: it is {state}"
    remedy = "Send it again after the time in Retry-After."


class ScoringTimeout(ScriptError, AmlContractText):
    """Scoring took longer than allowed."""

    key = "scoring_timeout"
    message = "Scoring timeout after {timeout_ms} ms"
    remedy = "Send fewer rows at a time, or raise --timeout-ms."


class ScriptRaised(ScriptError, AmlContractText):
    """The user's run() raised; what it raised goes to the log, not to the caller."""

    key = "script_raised"
    message = "An unexpected error occurred in scoring script. Check the logs for more info."
    remedy = "The log holds the script's traceback."


class ScriptProcessDied(ScriptError):
    """The process of a user's script ended in the middle of a call: crashed, killed for want of memory, or left by itself."""

    key = "script_process_died"
    message = "The scoring script's process ended while it scored this request ({how})"
    remedy = "Another one answers already; look at the log, and at the memory that run() takes."
