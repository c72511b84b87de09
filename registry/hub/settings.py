"""The hub's settings; flags, environment, help and docs come from this table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hedgerow.logs import LogFormat
from hedgerow.settings import setting


@dataclass(frozen=True)
class HubSettings:
    """``python -P -m registry.hub``."""

    workspace: Path = setting(Path("hedgerow-workspace"), "folder of the workspace; made when it is not there")
    broker_url: str = setting(
        "mqtt://127.0.0.1:1883", "MQTT broker that devices use: mqtt[s]://[USER:PASSWORD@]HOST[:PORT]", secret=True
    )
    broker_login: Literal["url", "own"] = setting(
        "url", "own: log in with the workspace's own name and password; url: as the broker's URL says"
    )
    database: str | None = setting(None, "URL of a PostgreSQL database; without it SQLite files in the workspace", secret=True)
    share: bool = setting(
        False, "other hubs take a part of the messages: PostgreSQL and an MQTT 5 broker; with MQTT 3.1.1 they stand by"
    )
    ready_file: Path | None = setting(None, 'file to write {"broker", "pid"} to once messages are taken')
    watch_parent: bool = setting(False, "end when standard input ends (the process that started this one is gone)")
    log_format: LogFormat = setting("text", "text for people, json for machines")
    log_level: str = setting("info", "debug, info, warning or error")
