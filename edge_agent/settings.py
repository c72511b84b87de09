"""The agent's settings, one table: environment, flags, ``--help`` and docs come from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.edge import OverflowPolicy
from hedgerow.contracts.names import MAX_MQTT_PAYLOAD_BYTES
from hedgerow.errors import InvalidSetting
from hedgerow.logs import LogFormat
from hedgerow.settings import load_settings, setting


@dataclass(frozen=True)
class AgentSettings:
    """How this device runs its agent; who it is stands in device.toml (DeviceConfig)."""

    config: Path = setting(Path("device.toml"), "The device.toml made at enrolment", env="HEDGEROW_AGENT_CONFIG")
    state_dir: Path | None = setting(
        None, "Folder of everything the agent keeps (default: 'state' beside device.toml)", env="HEDGEROW_AGENT_STATE_DIR"
    )
    intake_port: int = setting(
        0, "Loopback port for modules and /metrics (0: chosen once, then kept)", env="HEDGEROW_AGENT_INTAKE_PORT"
    )
    mqtt_port: int = setting(
        0, "Loopback port of the local hub, MQTT for modules (0: chosen once, then kept)", env="HEDGEROW_AGENT_MQTT_PORT"
    )
    quota_bytes: int = setting(256_000_000, "Telemetry buffer: bytes of messages kept at most", env="HEDGEROW_AGENT_QUOTA_BYTES")
    replay_bytes: int = setting(
        32_000_000, "Telemetry buffer: acknowledged bytes kept for a restored hub", env="HEDGEROW_AGENT_REPLAY_BYTES"
    )
    overflow: OverflowPolicy = setting(
        "drop-oldest",
        "What a full telemetry buffer does: drop-oldest, drop-newest (507) or downsample",
        env="HEDGEROW_AGENT_OVERFLOW",
    )
    max_message_bytes: int = setting(
        65_536, "Largest telemetry message taken from a module", env="HEDGEROW_AGENT_MAX_MESSAGE_BYTES"
    )
    batch_bytes: int = setting(
        65_536,
        "Largest telemetry batch sent; shrinks by itself where a broker cuts larger ones",
        env="HEDGEROW_AGENT_BATCH_BYTES",
    )
    backfill_messages_per_s: float = setting(
        0.0,
        "Messages older than the session sent per second at most, so that other streams go first (0: no limit)",
        env="HEDGEROW_AGENT_BACKFILL_MESSAGES_PER_S",
    )
    report_period_s: float = setting(
        30.0, "Seconds between status reports when nothing changes", env="HEDGEROW_AGENT_REPORT_PERIOD_S"
    )
    docker_allow: str = setting(
        "",
        "Privileges that Docker modules may have: comma list of privileged, host, binds, devices, capabilities, remote-logs,"
        " oom-score",
        env="HEDGEROW_AGENT_DOCKER_ALLOW",
    )
    upload_hosts: str = setting(
        "",
        "Hosts that logs and support bundles may be uploaded to: comma list of names, addresses or networks (default: none)",
        env="HEDGEROW_AGENT_UPLOAD_HOSTS",
    )
    docker_host: str | None = setting(None, "Docker engine for docker modules (default: the local one)", env="DOCKER_HOST")
    image_quota_bytes: int = setting(
        8_000_000_000,
        "Images: bytes kept at most; above, those unused for longest go (never one that a module needs)",
        env="HEDGEROW_AGENT_IMAGE_QUOTA_BYTES",
    )
    image_unused_days: float = setting(
        7.0, "Images: days that one nobody needs any more is kept", env="HEDGEROW_AGENT_IMAGE_UNUSED_DAYS"
    )
    disk_free_min_bytes: int = setting(
        200_000_000,
        "Below so much free space everything goes that no module needs (unused images, leftovers)",
        env="HEDGEROW_AGENT_DISK_FREE_MIN_BYTES",
    )
    log_bytes_max: int = setting(3_000_000, "Bytes of output kept of each module", env="HEDGEROW_AGENT_LOG_BYTES_MAX")
    cgroup: Path | None = setting(
        None,
        "Folder of the cgroup v2 tree below which modules get groups (default: what systemd delegates)",
        env="HEDGEROW_AGENT_CGROUP",
    )
    chaos_allowed: bool = setting(
        False,
        "Take orders of `hedgerow agent chaos`: experiments that break something on purpose (never without need)",
        env="HEDGEROW_AGENT_CHAOS_ALLOWED",
    )
    releases: Path | None = setting(
        None,
        "Folder of the agent's releases (upgrade; default: 'releases' beside device.toml)",
        env="HEDGEROW_AGENT_RELEASES",
    )
    release_index_url: str | None = setting(
        None,
        "Package index for releases of the agent that the hub asks for (default: the one of this machine)",
        env="HEDGEROW_AGENT_RELEASE_INDEX_URL",
    )
    release_find_links: Path | None = setting(
        None,
        "Folder of wheels for releases of the agent that the hub asks for, instead of any index",
        env="HEDGEROW_AGENT_RELEASE_FIND_LINKS",
    )
    enroll_url: str | None = setting(
        None, "Address of the workspace to enrol at while there is no device.toml yet", env="HEDGEROW_AGENT_ENROLL_URL"
    )
    enroll_key_file: Path | None = setting(
        None, "File with the enrolment key for --enroll-url", env="HEDGEROW_AGENT_ENROLL_KEY_FILE"
    )
    enroll_name: str | None = setting(None, "Name to enrol under (default: what the key gives)", env="HEDGEROW_AGENT_ENROLL_NAME")
    enroll_ca: Path | None = setting(
        None,
        "Certificate authority (PEM) to trust when enrolling (default: the system's)",
        env="HEDGEROW_AGENT_ENROLL_CA",
    )
    enroll_insecure_http: bool = setting(
        False,
        "Enrol over http:// although everybody on the way reads this device's key",
        env="HEDGEROW_AGENT_ENROLL_INSECURE_HTTP",
    )
    stop_modules_on_exit: bool = setting(
        False,
        "Stop all modules when the agent ends (default: they run on and are adopted)",
        env="HEDGEROW_AGENT_STOP_MODULES_ON_EXIT",
    )
    watch_parent: bool = setting(False, "End when standard input closes", env="HEDGEROW_AGENT_WATCH_PARENT")
    log_level: str = setting("info", "debug, info, warning or error", env="HEDGEROW_LOG_LEVEL")
    log_format: LogFormat = setting("text", "text or json", env="HEDGEROW_LOG_FORMAT")


# What a batch needs at most for a message of so many bytes (JSON in JSON doubles every quote) has to pass every broker.
_LARGEST_BATCH = MAX_MQTT_PAYLOAD_BYTES * 2 // 5
_RANGES: dict[str, tuple[float, float]] = {
    "intake_port": (0, 65_535),
    "mqtt_port": (0, 65_535),
    "quota_bytes": (100_000, 2**50),
    "replay_bytes": (0, 2**50),
    "max_message_bytes": (1, _LARGEST_BATCH),
    "batch_bytes": (4096, _LARGEST_BATCH),
    "backfill_messages_per_s": (0.0, 1e6),
    "report_period_s": (1.0, 3600.0),
    "image_quota_bytes": (0, 2**60),
    "image_unused_days": (0.0, 36_500.0),
    "disk_free_min_bytes": (0, 2**60),
    "log_bytes_max": (3000, 2**40),
}


def load_agent_settings(environment: Mapping[str, str], flags: Mapping[str, object]) -> AgentSettings:
    """Defaults < environment < flags. Raises InvalidSetting (also for values out of range), UnknownSetting."""
    settings = load_settings(AgentSettings, environment, flags)
    for name, (low, high) in _RANGES.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            problem = f"it must be between {low} and {high}"
            raise InvalidSetting(name=name, value=value, problem=problem, source=f"--{name.replace('_', '-')}")
    return settings
