"""The controller's settings; flags, environment, help and docs come from this table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hedgerow.logs import LogFormat
from hedgerow.settings import setting


@dataclass(frozen=True)
class ControllerSettings:
    """``python -P -m registry.controller``."""

    workspace: Path = setting(Path("hedgerow-workspace"), "folder of the workspace; made when it is not there")
    database: str | None = setting(None, "URL of a PostgreSQL database; without it SQLite files in the workspace", secret=True)
    balancer_port: int = setting(8090, "port of the balancer in front of services, on loopback; 0 picks a free one")
    haproxy: str = setting("haproxy", "the balancer's program, by name or path")
    max_builds: int = setting(2, "image builds at once")
    max_runs: int = setting(2, "training runs at once")
    ready_timeout_s: float = setting(60.0, "longest time that a replica may take until it answers")
    require_sandbox: bool = setting(False, "as root, refuse runs and replicas that cannot have a user of their own")
    stop_services_on_exit: bool = setting(False, "on SIGTERM stop replicas and balancer too; else they go on and are adopted")
    ready_file: Path | None = setting(None, 'file to write {"pid"} to once work is taken')
    watch_parent: bool = setting(False, "end when standard input ends (the process that started this one is gone)")
    log_format: LogFormat = setting("text", "text for people, json for machines")
    log_level: str = setting("info", "debug, info, warning or error")
