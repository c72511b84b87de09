"""What can go wrong while an image is built: whose fault, which value, what to do."""

from __future__ import annotations

from hedgerow.errors import ConflictError, ScriptError, UnavailableError, UserError


class NothingToPack(UserError):
    key = "nothing_to_pack"
    message = "The request for image {name} names no model and no scoring script"
    remedy = "Name at least one model, or (kind docker) a scoring script."


class OnnxImageTakesModelsOnly(UserError):
    key = "onnx_models_only"
    message = "An image of kind {kind} holds models only, but {what} was given"
    remedy = "Leave it out, or build kind docker."


class DuplicateModel(UserError):
    key = "duplicate_model"
    message = "Model {model} was named twice"
    remedy = "Name each model version once."


class NoOnnxFile(UserError):
    key = "no_onnx_file"
    message = "Model {model} has no .onnx file"
    remedy = "Convert it (hedgerow model convert {model}) and name what comes out, or build kind docker with a scoring script."


class SeveralOnnxFiles(UserError):
    key = "several_onnx_files"
    message = "Model {model} has several .onnx files ({files}) and none of them is model.onnx at its top"
    remedy = "Name the one to serve model.onnx."


class ModelChanged(ConflictError):
    key = "model_changed"
    message = "The files in {folder} are not those of model {model}: expected {expected}, found {found}"
    remedy = "Fetch the model again and leave its folder alone while an image is built."


class PackedFileChanged(ConflictError):
    key = "packed_file_changed"
    message = "{path} changed while it was read"
    remedy = "Build again when nothing writes to that folder."


class LinkOutside(UserError):
    key = "link_outside"
    message = "{path} is a link to {target}, which is not a file inside the folder"
    remedy = "Copy what it points at into the folder."


class SpecialFile(UserError):
    key = "special_file"
    message = "{path} is a {what}, which cannot be part of an image"
    remedy = "Remove it from the folder."


class UnreadableFile(UserError):
    key = "unreadable_file"
    message = "{path} cannot be read: {problem}"
    remedy = "Make it readable for the user that builds images."


class UnusableFileName(UserError):
    key = "unusable_file_name"
    message = "The file name {path!r} cannot be part of an image"
    remedy = "Rename it: UTF-8, no control characters, no backslash, no .wh. in front, at most 1024 bytes with its folders."


class ReservedName(UserError):
    key = "reserved_name"
    message = "{path} has a name that Hedgerow's own code uses inside an image"
    remedy = "Rename it: 'runtime' and 'hedgerow' are reserved at the top of a scoring source."


class ScriptNotFound(UserError):
    key = "script_not_found"
    message = "There is no scoring script {script} in {source}"
    remedy = "Give the path of a Python file inside the source folder."


class BaseMissing(UserError):
    key = "base_missing"
    message = "An image of kind docker needs a base image with Python {python_version}"
    remedy = "Name one: docker:TAG, registry:HOST/NAME:TAG, oci:FOLDER or docker-archive:FILE (or set HEDGEROW_BASE_IMAGE)."


class BaseUnsupported(UserError):
    key = "base_unsupported"
    message = "{base!r} is not a base image that can be read"
    remedy = "Write docker:TAG, registry:HOST/NAME:TAG, oci:FOLDER or docker-archive:FILE."


class BaseUnreadable(UserError):
    key = "base_unreadable"
    message = "The base image {base} cannot be used: {problem}"
    remedy = "Check its name or path; fetch or export it again (docker pull, docker save, skopeo copy)."


class BasePlatform(UserError):
    key = "base_platform"
    message = "The base image {base} is for {found}, the image is built for {wanted}"
    remedy = "Use a base of the platform that is built."


class BasePython(UserError):
    key = "base_python"
    message = "The base image {base} has {found}, but Python {wanted} was asked for"
    remedy = "Use a base with Python {wanted}, or build for the Python that the base has."


class PythonUnsupported(UserError):
    key = "python_unsupported"
    message = "No image can have Python {python_version}: the scoring server in it runs on Python {oldest} and newer"
    remedy = (
        "Make the environment for another one: hedgerow env create NAME --conda FILE --python {oldest} (or --requirements FILE). "
        "What is pinned to versions from before that Python needs newer ones."
    )


class EngineMissing(UnavailableError):
    key = "engine_missing"
    message = "No container engine answers, but {what} needs one"
    remedy = "Start Docker (DOCKER_HOST says where). A base can also come from registry:, oci: or docker-archive:."


class EngineFailed(UnavailableError):
    key = "engine_failed"
    message = "The container engine could not {what}: {problem}"
    remedy = "See the engine's log; the same build may work once it is well."


