"""The scoring server's settings: one table. Environment names are azmlinfsrv's where it has the setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from hedgerow.contracts.names import ENV_TELEMETRY_TOKEN, ENV_TELEMETRY_URL
from hedgerow.errors import InvalidSetting
from hedgerow.logs import LogFormat
from hedgerow.settings import load_settings, setting
from runtime.errors import NothingToServe, TooMuchToServe
from runtime.models.providers import Arena, parse_providers

ModelControl = Literal["none", "explicit", "uploads"]
AccessLogFormat = Literal["off", "text", "json"]
CollectFormat = Literal["jsonl", "parquet"]
MetricsAuth = Literal["remote", "always", "never"]
# models/warm_up.py has them from here: the master needs no numpy to read its settings.
Prefer = Literal["throughput", "latency"]
Batching = Literal["auto", "on", "off"]
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class RuntimeSettings:
    """Exactly one of ``image``, ``model``, ``script`` and ``model_repository`` says what is served."""

    image: Path | None = setting(
        None,
        "folder of an image (it holds hedgerow.json); `hedgerow serve` also takes NAME[:VERSION], a tar and an OCI layout",
        env="HEDGEROW_IMAGE",
    )
    model: Path | None = setting(None, "an ONNX file to serve without a script", env="HEDGEROW_MODEL")
    name: str | None = setting(None, "name of that model; the file's name otherwise", env="HEDGEROW_MODEL_NAME")
    script: Path | None = setting(None, "a scoring script with init() and run()", env="AZUREML_ENTRY_SCRIPT")
    model_dir: Path | None = setting(None, "the script's model folder", env="AZUREML_MODEL_DIR")
    model_repository: Path | None = setting(None, "a folder of models in Triton's layout, MODEL/VERSION/model.onnx")
    model_control: ModelControl = setting(
        "none", "who may load and unload its models: nobody (none), callers (explicit), callers who may also send files (uploads)"
    )
    load_models: str = setting("*", "names of its models to load at the start, separated by commas; * is all")
    grpc_port: int | None = setting(None, "port for the Open Inference Protocol over gRPC; 0 takes a free one; off unless given")
    host: str = setting("127.0.0.1", "address to listen on")
    port: int = setting(5001, "port to listen on; 0 takes a free one")
    workers: int = setting(1, "processes that run the script (a model is shared by all cores of one)", env="WORKER_COUNT")
    standbys: int = setting(1, "loaded script processes that wait to replace one that hangs or dies")
    threads: int = setting(0, "threads inside one run of an ONNX model; 0: found out for each model")
    prefer: Prefer = setting(
        "throughput", "what cores are for when threads are found out: more runs at once (throughput) or quicker ones (latency)"
    )
    batching: Batching = setting(
        "auto", "score together what waits for a busy model: where it pays (auto), where answers stay the same (on), never (off)"
    )
    batchable: str | None = setting(
        None, "models of the image, separated by commas, that were found batchable when it was built, and are not measured again"
    )
    max_batch_rows: int = setting(256, "most rows that are scored together")
    max_batch_bytes: int = setting(16_777_216, "most bytes of input that are scored together")
    providers: str = setting("cpu", "execution providers in order of preference, with options, as in cuda:device_id=0,cpu")
    arena: Arena = setting(
        "on",
        "memory that onnxruntime keeps between runs: grown by doubling (on), exactly (exact), given back (shrink), none (off)",
    )
    script_memory_mb: int = setting(0, "most memory of one script process, in MiB; 0: no limit")
    ready_file: Path | None = setting(None, "written once requests are answered: address and pid as JSON")
    timeout_ms: int = setting(60_000, "longest time one scoring may run", env="SCORING_TIMEOUT_MS")
    max_concurrent: int = setting(0, "requests that may be scored at the same time; 0: what the cores can do")
    max_queue: int = setting(1000, "requests that may wait for their turn")
    queue_wait_ms: int = setting(500, "longest wait for a turn before the answer is 503")
    receive_timeout_ms: int = setting(30_000, "longest time that a request may take to arrive")
    max_body_bytes: int = setting(104_857_600, "largest request body")
    max_buffered_bytes: int = setting(
        0, "bodies of all requests under way, and answers not yet taken, together; 0: a quarter of the memory"
    )
    log_format: LogFormat = setting("text", "log lines for people or for machines")
    log_level: str = setting("info", "debug, info, warning or error", env="AZUREML_LOG_LEVEL")
    access_log: AccessLogFormat = setting("off", "a line on stdout for every request: text, json or off")
    auth_key_file: Path | None = setting(None, "file with one or two keys, a line each; read again when it changes")
    primary_key: str | None = setting(None, "key that callers must send", secret=True)
    secondary_key: str | None = setting(None, "a second key that is as good, for changing keys one after the other", secret=True)
    auth_health: bool = setting(False, "health pages want a key too")
    auth_metrics: MetricsAuth = setting(
        "remote", "who needs a key for /metrics: callers on other machines (remote), everybody (always) or nobody (never)"
    )
    tls_cert: Path | None = setting(
        None, "PEM file with the server's certificate and those that vouch for it; read again at SIGHUP"
    )
    tls_key: Path | None = setting(None, "PEM file with its private key")
    workspace_name: str | None = setting(None, "workspace named in collected records", env="WORKSPACE_NAME")
    otlp_endpoint: str | None = setting(
        None,
        "OpenTelemetry receiver (OTLP over HTTP) for traces, such as http://127.0.0.1:4318",
        env="OTEL_EXPORTER_OTLP_ENDPOINT",
    )
    trace_sample: float = setting(1.0, "share of requests traced, where the caller does not say", env="OTEL_TRACES_SAMPLER_ARG")
    collect: bool = setting(False, "keep sampled requests and their answers in files", env="AML_MODEL_DC_STORAGE_ENABLED")
    collect_dir: Path = setting(Path("collected"), "folder for those files")
    collect_sample: float = setting(1.0, "share of requests kept")
    collect_format: CollectFormat = setting("jsonl", "their format")
    collect_file_bytes: int = setting(67_108_864, "largest of those files")
    collect_files: int = setting(100, "most of those files; the oldest goes first")
    collect_bytes: int = setting(1_073_741_824, "most that those files may hold together")
    tap_dir: Path | None = setting(
        None, "folder for Unix sockets by which this user gets copies of requests and answers (an edge module's shadow does)"
    )
    # azmlinfsrv's own, by its names (reference: runtime/aml/environment.py).
    app_root: Path | None = setting(
        None, "root of the app: the script's working folder; the script's own folder otherwise", env="AML_APP_ROOT"
    )
    source_directory: str | None = setting(
        None, "folder under the app's root for the script's imports", env="AZUREML_SOURCE_DIRECTORY"
    )
    config_file: Path | None = setting(None, "JSON file of these variables", env="AZUREML_CONFIG_FILE")
    worker_timeout: int = setting(
        0, "longest time in seconds that a scoring may run; the shorter of both; 0: not used", env="WORKER_TIMEOUT"
    )
    health_port: int | None = setting(
        None, "a second port that answers GET / only; in the environment with SEPERATE_HEALTH_ENDPOINT=true", env="HEALTH_PORT"
    )
    cors_origins: str | None = setting(
        None, "origins whose pages may call, separated by commas; * is all", env="AML_CORS_ORIGINS"
    )
    service_name: str | None = setting(
        None, "title of /swagger.json; the model's name or 'ML service' otherwise", env="SERVICE_NAME"
    )
    service_version: str = setting("1.0", "version that /swagger.json says", env="SERVICE_VERSION")
    service_path_prefix: str = setting("", "prefix of the paths in /swagger.json", env="SERVICE_PATH_PREFIX")
    server_version: str | None = setting(
        None, "what x-ms-server-version says; hedgerow/VERSION otherwise", env="HTTP_X_MS_SERVER_VERSION"
    )
    show_server_version: bool = setting(True, "send x-ms-server-version at all", env="SERVER_VERSION_LOG_RESPONSE_ENABLED")
    telemetry_url: str | None = setting(None, "where an edge module posts what it scored", env=ENV_TELEMETRY_URL)
    telemetry_token: str | None = setting(None, "bearer token for that address", env=ENV_TELEMETRY_TOKEN, secret=True)


_SOURCES = ("image", "model", "script", "model_repository")
_RANGES = {
    "port": (0, 65_535),
    "grpc_port": (0, 65_535),
    "health_port": (0, 65_535),
    "worker_timeout": (0, 86_400),
    "workers": (1, 512),
    "threads": (0, 1024),
    "max_batch_rows": (1, 65_536),
    "max_batch_bytes": (1, 2**40),
    "script_memory_mb": (0, 2**24),
    "timeout_ms": (1, 86_400_000),
    "standbys": (0, 64),
    "max_concurrent": (0, 1024),
    "max_queue": (0, 65_536),
    "queue_wait_ms": (0, 600_000),
    "receive_timeout_ms": (100, 86_400_000),
    "max_body_bytes": (1, 2**40),
    "max_buffered_bytes": (0, 2**50),
    "trace_sample": (0, 1),
    "collect_sample": (0, 1),
    "collect_file_bytes": (4096, 2**30),
    "collect_files": (2, 100_000),
    "collect_bytes": (8192, 2**50),
}


def load_runtime_settings(environment: Mapping[str, str], flags: Mapping[str, Any]) -> RuntimeSettings:
    """Settings from environment and flags; a source named by a flag replaces one named by the environment.

    Raises InvalidSetting, UnknownSetting, NothingToServe or TooMuchToServe.
    """
    if any(flags.get(source) is not None for source in _SOURCES):
        hidden = {"HEDGEROW_IMAGE", "HEDGEROW_MODEL", "HEDGEROW_MODEL_REPOSITORY", "AZUREML_ENTRY_SCRIPT"}
        environment = {name: value for name, value in environment.items() if name not in hidden}
    if flags.get("name") == "":
        # An empty variable is none; an empty flag is a variable of the caller's own that is not set.
        raise InvalidSetting(name="name", value="", problem="a model's name cannot be empty", source="--name, or leave it out")
    settings = load_settings(RuntimeSettings, environment, flags)
    _check_ranges(settings)
    if settings.worker_timeout:
        settings = replace(settings, timeout_ms=min(settings.timeout_ms, settings.worker_timeout * 1000))
    named = [source for source in _SOURCES if getattr(settings, source) is not None]
    if not named:
        raise NothingToServe
    if len(named) > 1:
        raise TooMuchToServe(named=" and ".join(f"--{source.replace('_', '-')}" for source in named))
    return settings


def without_effect(settings: RuntimeSettings) -> list[str]:
    """What was asked for and means nothing beside what is served, a sentence each for the log."""
    missing = [source for source in ("model", "model_repository") if getattr(settings, source) is None]
    idle = {"model": ("name",), "model_repository": ("model_control", "load_models")}
    return [
        f"--{name.replace('_', '-')} has no effect without --{source.replace('_', '-')}"
        for source in missing
        for name in idle[source]
        if getattr(settings, name) != getattr(RuntimeSettings, name, None)
    ]


def with_absolute_paths(settings: RuntimeSettings) -> RuntimeSettings:
    """The same settings for a process that changes its working folder."""
    values: dict[str, Any] = {field.name: getattr(settings, field.name) for field in fields(settings)}
    changes = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
    return replace(settings, **{**values, **changes})


def _check_ranges(settings: RuntimeSettings) -> None:
    for name, (low, high) in _RANGES.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            problem = f"it must be between {low} and {high}"
            raise InvalidSetting(name=name, value=value, problem=problem, source=f"--{name.replace('_', '-')}")
    parse_providers(settings.providers)
    if settings.log_level.lower() not in LOG_LEVELS:
        problem = f"use one of {', '.join(LOG_LEVELS)}"
        raise InvalidSetting(name="log_level", value=settings.log_level, problem=problem, source="--log-level")
