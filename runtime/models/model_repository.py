"""A folder of models in Triton's layout, read: which models it has, and what loading one of them means.

    <folder>/<model>/config.pbtxt            optional (model_config.py)
    <folder>/<model>/<version>/model.onnx    version is a whole number from 1

Names are matched against what the folder lists, never joined to a path first: nothing that a caller writes leads out of it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hedgerow.errors import InvalidSetting
from runtime.models.errors import BadModelUpload, ModelConfigUnusable, ModelUnusable, NotInRepository, RepositoryUnusable
from runtime.models.model_config import ModelConfig, config_from_json, config_from_pbtxt
from runtime.serving_plan import PlannedModel, Repository, ServingPlan
from runtime.settings import RuntimeSettings

_log = logging.getLogger("hedgerow.runtime.models")

CONFIG_FILE = "config.pbtxt"
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_UPLOADED = re.compile(r"file:([1-9][0-9]{0,17})/([A-Za-z0-9_][A-Za-z0-9._-]{0,254})")
_UPLOAD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LARGEST_CONFIG = 1_048_576
_MOST_NAMED = 20


class Wanted(msgspec.Struct, frozen=True):
    """A model that is to be served. ``config`` (JSON) replaces its config.pbtxt; ``folder`` holds files that a caller sent."""

    name: str
    config: str | None = None
    folder: str | None = None


def plan_repository(folder: Path, settings: RuntimeSettings) -> ServingPlan:
    """What ``--model-repository`` serves at the start. Raises RepositoryUnusable, InvalidSetting or ModelUnusable."""
    repository = Repository(folder.resolve(), settings.model_control)
    there = model_names(repository)
    names = [name.strip() for name in settings.load_models.split(",") if name.strip()]
    wanted = there if "*" in names else names
    _check_there(wanted, there, settings.load_models)
    models = tuple(model for name in wanted for model in plan_wanted(repository, Wanted(name)))
    if not models and settings.model_control == "none":
        if there and not wanted:
            problem = "it names no model, and none could be loaded later"
            raise InvalidSetting(name="load_models", value=settings.load_models, problem=problem, source="--load-models")
        raise RepositoryUnusable(folder=folder, problem="it has no models, and none could be loaded later")
    return ServingPlan(models, model_dir=repository.folder, repository=repository)


def _check_there(wanted: Sequence[str], there: Sequence[str], given: str) -> None:
    """Raises InvalidSetting; nobody can ask the server what there is, since it does not come up."""
    for name in wanted:
        if name not in there:
            known = ", ".join(there[:_MOST_NAMED]) + (", …" if len(there) > _MOST_NAMED else "")
            problem = f"the repository has no model {name!r}; it has {known or 'none'}"
            raise InvalidSetting(name="load_models", value=given, problem=problem, source="--load-models")


def model_names(repository: Repository) -> list[str]:
    """The models of a repository, loaded or not. Raises RepositoryUnusable."""
    try:
        return sorted(place.name for place in repository.folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    except OSError as problem:
        raise RepositoryUnusable(folder=repository.folder, problem=problem.strerror) from None


def plan_wanted(repository: Repository, wanted: Wanted) -> list[PlannedModel]:
    """The versions of a model that its configuration chooses, oldest first.

    Raises NotInRepository, ModelConfigUnusable or ModelUnusable.
    """
    if wanted.folder is not None:
        folder = Path(wanted.folder)
    elif wanted.name in model_names(repository):
        folder = repository.folder / wanted.name
    else:
        raise NotInRepository(model=wanted.name)
    config = _config(folder, wanted)
    try:
        there = _versions(folder)
        chosen = config.policy.choose(there)
        if not chosen:
            reason = f"of its versions {there} none is wanted" if there else "it has no version (a folder 1, 2, …)"
            raise ModelUnusable(model=wanted.name, file=folder, problem=reason)
        return [_planned(folder, wanted.name, version, config) for version in chosen]
    except OSError as problem:
        # It cannot be read; or what a caller sent was tidied away.
        raise ModelUnusable(model=wanted.name, file=folder, problem=problem.strerror) from None


def store_upload(uploads: Path, name: str, files: Mapping[str, str | bytes]) -> Path:
    """Write the files of a load request (``file:<version>/<name>`` to base64 text, or bytes) into a new folder; its path.

    Raises BadModelUpload.
    """
    if not _UPLOAD_NAME.fullmatch(name):
        raise BadModelUpload(model=name, problem="the model's name has characters that no folder should have")
    contents: dict[tuple[str, str], bytes] = {}
    for parameter, content in files.items():
        match = _UPLOADED.fullmatch(parameter)
        if match is None:
            raise BadModelUpload(model=name, problem=f"{parameter[:100]!r} is no file:<version>/<name>")
        contents[match[1], match[2]] = content if isinstance(content, bytes) else _decoded(name, parameter, content)
    with contextlib.ExitStack() as unless_stored:
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=uploads))
            unless_stored.callback(shutil.rmtree, folder, ignore_errors=True)
            for (version, file), data in contents.items():
                (folder / version).mkdir(exist_ok=True)
                (folder / version / file).write_bytes(data)
        except OSError as problem:
            raise BadModelUpload(model=name, problem=f"they cannot be stored ({problem.strerror})") from None
        unless_stored.pop_all()
    return folder


def _planned(folder: Path, name: str, version: int, config: ModelConfig) -> PlannedModel:
    file = folder / str(version) / config.file
    if not file.is_file():
        raise ModelUnusable(model=name, file=file, problem="there is no such file")
    return PlannedModel(name, str(version), file, most_rows=config.most_rows, instances=config.instances)


def _config(folder: Path, wanted: Wanted) -> ModelConfig:
    if wanted.config is not None:
        config = config_from_json(wanted.name, wanted.config)
    else:
        place = folder / CONFIG_FILE
        try:
            text = place.read_text(encoding="utf-8") if place.is_file() else ""
        except (OSError, UnicodeDecodeError) as problem:
            raise ModelConfigUnusable(model=wanted.name, problem=f"{CONFIG_FILE} cannot be read ({problem})") from None
        if len(text) > _LARGEST_CONFIG:
            raise ModelConfigUnusable(model=wanted.name, problem=f"{CONFIG_FILE} is longer than {_LARGEST_CONFIG} characters")
        config = config_from_pbtxt(wanted.name, text)
    if config.ignored:
        _log.info("model %s: its configuration says more than is used here: %s", wanted.name, ", ".join(config.ignored))
    return config


def _versions(folder: Path) -> list[int]:
    return sorted(int(place.name) for place in folder.iterdir() if _VERSION.fullmatch(place.name) and place.is_dir())


def _decoded(name: str, parameter: str, content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise BadModelUpload(model=name, problem=f"{parameter!r} is not base64") from None