class RequirementRefused(UserError):
    key = "requirement_refused"
    message = "The requirement {requirement!r} cannot be locked"
    remedy = (
        "Write NAME or NAME with a version, as on a package index; options, paths and URLs are not taken. "
        "What is there by an address only: publish a wheel of it in a package index that builds see (UV_INDEX)."
    )


class EnvironmentUnsolvable(UserError):
    key = "environment_unsolvable"
    message = "The environment cannot be made from wheels for {platform}, Python {python_version}: {problem}"
    remedy = "{advice}"

    def __init__(self, **fields: object) -> None:
        usual = "Change the requirements; packages without a wheel for that platform cannot be used."
        super().__init__(**{"advice": usual, **fields})


class CondaSpecRefused(UserError):
    key = "conda_spec_refused"
    message = "The conda package {spec!r} cannot be looked up on a package index: {problem}"
    remedy = "Write NAME, NAME=1.2, NAME>=1.2,<2 or CHANNEL::NAME=1.2, or list it under pip in the way pip takes it."


class CondaOnly(UserError):
    key = "conda_only"
    message = "These packages exist for conda only, as programs or libraries that no wheel has: {packages}"
    remedy = "Leave out what the scoring script does not call, or build on {base}."


class SourceBuildFailed(UserError):
    key = "source_build_failed"
    message = "The container engine could not build {packages} from source: {problem}"
    remedy = "A base image with compilers and the libraries that the package needs may help."


class ScriptBroken(UserError):
    key = "script_broken"
    message = "The scoring script cannot be used: {file}, line {line}: {problem}"
    remedy = "Correct it; the image is not built before it can be read by Python {python_version}."


class ScriptIncomplete(UserError):
    key = "script_incomplete"
    message = "The scoring script {script} has no function {functions}"
    remedy = "Define init(), called once at the start, and run(data), called for every request."


class ImportsMissing(UserError):
    key = "imports_missing"
    message = "The scoring script imports what its environment does not have: {imports}"
    remedy = "{advice}"


class IndexUnreachable(UnavailableError):
    key = "index_unreachable"
    message = "The package index did not answer: {problem}"
    remedy = "Check the network and the index settings of uv, then build again."


class WheelsCollide(UserError):
    key = "wheels_collide"
    message = "{path} comes with different content from {first} and from {second}"
    remedy = "Leave out one of the two packages, or use versions that do not overlap."


class BlobCorrupt(UserError):
    key = "blob_corrupt"
    message = "The bytes of {digest} in {where} are not what that digest says"
    remedy = "Fetch or export it again."


class OutNotEmpty(UserError):
    key = "out_not_empty"
    message = "The output folder {out} is not an empty folder"
    remedy = "Give a new or empty folder."


class DiskFull(UnavailableError):
    key = "disk_full"
    message = "No space is left for {path}"
    remedy = "Free some space and build again; nothing half-written was kept."


class FolderNotWritable(UserError):
    key = "folder_not_writable"
    message = "{path} cannot be written"
    remedy = "Give the user that builds images the right to write there."


class VerificationFailed(ScriptError):
    key = "verification_failed"
    message = "The image did not pass its own test: {problem}"
    remedy = (
        "Correct the model, its conversion, the script or the environment. "
        "To look into it, build with --no-verify and start the image yourself."
    )


def answers_differ(model: str, *, max_abs_error: float | None, tolerance: float, rows: int) -> VerificationFailed:
    """A VerificationFailed that carries the numbers, also as details. No ``max_abs_error``: what differs is text."""
    largest = "in text" if max_abs_error is None else f"{max_abs_error:g}"
    problem = f"model {model} does not answer as recorded (largest difference {largest}, tolerance {tolerance:g}, {rows} rows)"
    return VerificationFailed(problem=problem, model=model, max_abs_error=largest, tolerance=tolerance, rows=rows)


class RequestUnreadable(UserError):
    key = "request_unreadable"
    message = "The request {path} cannot be read: {problem}"
    remedy = "Give the path of a request document: BuildRequest to build, ConvertRequest to convert, PushRequest to push."


class StagesWrong(UserError):
    key = "stages_wrong"
    message = "The stages of the image cannot be told: {problem}"
    remedy = "Give --stage accelerated=REF, and where they are needed --stage pre=REF and --stage post=REF, each once."


class StageNotQuantized(UserError):
    key = "stage_not_quantized"
    message = "Model {model} cannot be the accelerated stage: {problem}"
    remedy = "Quantise it with calibration data (hedgerow model convert REF --quantize static); keep the rest in pre or post."


class StagesDoNotFit(UserError):
    key = "stages_do_not_fit"
    message = "Stage {before} does not fit stage {stage}: {problem}"
    remedy = "Give them the same names, types and shapes where they meet."


class StageUnreadable(UserError):
    key = "stage_unreadable"
    message = "Model {model} cannot be a stage: {problem}"
    remedy = "Check the model by building an image of kind onnx of it alone."
