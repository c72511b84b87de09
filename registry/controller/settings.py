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
    blobs: str | None = setting(
        None, "s3://bucket/prefix, or file:///folder, for contents; without it the workspace's own folder"
    )
    blobs_endpoint: str | None = setting(
        None, "address of an S3 server that is not Amazon's; credentials are AWS_ACCESS_KEY_ID and so on"
    )
    blob_lease_s: float = setting(86400.0, "how long stored content is kept although nothing refers to it yet")
    gc_every_s: float = setting(
        86400.0, "how often contents that nothing refers to are freed; 0: only when asked for (hedgerow gc)", least=0
    )
    balancer_port: int = setting(8090, "port of the balancer in front of services, on loopback; 0 picks a free one")
    haproxy: str = setting("haproxy", "the balancer's program, by name or path")
    max_builds: int = setting(2, "image builds at once")
    max_runs: int = setting(2, "training runs at once")
    ready_timeout_s: float = setting(60.0, "longest time that a replica may take until it answers")
    require_sandbox: bool = setting(False, "as root, refuse runs and replicas that cannot have a user of their own")
    stop_services_on_exit: bool = setting(False, "on SIGTERM stop replicas and balancer too; else they go on and are adopted")
    events_keep_days: int = setting(365, "how long events are kept; 0 keeps them for ever", least=0)
    egress_allow: str = setting("", "networks and hosts (comma separated) that may be called although they are not public https")
    egress_ca_file: Path | None = setting(
        None, "certificates (PEM) that receivers of webhooks and registries may have besides the machine's"
    )
    registry_logins: Path | None = setting(
        None, "file like Docker's config.json (or podman's auth.json) that logs in to registries"
    )
    webhook_timeout_s: float = setting(15.0, "longest time that one attempt to deliver an event may take")
    webhook_first_retry_s: float = setting(10.0, "how long a failed delivery waits at first; doubled with each attempt")
    webhook_longest_retry_s: float = setting(21_600.0, "longest time between two attempts")
    webhook_give_up_s: float = setting(259_200.0, "for how long a receiver may fail until its deliveries are dead")
    ready_file: Path | None = setting(None, 'file to write {"pid"} to once work is taken')
    watch_parent: bool = setting(False, "end when standard input ends (the process that started this one is gone)")
    log_format: LogFormat = setting("text", "text for people, json for machines")
    log_level: str = setting("info", "debug, info, warning or error")
