"""azmlinfsrv's variables and its config file, made into the values that settings.py reads.

    flags  >  environment  >  config file  >  defaults of the command

The config file is JSON with the variables' names as keys: AZUREML_CONFIG_FILE, or a ``config.json`` in the app's root or beside
the script. Reads files, starts nothing; what it has to say about values that mean nothing here comes back as notes for the log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hedgerow.settings import rows
from runtime.errors import ConfigFileUnusable
from runtime.settings import RuntimeSettings

_DEFAULT_HEALTH_PORT = "5000"
_NOT_USED = {
    "AML_APP_INSIGHTS_ENABLED": "there is no Application Insights here; see /metrics and --otlp-endpoint",
    "AML_APP_INSIGHTS_KEY": "there is no Application Insights here; see /metrics and --otlp-endpoint",
    "APP_INSIGHTS_LOG_RESPONSE_ENABLED": "there is no Application Insights here; --collect keeps answers in files",
    "WORKER_PRELOAD": "every script process loads the script itself",
    "AZUREML_DEBUG_PORT": "call debugpy.connect() in init() instead",
    "AML_DBG_MODEL_INFO": "azmlinfsrv has dropped it as well",
    "AML_DBG_RESOURCE_INFO": "azmlinfsrv has dropped it as well",
}
# Known to azmlinfsrv, and quietly without effect: names of what Azure runs around a container.
_ACCEPTED = {"WORKSPACE_NAME", "HOSTNAME", "SEPERATE_HEALTH_ENDPOINT"}
# ``true`` is yes and everything else is no, as azmlinfsrv reads them.
_SWITCHES = ("SEPERATE_HEALTH_ENDPOINT", "SERVER_VERSION_LOG_RESPONSE_ENABLED", "AML_MODEL_DC_STORAGE_ENABLED")
# Python's other names for levels.
_LEVELS = {"warn": "warning", "fatal": "critical", "notset": "debug"}
_NAMED_SOURCES = ("HEDGEROW_IMAGE", "HEDGEROW_MODEL", "HEDGEROW_MODEL_REPOSITORY", "AZUREML_ENTRY_SCRIPT")


# Variables of an image's environment that were the server's in Azure ML, too; nothing else of an image changes how it is served.
_OF_IMAGES = frozenset(
    {
        "WORKER_COUNT",
        "WORKER_TIMEOUT",
        "SCORING_TIMEOUT_MS",
        "AZUREML_LOG_LEVEL",
        "AML_CORS_ORIGINS",
        "SERVICE_NAME",
        "SERVICE_VERSION",
        "SERVICE_PATH_PREFIX",
        "SERVER_VERSION_LOG_RESPONSE_ENABLED",
        "SEPERATE_HEALTH_ENDPOINT",
        "HEALTH_PORT",
        *_NOT_USED,
    }
)


@dataclass(frozen=True)
class AmlEnvironment:
    """``values`` replace the environment; ``notes`` are warnings for the log."""

    values: dict[str, str]
    notes: tuple[str, ...]


def aml_environment(
    environment: Mapping[str, str], *, script: Path | None, config_file: Path | None, defaults: Mapping[str, str]
) -> AmlEnvironment:
    """``script`` and ``config_file`` are what flags say. Raises ConfigFileUnusable."""
    notes: list[str] = []
    named = config_file or _path(environment.get("AZUREML_CONFIG_FILE"))
    root = _path(environment.get("AML_APP_ROOT") or defaults.get("AML_APP_ROOT"))
    found = _read(named, must=True) if named is not None else _find(environment, root, script)
    values = {**defaults, **_known(found, notes), **environment}
    _place_script(values, script)
    model_dir = _path(values.get("AZUREML_MODEL_DIR"))
    if model_dir is not None and not model_dir.is_dir():
        # The script sees the variable all the same; many never look at it.
        notes.append(f"AZUREML_MODEL_DIR names {model_dir}, which is no folder")
        del values["AZUREML_MODEL_DIR"]
    for switch in _SWITCHES:
        if switch in values:
            values[switch] = str(values[switch].lower() == "true").lower()
    if (level := _LEVELS.get(values.get("AZUREML_LOG_LEVEL", "").lower())) is not None:
        values["AZUREML_LOG_LEVEL"] = level
    if values.get("SEPERATE_HEALTH_ENDPOINT") == "true":
        values.setdefault("HEALTH_PORT", _DEFAULT_HEALTH_PORT)
    else:
        # Without that switch azmlinfsrv has one port, whatever this says.
        values.pop("HEALTH_PORT", None)
    notes += [f"{name} has no effect: {why}" for name, why in _NOT_USED.items() if _says_yes(values.get(name))]
    return AmlEnvironment(values, tuple(notes))


def of_image(variables: Mapping[str, str]) -> dict[str, str]:
    """What an image's variables say about the server; defaults below the real environment."""
    return {name: value for name, value in variables.items() if name in _OF_IMAGES}


@dataclass(frozen=True)
class _ConfigFile:
    file: Path
    values: dict[str, object]
    named: bool


def _find(environment: Mapping[str, str], root: Path | None, script: Path | None) -> _ConfigFile | None:
    entry = script or _path(environment.get("AZUREML_ENTRY_SCRIPT"))
    for folder in (root, entry.absolute().parent if entry is not None else None):
        file = folder / "config.json" if folder is not None else None
        if file is not None and file.is_file() and (found := _read(file, must=False)) is not None:
            return found
    return None


def _read(file: Path, *, must: bool) -> _ConfigFile | None:
    """A ``config.json`` that merely lies there may be a model's: what it holds is looked at later, what is no JSON not at all."""
    try:
        text = file.read_text(encoding="utf-8")
        values = json.loads(text) if text.strip() else {}
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as problem:
        if must:
            reason = problem.strerror if isinstance(problem, OSError) else str(problem)
            raise ConfigFileUnusable(file=file, problem=reason) from None
        return None
    return _ConfigFile(file, values, must)


def _known(found: _ConfigFile | None, notes: list[str]) -> dict[str, str]:
    if found is None:
        return {}
    names = {row.env for row in rows(RuntimeSettings) if not row.secret} | _NOT_USED.keys() | _ACCEPTED
    known = {name: _text(value) for name, value in found.values.items() if name in names and value is not None}
    unknown = sorted(found.values.keys() - names)
    # A file without a single name of ours is somebody else's config.json.
    if unknown and (known or found.named):
        notes.append(f"{found.file} has keys that are not supported: {', '.join(unknown)}")
    return known


def _place_script(values: dict[str, str], script: Path | None) -> None:
    """The script of the environment counts from the app's root; without any it is ``main.py`` there."""
    root = _path(values.get("AML_APP_ROOT"))
    if root is None or script is not None:
        return
    if entry := values.get("AZUREML_ENTRY_SCRIPT"):
        values["AZUREML_ENTRY_SCRIPT"] = str(root / entry)
    elif not any(values.get(name) for name in _NAMED_SOURCES):
        for folder in (root, root / values.get("AZUREML_SOURCE_DIRECTORY", "")):
            if (folder / "main.py").is_file():
                values["AZUREML_ENTRY_SCRIPT"] = str(folder / "main.py")
                return


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else (value if isinstance(value, str) else json.dumps(value))


def _says_yes(value: str | None) -> bool:
    return bool(value) and str(value).lower() not in ("false", "0")


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
