"""Settings of the broker for devices; flags, environment, help and docs come from this table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hedgerow.logs import LogFormat
from hedgerow.settings import setting


@dataclass(frozen=True)
class MosquittoSettings:
    """``python -P -m registry.mosquitto``."""

    workspace: Path = setting(Path("hedgerow-workspace"), "folder of the workspace; made when it is not there")
    listen: str = setting(
        "127.0.0.1:8883", "HOST:PORT for devices, with TLS and passwords; empty: none", env="HEDGEROW_MOSQUITTO_LISTEN"
    )
    port: int = setting(1883, "loopback port of the hub, without TLS", env="HEDGEROW_MOSQUITTO_PORT")
    mtls: str = setting(
        "",
        "HOST:PORT for devices with certificates of the workspace's authority instead of passwords",
        env="HEDGEROW_MOSQUITTO_MTLS",
    )
    revocations_s: float = setting(
        7 * 86400.0,
        "how long a list of revoked certificates is good; made anew after a quarter",
        env="HEDGEROW_MOSQUITTO_REVOCATIONS_S",
        least=4.0,
    )
    names: str = setting("", "names and addresses (comma separated) that the certificate is for", env="HEDGEROW_MOSQUITTO_NAMES")
    cert: Path | None = setting(
        None, "certificate (PEM) instead of one of the workspace's own authority", env="HEDGEROW_MOSQUITTO_CERT"
    )
    key: Path | None = setting(None, "key (PEM) of --cert", env="HEDGEROW_MOSQUITTO_KEY")
    program: str = setting("mosquitto", "the program, or its path", env="HEDGEROW_MOSQUITTO_PROGRAM")
    database: str | None = setting(None, "URL of a PostgreSQL database; without it SQLite files in the workspace", secret=True)
    ready_file: Path | None = setting(None, 'file to write {"url", "pid"} to once connections are taken')
    watch_parent: bool = setting(False, "end when standard input ends (the process that started this one is gone)")
    log_format: LogFormat = setting("text", "text for people, json for machines")
    log_level: str = setting("info", "debug, info, warning or error")
