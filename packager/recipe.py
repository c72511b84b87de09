"""Plans an image: a request and what was found on disk become layers as frozen data. Opens no file, runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hedgerow.contracts.build import BuildModel, BuildRequest
from hedgerow.contracts.document import digest_of, encode
from hedgerow.contracts.image import PARITY_FILE, SCORING_CONFIG_FILE, ScoringConfig, ServedModel
from hedgerow.contracts.names import MEDIA_MODEL_WEIGHT_TAR, MEDIA_OCI_LAYER_TAR, MEDIA_SCORING_CONFIG
from hedgerow.contracts.oci import Platform
from hedgerow.contracts.proof import PARITY_INDEX_FILE
from packager.bases.fetch import NO_PYTHON, UNKNOWN_PYTHON, BaseImage
from packager.errors import (
    BasePlatform,
    BasePython,
    DuplicateModel,
    NoOnnxFile,
    NothingToPack,
    OnnxImageTakesModelsOnly,
    PythonUnsupported,
    SeveralOnnxFiles,
)
from packager.oci.tar_layer import DataEntry, DiskEntry, Entry
from packager.runtime_code import Code
from packager.settings import IMAGE_ROOT, OLDEST_PYTHON_MINOR
from packager.source_files import FoundFile

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
    """The scoring script (its path in the source folder) and all files of that folder; ``digest`` is of their content."""

    script: str
    files: tuple[FoundFile, ...]
    digest: str


@dataclass(frozen=True)
class PlannedLayer:
    """A layer to write.

    ``content`` is the digest (``contracts.model.digest_of_files``) that its files below ``prefix`` must turn out to have; with
    one, the layer is looked for in the cache first. ``made_of`` and ``origin`` are for the BuildReport. ``facts`` is set for a
    model's layer.
    """

    purpose: str
    media_type: str
    entries: tuple[Entry, ...]
    prefix: str
    content: str
    made_of: dict[str, str]
    origin: str
    facts: ModelFacts | None = None


def check_request(request: BuildRequest) -> None:
    """Refuse what can be refused before any file is read. Raises the UserErrors named in the code."""
    if not request.models and (request.kind != "docker" or request.script is None):
        raise NothingToPack(name=request.name)
    if request.kind != "docker":
        given = {"a scoring script": request.script, "a list of requirements": request.requirements, "a base": request.base}
        for what, value in given.items():
            if value:
                raise OnnxImageTakesModelsOnly(kind=request.kind, what=what)
    titles = [f"{model.ref.name}:{model.ref.version}" for model in request.models]
    for title in titles:
        if titles.count(title) > 1:
            raise DuplicateModel(model=title)


def image_python(asked: str) -> str:
    """`3.11` of `3.11.9`: which patch version an image has, its base decides. Raises PythonUnsupported."""
    found = re.fullmatch(r"3\.(\d{1,2})(?:\.\d{1,3})?", asked, re.ASCII)
    if found is None or int(found[1]) < OLDEST_PYTHON_MINOR:
        raise PythonUnsupported(python_version=asked, oldest=f"3.{OLDEST_PYTHON_MINOR}")
    return f"3.{int(found[1])}"


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
        raise NoOnnxFile(model=facts.title)
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


def onnx_layers(models: tuple[ModelFacts, ...], config: ScoringConfig, proof: ModelFacts | None = None) -> list[PlannedLayer]:
    """An ONNX artifact: one layer for each model, then a small one with what the runtime reads first.

    ``proof``: the model of several (stages) whose recorded vectors are those of all.
    """
    layers = [_model_layer(facts, MEDIA_MODEL_WEIGHT_TAR, "") for facts in sorted(models, key=_order)]
    return [*layers, _config_layer(models, config, MEDIA_SCORING_CONFIG, "", proof)]


def docker_layers(
    models: tuple[ModelFacts, ...], source: SourceFacts | None, config: ScoringConfig, code: Code, media_type: str
) -> list[PlannedLayer]:
    """What comes above base and wheels: our runtime, models (not compressed: weights hardly are), script and configuration."""
    prefix = f"{IMAGE_ROOT}/"
    return [
        PlannedLayer(
            "hedgerow runtime", media_type, code.entries, f"{code.prefix}/", code.digest, {"code": code.digest}, code.name
        ),
        *(_model_layer(facts, MEDIA_OCI_LAYER_TAR, prefix) for facts in sorted(models, key=_order)),
        *([_script_layer(source, media_type, prefix)] if source else []),
        _config_layer(models, config, media_type, prefix),
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
    place, name = f"{prefix}{facts.folder_in_image}/", f"model {facts.title}"
    made_of = {"model": facts.title, "content": facts.model.ref.digest}
    return PlannedLayer(name, media_type, _disk_entries(facts.files, place), place, facts.model.ref.digest, made_of, name, facts)


def _script_layer(source: SourceFacts, media_type: str, prefix: str) -> PlannedLayer:
    place = f"{prefix}{SOURCE_FOLDER}/"
    made_of = {"script": source.script, "source": source.digest}
    return PlannedLayer("script", media_type, _disk_entries(source.files, place), place, source.digest, made_of, "source")


def _config_layer(
    models: tuple[ModelFacts, ...], config: ScoringConfig, media_type: str, prefix: str, proof: ModelFacts | None = None
) -> PlannedLayer:
    encoded = encode(config)
    entries: list[Entry] = [DataEntry(prefix + SCORING_CONFIG_FILE, encoded)]
    made_of = {"configuration": digest_of(encoded)}
    if proof is None and len(models) == 1 and models[0].has_parity:
        proof = models[0]
    if proof is not None:
        # The proof stands at the image's root as well: a device reads it without knowing how models are laid out.
        entries += _disk_entries([file for file in proof.files if file.path in PARITY_FILES], prefix)
        made_of["parity of"] = f"{proof.title} {proof.model.ref.digest}"
    # Small, and its content is not known before it is read: never looked for in the cache.
    return PlannedLayer("scoring configuration", media_type, tuple(entries), prefix, "", made_of, "scoring configuration")


def _disk_entries(files: Iterable[FoundFile], prefix: str) -> tuple[Entry, ...]:
    # Never executable: models and scripts come from a blob store, which keeps no modes.
    return tuple(DiskEntry(prefix + file.path, file.source, file.size_bytes) for file in files)


def _order(facts: ModelFacts) -> tuple[str, int]:
    return facts.model.ref.name, facts.model.ref.version
