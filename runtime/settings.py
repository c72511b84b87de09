"""The scoring server's settings: one table. Environment names are azmlinfsrv's where it has the setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hedgerow.contracts.names import ENV_TELEMETRY_TOKEN, ENV_TELEMETRY_URL
from hedgerow.errors import InvalidSetting
from hedgerow.logs import LogFormat
from hedgerow.settings import load_settings, setting
from runtime.errors import NothingToServe, TooMuchToServe

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class RuntimeSettings:
    """Exactly one of ``image``, ``model`` and ``script`` says what is served."""

    image: Path | None = setting(None, "folder of an image (it holds hedgerow.json)", env="HEDGEROW_IMAGE")
    model: Path | None = setting(None, "an ONNX file to serve without a script", env="HEDGEROW_MODEL")
    name: str | None = setting(None, "name of that model; the file's name otherwise", env="HEDGEROW_MODEL_NAME")
    script: Path | None = setting(None, "a scoring script with init() and run()", env="AZUREML_ENTRY_SCRIPT")
    model_dir: Path | None = setting(None, "the script's model folder", env="AZUREML_MODEL_DIR")
    host: str = setting("127.0.0.1", "address to listen on")
    port: int = setting(5001, "port to listen on; 0 takes a free one")
    workers: int = setting(1, "processes that run the script (a model is shared by all cores of one)", env="WORKER_COUNT")
    standbys: int = setting(1, "loaded script processes that wait to replace one that hangs or dies")
    threads: int = setting(1, "threads inside one run of an ONNX model")
    ready_file: Path | None = setting(None, "written once requests are answered: address and pid as JSON")
    timeout_ms: int = setting(60_000, "longest time one scoring may run", env="SCORING_TIMEOUT_MS")
    max_concurrent: int = setting(0, "requests that may be scored at the same time; 0: what the cores can do")
    max_queue: int = setting(1000, "requests that may wait for their turn")
    queue_wait_ms: int = setting(500, "longest wait for a turn before the answer is 503")
    receive_timeout_ms: int = setting(30_000, "longest time that a request may take to arrive")
    max_body_bytes: int = setting(104_857_600, "largest request body")
    log_format: LogFormat = setting("text", "log lines for people or for machines")
    log_level: str = setting("info", "debug, info, warning or error", env="AZUREML_LOG_LEVEL")
    access_log: bool = setting(False, "log every request")
    telemetry_url: str | None = setting(None, "where an edge module posts what it scored", env=ENV_TELEMETRY_URL)
    telemetry_token: str | None = setting(None, "bearer token for that address", env=ENV_TELEMETRY_TOKEN, secret=True)


_SOURCES = ("image", "model", "script")
_RANGES = {
    "port": (0, 65_535),
    "workers": (1, 512),
    "threads": (1, 1024),
    "timeout_ms": (1, 86_400_000),
    "standbys": (0, 64),
    "max_concurrent": (0, 1024),
    "max_queue": (0, 65_536),
    "queue_wait_ms": (0, 600_000),
    "receive_timeout_ms": (100, 86_400_000),
    "max_body_bytes": (1, 2**40),
}


def load_runtime_settings(environment: Mapping[str, str], flags: Mapping[str, Any]) -> RuntimeSettings:
    """Settings from environment and flags; a source named by a flag replaces one named by the environment.

    Raises InvalidSetting, UnknownSetting, NothingToServe or TooMuchToServe.
    """
    if any(flags.get(source) is not None for source in _SOURCES):
        hidden = {"HEDGEROW_IMAGE", "HEDGEROW_MODEL", "AZUREML_ENTRY_SCRIPT"}
        environment = {name: value for name, value in environment.items() if name not in hidden}
    settings = load_settings(RuntimeSettings, environment, flags)
    _check_ranges(settings)
    named = [source for source in _SOURCES if getattr(settings, source) is not None]
    if not named:
        raise NothingToServe
    if len(named) > 1:
        raise TooMuchToServe(named=" and ".join(f"--{source}" for source in named))
    return settings


def with_absolute_paths(settings: RuntimeSettings) -> RuntimeSettings:
    """The same settings for a process that changes its working folder."""
    values: dict[str, Any] = {field.name: getattr(settings, field.name) for field in fields(settings)}
    changes = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
    return replace(settings, **{**values, **changes})


def _check_ranges(settings: RuntimeSettings) -> None:
    for name, (low, high) in _RANGES.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            problem = f"it must be between {low} and {high}"
            raise InvalidSetting(name=name, value=value, problem=problem, source=f"--{name.replace('_', '-')}")
    if settings.log_level.lower() not in LOG_LEVELS:
        problem = f"use one of {', '.join(LOG_LEVELS)}"
        raise InvalidSetting(name="log_level", value=settings.log_level, problem=problem, source="--log-level")
