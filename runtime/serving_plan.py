"""What is to be served: an image, one ONNX file, one script or a model repository becomes a ServingPlan of absolute paths.

Decided once in the master process, before any worker; loads nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hedgerow.contracts.document import decode
from hedgerow.contracts.image import SCORING_CONFIG_FILE, ScoringConfig, ServedModel, Stage
from hedgerow.contracts.names import check_name
from hedgerow.errors import HedgerowError, InvalidSetting
from runtime.errors import ImageUnusable, NothingToServe, ScriptUnusable
from runtime.models.errors import ModelUnusable
from runtime.models.providers import Wish, parse_providers
from runtime.scripts.place import ScriptPlace
from runtime.settings import ModelControl, RuntimeSettings


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a model (image.Stage). ``feeds`` is empty for the first."""

    name: str
    file: Path
    providers: tuple[Wish, ...]
    feeds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedModel:
    """An ONNX model to load. ``batchable`` is what was measured when its image was built; None measures it at start.

    ``most_rows`` may share a run (0: requests are never merged), ``instances`` runs may go on at once; None: what trying it out
    shows. With ``stages`` those are loaded, and ``file`` is the accelerated one's.
    """

    name: str
    version: str
    file: Path
    batchable: bool | None = None
    most_rows: int | None = None
    instances: int | None = None
    stages: tuple[PlannedStage, ...] = ()


@dataclass(frozen=True)
class PlannedScript:
    """A scoring script to load; ``source`` goes first on sys.path, after ``root`` where an app has a root of its own."""

    file: Path
    source: Path
    root: Path | None = None
    source_directory: Path | None = None

    @property
    def place(self) -> ScriptPlace:
        """What its processes need to know. azmlinfsrv's order: app root, source directory, and the script's own folder."""
        folders = [folder for folder in (self.root, self.source_directory, self.source) if folder is not None]
        return ScriptPlace(self.file, self.root or self.source, tuple(dict.fromkeys(folders)))


@dataclass(frozen=True)
class Repository:
    """A folder of models (models/model_repository.py). ``control`` says who may load and unload them while the server runs."""

    folder: Path
    control: ModelControl


@dataclass(frozen=True)
class ServingPlan:
    """Everything a worker loads. ``variables`` go into the environment before it does."""

    models: tuple[PlannedModel, ...] = ()
    script: PlannedScript | None = None
    model_dir: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    repository: Repository | None = None


def plan_serving(settings: RuntimeSettings) -> ServingPlan:
    """Raises ImageUnusable, ModelUnusable, ScriptUnusable or RepositoryUnusable when what was named is not there."""
    if settings.image is not None:
        known = (name.strip() for name in (settings.batchable or "").split(","))
        return plan_image(settings.image, frozenset(known))
    if settings.model is not None:
        return plan_model(settings.model, settings.name)
    if settings.script is not None:
        return plan_script(settings.script, settings.model_dir, settings.app_root, settings.source_directory)
    if settings.model_repository is not None:
        # It is written in the words above.
        from runtime.models.model_repository import plan_repository

        return plan_repository(settings.model_repository, settings)
    raise NothingToServe


def plan_model(file: Path, name: str | None) -> ServingPlan:
    """One ONNX file, under ``name`` or a name made from the file's. Raises ModelUnusable or InvalidName."""
    model = PlannedModel(check_name(name, "model") if name else name_from(file), "1", file.resolve())
    if not file.is_file():
        problem = "that is a folder, not a file" if file.is_dir() else "there is no such file"
        raise ModelUnusable(model=model.name, file=file, problem=problem)
    return ServingPlan(models=(model,), model_dir=model.file.parent)


def plan_script(
    file: Path, model_dir: Path | None, app_root: Path | None = None, source_directory: str | None = None
) -> ServingPlan:
    """One scoring script, its folder as source. Raises ScriptUnusable or InvalidSetting."""
    if not file.is_file():
        raise ScriptUnusable(script=file, problem="there is no such file")
    if model_dir is not None and not model_dir.is_dir():
        raise InvalidSetting(name="model_dir", value=str(model_dir), problem="there is no such folder", source="--model-dir")
    place = file.resolve()
    root = app_root.resolve() if app_root is not None else None
    if root is not None and not root.is_dir():
        raise InvalidSetting(name="app_root", value=str(app_root), problem="there is no such folder", source="--app-root")
    directory = (root or place.parent) / source_directory if source_directory else None
    script = PlannedScript(place, place.parent, root, directory)
    return ServingPlan(script=script, model_dir=model_dir.resolve() if model_dir else None)


