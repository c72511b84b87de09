"""What can go wrong while a model is converted: which file, which estimator, by how much, and what to do."""

from __future__ import annotations

from hedgerow.errors import ScriptError, UnavailableError, UserError


class UnknownModelFormat(UserError):
    key = "unknown_model_format"
    message = "Model {model} has no file that can be converted to ONNX (found: {found})"
    remedy = (
        "Register a pickle or joblib file, XGBoost .json/.ubj, LightGBM .txt, PyTorch .pt/.pt2 or .onnx; "
        "export other formats to ONNX yourself."
    )


class SeveralModelFiles(UserError):
    key = "several_model_files"
    message = "Model {model} has several files that could be converted: {files}"
    remedy = "Name the one to open (entry), or register it alone."


class NoSuchEntry(UserError):
    key = "no_such_entry"
    message = "Model {model} has no file {entry}"
    remedy = "Name one of its files: {found}."


class OpsetUnsupported(UserError):
    key = "opset_unsupported"
    message = "Opset {opset} cannot be asked for"
    remedy = "Choose one from {least} to {most}; 17 is read by every onnxruntime since 1.12."


class OpsetNotKept(UserError):
    key = "opset_not_kept"
    message = "Opset {asked} was asked for, but the converter writes {made} for this model"
    remedy = "Ask for opset {made} where the onnxruntime of your devices reads it, or change the model."


class LibraryMissing(UserError):
    key = "library_missing"
    message = "The model {file} needs {module}, which is not among the libraries that it is opened with ({problem})"
    remedy = (
        "Register the model with the requirements that it was trained with. A class or function of your own cannot be "
        "opened elsewhere: use the library's own, or convert the model yourself and register the .onnx file."
    )


class OtherVersion(UserError):
    key = "trained_with_other_version"
    message = "The model was saved by {library} {made_with}, but would be opened by {opened_with}"
    remedy = "Register it with framework_version {made_with}, or with {library}=={made_with} in its requirements."


class ModelUnreadable(UserError):
    key = "model_unreadable"
    message = "{file} cannot be opened: {problem}"
    remedy = "Check that the file is whole, and that the model is registered with the versions it was saved with."


class NothingToPredict(UserError):
    key = "nothing_to_predict"
    message = "{file} holds {found}, which has neither predict nor transform"
    remedy = "Save the fitted model itself."


class OnlyWeights(UserError):
    key = "only_weights"
    message = "{file} holds weights only ({found}), not the module that they belong to"
    remedy = "Save the module: torch.export.save(program, 'model.pt2'), torch.jit.save or torch.save(module, 'model.pt')."


class SampleNeeded(UserError):
    key = "sample_needed"
    message = "The model cannot be converted without a sample input: {why}"
    remedy = "Register the model with --sample-input: a .npz, .npy, .csv or .json with some rows that it takes."


class SampleUnfit(UserError):
    key = "sample_unfit"
    message = "The model does not take its sample input: {problem}"
    remedy = "Register the model with a sample input as it was trained on, with all columns."


class OutsideFiles(UserError):
    key = "outside_files"
    message = "The ONNX model keeps its tensor {tensor!r} in another file"
    remedy = "Save it as one file (onnx.save_model without save_as_external_data)."


class ConversionUnsupported(UserError):
    key = "conversion_unsupported"
    message = "The converter cannot turn {what} into ONNX: {problem}"
    remedy = "Use an estimator or operator that it knows, other versions, or build kind docker with a scoring script."


class ConversionWrong(ScriptError):
    key = "conversion_wrong"
    message = (
        "The conversion of {what} is wrong: {differing} of {rows} rows differ from the original, by up to {largest}, "
        "{labels} labels are others. For example {row}: the original answers {original}, the conversion {converted}"
    )
    remedy = (
        "Nothing was kept. What was tried: {tried}. Use another version of the libraries or another estimator, "
        "or build kind docker with a scoring script."
    )


class QuantisationTooCostly(ScriptError):
    key = "quantisation_too_costly"
    message = "Quantising ({mode}) costs too much: {words} (loss {loss}, allowed {most})"
    remedy = "Allow more, calibrate with a sample input of more rows (static), or keep the float model."


class ModelCrashed(ScriptError):
    key = "model_crashed"
    message = "{file} could not be converted: {problem}"
    remedy = "Open it where it was trained and save it again; a file from somebody else may be made to do harm."


class ConversionTooLarge(UserError):
    key = "conversion_too_large"
    message = "Converting {file} needs more than the {limit_mb} MB of memory that it may use"
    remedy = "Use a smaller model, or allow more (HEDGEROW_CONVERT_MEMORY_BYTES)."


class ConversionTooSlow(UserError):
    key = "conversion_too_slow"
    message = "Converting {file} took longer than {limit_s} s and was ended"
    remedy = "Allow more time (HEDGEROW_CONVERT_TIMEOUT_S), or look at what the file does when it is opened."


class SandboxUnavailable(UnavailableError):
    key = "sandbox_unavailable"
    message = "A model cannot be opened safely here: {problem}"
    remedy = (
        "Convert as a user without rights, or as root with the right to make namespaces (CAP_SYS_ADMIN), "
        "or with a Python that every user of this machine may enter."
    )
