"""What can go wrong with models themselves: unusable, unsafe, unknown, not to be loaded or unloaded now, failing in a run."""

from __future__ import annotations

from hedgerow.errors import NotFoundError, ScriptError, UserError


class ModelUnusable(UserError):
    """A model file is missing or is not ONNX."""

    key = "model_unusable"
    message = "Model {model} cannot be loaded from {file}: {problem}"
    remedy = "Check that the file is the ONNX model that you meant and was copied whole."


class ModelNeedsOperators(UserError):
    """A model uses operators that onnxruntime does not have."""

    key = "model_needs_operators"
    message = "Model {model} needs operators that are not built in: {problem}"
    remedy = "Custom-operator libraries are not loaded; convert the model with standard operators only."


class ModelTooNew(UserError):
    """A model was written for a later onnxruntime."""

    key = "model_too_new"
    message = "Model {model} is too new for the onnxruntime {version} that is installed here: {problem}"
    remedy = "Install a newer onnxruntime here, or convert the model again for an older operator set."


class ModelNeedsLocale(UserError):
    """A model compares or folds texts by the rules of a language that this machine does not know."""

    key = "model_needs_locale"
    message = "Model {model} needs the locale {locale}, which this machine does not have"
    remedy = "Install it (Debian: the package locales-all), or convert the model with the locale C, which is everywhere."


class ProvidersUnusable(UserError):
    """The list of execution providers cannot be read."""

    key = "providers_unusable"
    message = "The list of execution providers cannot be used: {problem}"
    remedy = "Name them in order of preference, as in --providers cuda:device_id=0,cpu."


class ProvidersMissing(UserError):
    """None of the execution providers that were asked for can be had."""

    key = "providers_missing"
    message = "Model {model} cannot run on any of the execution providers asked for: {problem}"
    remedy = "Install the onnxruntime build and the libraries that they need, or add cpu at the end of --providers."


class ModelUnsafe(UserError):
    """A model reaches outside its own folder or carries a compiled blob."""

    key = "model_unsafe"
    message = "Model {model} is refused: {problem}"
    remedy = "Save the model with its data inside the file or beside it, as plain ONNX."


class ModelInputUnsupported(UserError):
    """A model has an input that no tensor of the Open Inference Protocol can express."""

    key = "model_input_unsupported"
    message = "Model {model} has input {tensor!r} of type {type}, which a request cannot carry"
    remedy = "Convert the model so that its inputs are plain tensors (no sequences, maps or bfloat16)."


class ModelOutputUnsupported(UserError):
    """A model has an output that onnxruntime cannot hand over to Python, such as bfloat16."""

    key = "model_output_unsupported"
    message = "Model {model} has output {tensor!r} of type {type}, which an answer cannot carry"
    remedy = "Give the model a Cast to float or float16 behind it."


class RepositoryUnusable(UserError):
    """The folder given as a model repository is not one."""

    key = "repository_unusable"
    message = "{folder} cannot be served as a model repository: {problem}"
    remedy = "It holds one folder per model, and in it one per version: MODEL/1/model.onnx."


class ModelConfigUnusable(UserError):
    """A model's config.pbtxt, or the config of a load request, says what cannot be."""

    key = "model_config_unusable"
    message = "The configuration of model {model} cannot be used: {problem}"
    remedy = "Correct its config.pbtxt, or leave it out: everything is found in the ONNX file."


class UnknownModel(NotFoundError):
    """A path names a model that is not served here."""

    key = "unknown_model"
    message = "There is no model {model!r} here"
    remedy = "Served are: {known}."


class UnknownModelVersion(NotFoundError):
    """A path names a version that is not served here."""

    key = "unknown_model_version"
    message = "There is no version {version!r} of model {model!r} here"
    remedy = "Served is version {known}."


class NotInRepository(NotFoundError):
    """A load or unload names a model that the repository does not hold."""

    key = "not_in_repository"
    message = "The model repository has no model {model!r}"
    remedy = "POST /v2/repository/index lists what it has."


class ModelControlOff(UserError):
    """Models are loaded or unloaded, or files sent with a load, where the settings do not allow it."""

    key = "model_control_off"
    message = "{what} is not allowed on this server"
    remedy = "Start it with --model-repository DIR --model-control {mode}."


class BadModelUpload(UserError):
    """A load request brings files that cannot be a model."""

    key = "bad_model_upload"
    message = "The files sent for model {model} cannot be used: {problem}"
    remedy = 'Send "file:<version>/<name>" parameters in base64, one of them "file:1/model.onnx".'


class LedgerFull(UserError):
    """What callers asked to load takes more room to remember than there is."""

    key = "ledger_full"
    message = "The models that were asked for, with their configurations, take more than {limit} bytes to write down"
    remedy = "Leave out the config of the load request, or unload models first."


class NoSharedMemory(UserError):
    """A request wants tensors to be taken from, or put into, memory shared with the caller."""

    key = "no_shared_memory"
    message = "Shared memory is not offered here"
    remedy = "Send tensors in the body; the binary tensor extension is as quick over a local connection."


class ModelFailed(ScriptError):
    """onnxruntime failed inside the model."""

    key = "model_failed"
    message = "Model {model} failed on this input"
    remedy = "The log holds the failing operator; check the values (indices, shapes inside the model)."
