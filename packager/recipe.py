"""Plans an image: a request and what was found on disk become layers as frozen data. Opens no file, runs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hedgerow.contracts.build import BuildModel, BuildRequest
from hedgerow.contracts.document import encode
from hedgerow.contracts.image import PARITY_FILE, SCORING_CONFIG_FILE, ScoringConfig, ServedModel
from hedgerow.contracts.names import MEDIA_MODEL_WEIGHT_TAR, MEDIA_OCI_LAYER_GZIP, MEDIA_SCORING_CONFIG
from hedgerow.contracts.proof import PARITY_INDEX_FILE
from packager.bases import NO_PYTHON, UNKNOWN_PYTHON, BaseImage
from packager.errors import (
    BasePlatform,
    BasePython,
    DuplicateModel,
    NoOnnxFile,
    NothingToPack,
    OnnxImageTakesModelsOnly,
    SeveralOnnxFiles,
    UnsupportedKind,
)
from packager.oci_documents import Platform
from packager.settings import IMAGE_ROOT
from packager.source_files import FoundFile
from packager.tar_layer import MEDIA_OCI_LAYER_TAR, DataEntry, DiskEntry, Entry

SOURCE_FOLDER = "source"
PARITY_FILES = (PARITY_FILE, PARITY_INDEX_FILE)


@dataclass(frozen=True)
class ModelFacts:
    """A model of the request and the files that stand in its folder."""

    model: BuildModel
    files: tuple[FoundFile, ...]

    @property
    def folder_in_image(self) -> str:
        return f"models/{self.model.ref.name}/{self.model.ref.version}"

    @property
    def title(self) -> str:
        return f"{self.model.ref.name}:{self.model.ref.version}"

    @property
    def has_parity(self) -> bool:
        return {file.path for file in self.files}.issuperset(PARITY_FILES)


@dataclass(frozen=True)
class SourceFacts:
    """The scoring script (its path in the source folder) and all files of that folder."""

    script: str
    files: tuple[FoundFile, ...]


@dataclass(frozen=True)
class PlannedLayer:
    """A layer to write. ``facts`` is set for a model's layer, whose content must be what was registered."""

    purpose: str
    media_type: str
    entries: tuple[Entry, ...]
    prefix: str = ""
    facts: ModelFacts | None = None


def check_request(request: BuildRequest) -> None:
    """Refuse what can be refused before any file is read. Raises the UserErrors named in the code."""
    if request.kind not in ("onnx", "docker"):
        raise UnsupportedKind(kind=request.kind)
    if not request.models and (request.kind == "onnx" or request.script is None):
        raise NothingToPack(name=request.name)
    if request.kind == "onnx":
        given = {"a scoring script": request.script, "a list of requirements": request.requirements, "a base": request.base}
        for what, value in given.items():
            if value:
                raise OnnxImageTakesModelsOnly(what=what)
    titles = [f"{model.ref.name}:{model.ref.version}" for model in request.models]
    for title in titles:
        if titles.count(title) > 1:
            raise DuplicateModel(model=title)


def check_base(base: BaseImage, reference: str, wanted: Platform, python_version: str) -> None:
    """Raises BasePlatform or BasePython when ``base`` cannot carry the image."""
    if not base.config.platform.suits(wanted):
        raise BasePlatform(base=reference, found=base.config.platform, wanted=wanted)
    if base.python == NO_PYTHON or (base.python != UNKNOWN_PYTHON and base.python != f"Python {python_version}"):
        raise BasePython(base=reference, found=base.python, wanted=python_version)


def onnx_entry(facts: ModelFacts) -> str:
    """The model's `.onnx` file, by its path in the model's folder. Raises NoOnnxFile, SeveralOnnxFiles."""
    found = [file.path for file in facts.files if file.path.endswith(".onnx")]
    if not found:
        raise NoOnnxFile(model=facts.title, folder=facts.model.folder)
    if len(found) > 1 and "model.onnx" not in found:
        raise SeveralOnnxFiles(model=facts.title, files=", ".join(found[:5]))
    return found[0] if len(found) == 1 else "model.onnx"


def scoring_config(models: Iterable[ModelFacts], source: SourceFacts | None, variables: dict[str, str]) -> ScoringConfig:
    """`hedgerow.json`. What is measured (batchability) is not in it: it could differ from machine to machine."""
    return ScoringConfig(
        models=[_served(facts, source) for facts in sorted(models, key=_order)],
        script=f"{SOURCE_FOLDER}/{source.script}" if source else None,
        source=SOURCE_FOLDER if source else None,
        variables=variables,
    )


def onnx_layers(models: tuple[ModelFacts, ...], config: ScoringConfig) -> list[PlannedLayer]:
    """An ONNX artifact: one layer for each model, then a small one with what the runtime reads first."""
    layers = [_model_layer(facts, MEDIA_MODEL_WEIGHT_TAR, "") for facts in sorted(models, key=_order)]
    return [*layers, PlannedLayer("scoring configuration", MEDIA_SCORING_CONFIG, _config_entries(models, None, config, ""))]


def docker_layers(
    models: tuple[ModelFacts, ...], source: SourceFacts | None, config: ScoringConfig, code: tuple[Entry, ...]
) -> list[PlannedLayer]:
    """What comes above base and wheels: our runtime, models (not compressed: weights hardly are), configuration and script."""
    prefix = f"{IMAGE_ROOT}/"
    return [
        PlannedLayer("hedgerow runtime", MEDIA_OCI_LAYER_GZIP, code),
        *(_model_layer(facts, MEDIA_OCI_LAYER_TAR, prefix) for facts in sorted(models, key=_order)),
        PlannedLayer("scoring configuration", MEDIA_OCI_LAYER_GZIP, _config_entries(models, source, config, prefix)),
    ]


def _served(facts: ModelFacts, source: SourceFacts | None) -> ServedModel:
    ref, folder = facts.model.ref, facts.folder_in_image
    # With a script the runtime opens no model itself: the script does, and it alone knows which file.
    entry = None if source else f"{folder}/{onnx_entry(facts)}"
    return ServedModel(
        name=ref.name,
        version=ref.version,
        digest=ref.digest,
        path=folder,
        entry=entry,
        inputs=facts.model.inputs,
        outputs=facts.model.outputs,
    )


def _model_layer(facts: ModelFacts, media_type: str, prefix: str) -> PlannedLayer:
    place = f"{prefix}{facts.folder_in_image}/"
    return PlannedLayer(f"model {facts.title}", media_type, _disk_entries(facts.files, place), place, facts)


def _config_entries(
    models: tuple[ModelFacts, ...], source: SourceFacts | None, config: ScoringConfig, prefix: str
) -> tuple[Entry, ...]:
    entries: list[Entry] = [DataEntry(prefix + SCORING_CONFIG_FILE, encode(config))]
    if len(models) == 1 and models[0].has_parity:
        # The proof stands at the image's root as well: a device reads it without knowing how models are laid out.
        entries += _disk_entries([file for file in models[0].files if file.path in PARITY_FILES], prefix)
    if source:
        entries += _disk_entries(source.files, f"{prefix}{SOURCE_FOLDER}/")
    return tuple(entries)


def _disk_entries(files: Iterable[FoundFile], prefix: str) -> tuple[Entry, ...]:
    # Never executable: models and scripts come from a blob store, which keeps no modes.
    return tuple(DiskEntry(prefix + file.path, file.source, file.size_bytes) for file in files)


def _order(facts: ModelFacts) -> tuple[str, int]:
    return facts.model.ref.name, facts.model.ref.version