def plan_image(folder: Path, batchable: frozenset[str] = frozenset()) -> ServingPlan:
    """An image's folder, as the packager wrote it. ``batchable``: models that were measured; a proof may still forbid it."""
    root = folder.resolve()
    config = _read_config(root)
    models = tuple(
        replace(model, batchable=True) if model.name in batchable else model for model, _ in _planned_models(root, config)
    )
    script = _planned_script(root, config)
    if not models and script is None:
        raise ImageUnusable(folder=folder, problem=f"{SCORING_CONFIG_FILE} names neither an ONNX model nor a script")
    return ServingPlan(models, script, _model_dir(root, config.models), config.variables)


def image_variables(folder: str | None) -> Mapping[str, str]:
    """The variables of an image's environment; none where there is no image. What is wrong with it, plan_image says."""
    try:
        return _read_config(Path(folder).resolve()).variables if folder else {}
    except ImageUnusable:
        return {}


def image_models(folder: Path) -> list[tuple[PlannedModel, Path]]:
    """The ONNX models of an image, each with the folder that may hold its vectors. Raises ImageUnusable or ModelUnusable."""
    root = folder.resolve()
    return _planned_models(root, _read_config(root))


def name_from(file: Path) -> str:
    """A name of the shared grammar made from a file's; ``My Model (v2).onnx`` becomes ``my-model-v2``."""
    return re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("._-")[:128].strip("._-") or "model"


def _read_config(root: Path) -> ScoringConfig:
    place = root / SCORING_CONFIG_FILE
    try:
        return decode(place.read_bytes(), ScoringConfig)
    except OSError as problem:
        raise ImageUnusable(folder=root, problem=f"{SCORING_CONFIG_FILE}: {problem.strerror}") from None
    except HedgerowError as problem:
        raise ImageUnusable(folder=root, problem=str(problem)) from None


def _planned_models(root: Path, config: ScoringConfig) -> list[tuple[PlannedModel, Path]]:
    if config.stages:
        # Vectors of one stage say nothing of all: those of all stand at the root.
        return [(_planned_stages(root, config.stages), root)]
    return [(_planned_model(root, model, model.entry), _inside(root, model.path)) for model in config.models if model.entry]


def _planned_stages(root: Path, stages: list[Stage]) -> PlannedModel:
    """One model, named after its accelerated stage. Raises ImageUnusable, ModelUnusable, ProvidersUnusable."""
    accelerated = [stage for stage in stages if stage.name == "accelerated"]
    if len(accelerated) != 1:
        raise ImageUnusable(folder=root, problem=f"{SCORING_CONFIG_FILE} names {len(accelerated)} accelerated stages")
    planned = []
    for stage in stages:
        file = _inside(root, stage.entry)
        if not file.is_file():
            raise ModelUnusable(model=stage.model, file=file, problem="there is no such file")
        planned.append(PlannedStage(stage.name, file, parse_providers(",".join(stage.providers)), stage.feeds))
    name, version = accelerated[0].model, str(accelerated[0].version)
    return PlannedModel(name, version, _inside(root, accelerated[0].entry), stages=tuple(planned))


def _planned_model(root: Path, model: ServedModel, entry: str) -> PlannedModel:
    """``entry`` counts from the image's root, as every path in hedgerow.json does."""
    file = _inside(root, entry)
    if not file.is_file():
        raise ModelUnusable(model=model.name, file=file, problem="there is no such file")
    # False is also what an image says of a model that nobody measured.
    return PlannedModel(model.name, str(model.version), file, model.batchable or None)


def _planned_script(root: Path, config: ScoringConfig) -> PlannedScript | None:
    if config.script is None:
        return None
    file = _inside(root, config.script)
    if not file.is_file():
        raise ImageUnusable(folder=root, problem=f"its scoring script {config.script} is not there")
    return PlannedScript(file, _inside(root, config.source) if config.source else file.parent)


def _model_dir(root: Path, models: list[ServedModel]) -> Path | None:
    """What AZUREML_MODEL_DIR names: the model's folder, or with several the folder above them all."""
    folders = [_inside(root, model.path) for model in models]
    if len(folders) < 2:
        return folders[0] if folders else None
    common = folders[0]
    while not all(folder.is_relative_to(common) and folder != common for folder in folders):
        common = common.parent
    return common


def _inside(root: Path, path: str) -> Path:
    """The grammar forbids ``..``; a link in the folder could still lead out of it."""
    place = (root / path).resolve()
    if not place.is_relative_to(root):
        raise ImageUnusable(folder=root, problem=f"{path} leads out of it")
    return place
